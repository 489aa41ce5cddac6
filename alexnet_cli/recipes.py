"""Recipes: every constant of a network and of its training, with its source.

A recipe is data. The defaults of the classes below are the paper's values, each with the section
that states it ("§3.3"); a recipe overrides only what differs and says why.

Sources: the paper is Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep
Convolutional Neural Networks", NIPS 2012. "Released code" is the authors' program, released by
the Computer History Museum in 2025. "Caffe" is the bvlc_alexnet replication. "Notebook" is the
`alexnet.ipynb` of archit-lahiri/Alexnet_Implementation.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from alexnet_cli.errors import AlexNetError, UsageError


@dataclass(frozen=True)
class Conv:
    """A convolution and, in order, what follows it: `relu`, `lrn`, `batch_norm`, `pool`.

    With stride 1 its output is as large as its input. With a larger stride it gives
    1 + ceil((input − kernel) / stride), the missing edge read as zeros: 55 from 224 and from 227
    (released code, layer.py).
    """

    filters: int
    kernel: int
    stride: int = 1
    towers: int = 1  # 2: each half of the kernels sees its own half of the channels (§3.5)
    bias: float = 0.0  # initial (§5)
    stddev: float | None = 0.01  # of the initial N(0, stddev²) (§5); None: Glorot uniform
    then: tuple[str, ...] = ("relu",)


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with ReLU and dropout."""

    units: int = 4096  # §3.5
    bias: float = 1.0  # initial (§5)
    stddev: float | None = 0.01  # §5; None: Glorot uniform
    dropout: float = 0.5  # §4.2


@dataclass(frozen=True)
class Recipe:
    """A network and its training; the defaults are the paper's."""

    name: str
    summary: str

    # Images. Pixels are 0–255; the network sees (pixel − mean) × scale.
    stored_size: int = 256  # shorter side to 256, centre 256×256 (§2)
    squash: bool = False  # press the whole image into the square instead of cutting its centre
    crop_size: int = 224  # random crops in training, the centre in validation (§4.1)
    subtract: str = "image"  # `image`: the mean of each pixel (§2); `channel`; `none`
    scale: float = 1.0  # §2: raw RGB values
    flip: bool = True  # horizontal reflections (§4.1)
    # α ~ N(0, 0.1), drawn once per image and use (§4.1). It multiplies the standard deviation
    # along each principal component of RGB, as in the released code: the eigenvalue that the
    # paper names reaches 13,000 on 0–255 pixels, and would drown every picture.
    colour_noise: float = 0.1

    # Network (§3.5, Figure 2)
    convs: tuple[Conv, ...] = (
        Conv(96, 11, stride=4, bias=0.0, then=("relu", "lrn", "pool")),
        Conv(256, 5, towers=2, bias=1.0, then=("relu", "lrn", "pool")),
        Conv(384, 3, bias=0.0),
        Conv(384, 3, towers=2, bias=1.0),
        Conv(256, 3, towers=2, bias=1.0, then=("relu", "pool")),
    )
    dense: tuple[Dense, ...] = (Dense(), Dense())
    output_stddev: float | None = 0.01  # §5; None: Glorot uniform
    lrn_k: float = 2.0  # §3.3, as the next three
    lrn_n: int = 5
    lrn_alpha: float = 1e-4  # multiplies the sum of squares
    lrn_beta: float = 0.75
    pool_size: int = 3  # z = 3, s = 2: overlapping (§3.4)
    pool_stride: int = 2

    # Training (§5)
    batch_size: int = 128  # global, over all devices
    epochs: int = 90  # "roughly 90 cycles"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0005  # inside the momentum; on weights, never on biases
    rate_drop: float = 10.0  # divides the rate when the validation error stops improving
    rate_drops: int = 3  # at most ("reduced three times")
    # Epochs without a lower validation error before the rate drops. The authors judged by eye;
    # their logs (released code) drop it after 22 to 30 epochs at one rate.
    patience: int = 12

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes an equal recipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """Rebuild a recipe; raises `AlexNetError` that names an unknown or missing constant."""
        try:
            convs = tuple(_exactly(Conv, {**c, "then": tuple(c["then"])}) for c in data["convs"])
            dense = tuple(_exactly(Dense, layer) for layer in data["dense"])
            return _exactly(cls, {**data, "convs": convs, "dense": dense})
        except (TypeError, KeyError) as error:
            raise AlexNetError(f"the recipe can't be read: {error}") from None


T = TypeVar("T", Conv, Dense, Recipe)


def _exactly(kind: type[T], values: dict[str, Any]) -> T:
    """Make one with every constant stated: a default must not stand in for what is missing."""
    odd = values.keys() ^ {field.name for field in fields(kind)}
    if odd:
        raise KeyError(f"{min(odd)} in {kind.__name__}")
    return kind(**values)


# Hidden biases of 0.1 in place of 1, as Caffe found. With 1 every unit of fc7 starts at about 1
# for every image: fc8's input has a common part of squared length 7,600, and the loss curves
# along it by that times twice p(1 − p), p the share of a class. Momentum is stable below a rate
# of 3.8 over the curvature: 0.0016 with 5 classes, 0.25 with ImageNet's 1000. At 0.01 the loss
# jumps to 38 within four steps, and by the tenth no unit of fc7 is alive. With 0.1 in the dense
# layers alone the squared length is 840, the rate at the edge of what is stable, and two thirds
# of conv5 die; with 0.1 everywhere it is 90, and nothing dies.
PAPER = Recipe(
    name="paper",
    summary="the 2012 paper; hidden biases start at 0.1 in place of 1",
    convs=tuple(replace(conv, bias=0.1 if conv.bias else 0.0) for conv in Recipe.convs),
    dense=(Dense(bias=0.1), Dense(bias=0.1)),
)

# A plain Keras network, as its author wrote it.
NOTEBOOK = Recipe(
    name="notebook",
    summary="the Keras notebook: batch norm, no towers, pixels ÷ 255, plain SGD",
    stored_size=227,
    squash=True,
    crop_size=227,
    subtract="none",
    scale=1 / 255,
    flip=False,
    colour_noise=0.0,
    convs=(
        Conv(96, 11, stride=4, stddev=None, then=("relu", "batch_norm", "pool")),
        Conv(256, 5, stddev=None, then=("relu", "batch_norm", "pool")),
        Conv(384, 3, stddev=None),
        Conv(384, 3, stddev=None),
        Conv(256, 3, stddev=None, then=("relu", "pool")),
    ),
    dense=(Dense(bias=0.0, stddev=None), Dense(bias=0.0, stddev=None)),
    output_stddev=None,
    batch_size=32,
    epochs=50,
    learning_rate=0.001,
    momentum=0.0,
    weight_decay=0.0,
    rate_drops=0,
)

RECIPES = {recipe.name: recipe for recipe in (PAPER, NOTEBOOK)}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name; raises `UsageError` that lists the names there are."""
    if name not in RECIPES:
        raise UsageError(f"no recipe named {name!r}: choose from {', '.join(RECIPES)}")
    return RECIPES[name]


def override(recipe: Recipe, **constants: Any) -> Recipe:
    """Return `recipe` with those constants that are not None; raises `UsageError` for nonsense."""
    given = {name: value for name, value in constants.items() if value is not None}
    unknown = given.keys() - {field.name for field in fields(recipe)}
    if unknown:
        raise UsageError(f"a recipe has no constant {sorted(unknown)[0]!r}")
    for name, value in given.items():
        if isinstance(value, (int, float)) and not 0 < value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be above 0 and finite")
    return replace(recipe, **given)
