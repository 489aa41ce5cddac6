"""Recipes: every constant of a network and of its training, with its source.

A recipe is data. The defaults of the classes below are the paper's values, each with the section
that states it; a recipe overrides only what differs, and its `because` says from where and why.
`fidelity` turns that into the report of what is faithful and what is not.

Sources: "§" is a section of Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep
Convolutional Neural Networks", NIPS 2012. "Released" is the authors' program, released by the
Computer History Museum in 2025. "Caffe" is the bvlc_alexnet replication. "Notebook" is the
`alexnet.ipynb` of archit-lahiri/Alexnet_Implementation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from alexnet_cli import strict
from alexnet_cli.errors import AlexNetError, UsageError

Parser = Callable[[str], Any]  # of a constant's value; raises ValueError that says what it must be


def _number(kind: type, *, zero: bool = False, below: float = math.inf) -> Parser:
    wanted = f"a{' whole' if kind is int else ''} number {'from 0 on' if zero else 'above 0'}"
    wanted += f" and below {below:,}" if below < math.inf else ""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < below or not (value or zero):
            raise ValueError(wanted)
        return value

    return parse


def _word(*choices: str) -> Parser:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return parse


def _list(parse: Parser) -> Parser:
    return lambda text: tuple(parse(part) for part in text.split(",") if part)


def _or_none(parse: Parser) -> Parser:
    return lambda text: None if text == "none" else parse(text)


def _truth(text: str) -> bool:
    return bool(_word("true", "false")(text) == "true")


_POSITIVE, _FROM_0, _PART = _number(float), _number(float, zero=True), _number(float, below=1)
_FROM_0_BELOW_1 = _number(float, zero=True, below=1)
_FROM_0_TO_1 = _number(float, zero=True, below=math.nextafter(1, 2))
_FEW = _number(int, below=100)
_PARSERS: dict[type, Parser] = {bool: _truth, int: _number(int, below=1_000_000), float: _POSITIVE}


def _paper(value: Any, source: str, what: str, parse: Parser | None = None) -> Any:
    """Declare a constant: the paper's value, where it says so, what it is, how to read another."""
    metadata = {"source": source, "what": what, "parse": parse or _PARSERS[type(value)]}
    return field(default=value, metadata=metadata)


@dataclass(frozen=True)
class Conv:
    """A convolution and, in order, what follows it.

    With stride 1 its output is as large as its input. With a larger stride it gives
    1 + ceil((input − kernel) / stride), the missing edge read as zeros: 55 from 224 and from 227
    (released, layer.py). With two towers each half of the kernels sees its own half of the
    channels. `stddev` is of the initial weights, N(0, stddev²); None stands for Glorot uniform.
    """

    filters: int = _paper(0, "§3.5", "kernels")
    kernel: int = _paper(0, "§3.5", "kernel size")
    stride: int = _paper(1, "§3.5", "stride")
    towers: int = _paper(1, "§3.5, Figure 2", "towers", _FEW)
    bias: float = _paper(0.0, "§5", "initial biases", _FROM_0)
    stddev: float | None = _paper(0.01, "§5", "σ of initial weights", _or_none(_POSITIVE))
    then: tuple[str, ...] = _paper(
        ("relu",),
        "§3.3, §3.5",
        "followed by",
        _list(_word("relu", "tanh", "lrn", "batch_norm", "pool")),
    )


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with its activation and dropout."""

    units: int = _paper(4096, "§3.5", "units")
    activation: str = _paper("relu", "§3.1", "activation", _word("relu", "tanh"))
    bias: float = _paper(1.0, "§5", "initial biases", _FROM_0)
    stddev: float | None = _paper(0.01, "§5", "σ of initial weights", _or_none(_POSITIVE))
    dropout: float = _paper(0.5, "§4.2", "dropout", _FROM_0_BELOW_1)


@dataclass(frozen=True)
class Recipe:
    """A network and its training; the defaults are the paper's, to the letter."""

    name: str
    summary: str
    because: dict[str, str] = field(default_factory=dict, hash=False)  # constant → source and why

    # Images. Pixels are 0–255; the network sees (pixel − mean) × scale.
    stored_size: int = _paper(
        256, "§2", "shorter side of an image, pixels", _number(int, below=4097)
    )
    squash: bool = _paper(False, "§2", "whole image pressed into the square, not its centre cut")
    crop_size: int = _paper(224, "§2, §4.1", "crop, pixels")
    # `centre`: the centre of the mean image, wherever the crop lies
    subtract: str = _paper(
        "image", "§2", "mean subtracted", _word("image", "centre", "channel", "none")
    )
    scale: float = _paper(1.0, "§2", "pixels multiplied by")
    # a window of at least this share of the image's area, its sides as 3:4 to 4:3, resized to the
    # crop; None cuts windows of the crop's size
    crop_area: float | None = _paper(None, "§4.1", "scaled crops", _or_none(_PART))
    flip: bool = _paper(True, "§4.1", "horizontal reflections")
    jitter: float = _paper(
        0.0, "§4.1", "brightness, contrast and saturation vary by this share", _FROM_0_BELOW_1
    )
    # a window of the image is another's, and so is that share of its target
    cutmix: float = _paper(0.0, "§4.1", "share of images that are mixed of two", _FROM_0_TO_1)
    shared_crop: int = _paper(1, "§4.1", "images in a row that share crop and reflection")
    # α ~ N(0, 0.1), drawn once per image and use. It multiplies the standard deviation along each
    # principal component of RGB, as in the released code: the eigenvalue that the paper names
    # reaches 13,000 on 0–255 pixels, and would drown every picture.
    colour_noise: float = _paper(0.1, "§4.1", "colour noise, σ of α, which multiplies √λ", _FROM_0)
    noise_divisor: float = _paper(1.0, "§4.1", "image divided by, after colour noise")
    noise_until: float = _paper(1.0, "§4.1", "colour noise until this part of the run", _FROM_0)

    # Network
    convs: tuple[Conv, ...] = (
        Conv(96, 11, stride=4, bias=0.0, then=("relu", "lrn", "pool")),
        Conv(256, 5, towers=2, bias=1.0, then=("relu", "lrn", "pool")),
        Conv(384, 3, bias=0.0),
        Conv(384, 3, towers=2, bias=1.0),
        Conv(256, 3, towers=2, bias=1.0, then=("relu", "pool")),
    )
    dense: tuple[Dense, ...] = (Dense(), Dense())
    output_stddev: float | None = _paper(
        0.01, "§5", "σ of the last layer's initial weights", _or_none(_POSITIVE)
    )
    lrn_k: float = _paper(2.0, "§3.3", "LRN k")
    lrn_n: int = _paper(5, "§3.3", "LRN n", _FEW)
    lrn_alpha: float = _paper(1e-4, "§3.3", "LRN α, times the sum of squares", _FROM_0)
    lrn_beta: float = _paper(0.75, "§3.3", "LRN β", _FROM_0)
    pool_size: int = _paper(3, "§3.4", "pooling z")
    pool_stride: int = _paper(2, "§3.4", "pooling s")

    # Training
    batch_size: int = _paper(128, "§5", "batch size, over all devices")
    epochs: int = _paper(90, "§5", "epochs")
    learning_rate: float = _paper(0.01, "§5", "learning rate at the start")
    momentum: float = _paper(0.9, "§5", "momentum", _FROM_0)
    # inside the momentum; on weights, never on biases
    weight_decay: float = _paper(0.0005, "§5", "weight decay", _FROM_0)
    balance: bool = _paper(False, "§5", "classes count alike, whatever their numbers of images")
    label_smoothing: float = _paper(0.0, "§5", "label smoothing", _FROM_0_BELOW_1)
    bias_rate: float = _paper(1.0, "§5", "learning rate of biases, times that of weights")
    warmup: float = _paper(0.0, "§5", "rate rises from 0 in this part of the run", _FROM_0_BELOW_1)
    cosine: bool = _paper(False, "§5", "rate falls to 0 along half a cosine")
    rate_drop: float = _paper(10.0, "§5", "learning rate divided by, at a drop")
    rate_drops: int = _paper(
        3, "§5", "drops at most, if validation decides", _number(int, zero=True)
    )
    # The authors judged by eye; their logs drop it after 22 to 30 epochs at one rate.
    patience: int = _paper(12, "ours", "epochs without a lower validation error before a drop")
    # () leaves it to the validation error
    drop_at: tuple[float, ...] = _paper((), "§5", "drops at these parts of the run", _list(_PART))
    slow_from: float = _paper(
        1.0, "§5", "conv1 and conv2 at a tenth from this part of the run", _FROM_0
    )
    freeze_from: float = _paper(
        1.0, "§5", "conv1 and conv2 frozen from this part of the run", _FROM_0
    )

    def reached(self, part: float, epoch: int) -> bool:
        """Say whether `epoch` (from 1) lies beyond `part` (0 to 1) of the run; 1.0 is never."""
        return epoch - 1 >= round(part * self.epochs)

    def layers(self) -> dict[str, Conv | Dense]:
        """Name the layers but the last: conv1, conv2, …, and from fc6 on, as the field does."""
        named: dict[str, Conv | Dense] = {f"conv{n}": c for n, c in enumerate(self.convs, start=1)}
        return named | {f"fc{n}": layer for n, layer in enumerate(self.dense, start=6)}

    @property
    def last_layer(self) -> str:
        """Name the layer whose units are the classes: fc8."""
        return f"fc{6 + len(self.dense)}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes an equal recipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """Rebuild a recipe; raises `AlexNetError` that names a constant which can't be as it is."""
        try:
            recipe: Recipe = strict.as_type(cls, data)
            recipe.require_sound()
        except ValueError as error:
            raise AlexNetError(f"the recipe can't be read: {error}") from None
        return recipe

    def require_sound(self) -> None:
        """Raise `ValueError` unless every constant is one that `--set` would take."""
        for owner, prefix in ((self, ""), *((v, f"{k}.") for k, v in self.layers().items())):
            for constant in (f for f in fields(owner) if f.metadata):
                value = getattr(owner, constant.name)
                try:
                    constant.metadata["parse"](as_typed(value))
                except ValueError as error:
                    raise ValueError(f"{prefix}{constant.name} must be {error}") from None
        if self.crop_size > self.stored_size:
            sizes = f"crop_size {self.crop_size}, stored_size {self.stored_size}"
            raise ValueError(f"{sizes}: a crop can't be larger than what it is cut from")
        if not re.fullmatch(r"[\w.+-]{1,200}", self.name):  # part of a folder's name
            raise ValueError("its name can't be part of a folder's")


def as_typed(value: Any) -> str:
    """Write a constant as one types it after `--set NAME=`."""
    if isinstance(value, tuple):
        return ",".join(map(as_typed, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def each(layers: Iterable[Any], **values: Any) -> tuple[Any, ...]:
    """Replace `values` in every one of `layers`."""
    return tuple(replace(layer, **values) for layer in layers)


def hidden_biases(recipe: Recipe, bias: float) -> dict[str, Any]:
    """Set the biases that the paper starts at 1: those of conv2, conv4, conv5 and dense layers."""
    convs = tuple(replace(c, bias=bias if c.bias else 0.0) for c in recipe.convs)
    return {"convs": convs, "dense": each(recipe.dense, bias=bias)}


# With biases of 1 every unit of fc7 starts at about 1 for every image: fc8's input has a common
# part of squared length 7,600, and the loss curves along it by that times twice p(1 − p), p the
# share of a class. Momentum is stable below a rate of 3.8 over the curvature: 0.0016 with 5
# classes, 0.25 with ImageNet's 1000. At 0.01 the loss jumps to 38 within four steps, and by the
# tenth no unit of fc7 is alive. With 0.1 in the dense layers alone the squared length is 840, the
# rate at the edge of what is stable, and two thirds of conv5 die; with 0.1 everywhere it is 90.
LITERAL = Recipe("literal", "the 2012 paper to the letter: learns with many classes, not with few")
PAPER = Recipe(
    name="paper",
    summary="the 2012 paper; hidden biases start at 0.1 in place of 1",
    **hidden_biases(LITERAL, 0.1),
    because={"bias": "Caffe: with 1 the loss stays flat; here too, if classes are few"},
)

_conv1, _conv2, *_conv3to5 = LITERAL.convs
_LOG = "released, log in layer-params-145.cfg"
RELEASED = Recipe(
    name="released-2012",
    summary="what the program that won in 2012 does where the paper says otherwise",
    subtract="centre",
    shared_crop=32,
    noise_divisor=1.1,
    noise_until=66 / 91,
    convs=(
        replace(_conv1, then=("lrn", "pool", "relu")),
        replace(_conv2, then=("relu", "lrn", "lrn", "pool")),
        *each(_conv3to5[:2], stddev=0.03),
        replace(_conv3to5[2], stddev=0.03, then=("pool", "relu")),
    ),
    lrn_alpha=1e-4 / 5,
    epochs=91,
    bias_rate=2.0,
    drop_at=(25 / 91, 51 / 91, 79 / 91),
    slow_from=66 / 91,
    freeze_from=75 / 91,
    because={
        "subtract": "released, convdata_jpeg.py: one crop of the mean serves all",
        "shared_crop": "released, convdata_jpeg.py: one draw for each chunk of 32",
        "noise_divisor": "released, convdata_jpeg.py: keeps the scale of pixels, 1 + 0.1",
        "noise_until": f"{_LOG}: switched off at about epoch 66 of 91",
        "conv1.then": "released, layers-145.cfg: no ReLU before LRN, one after pooling",
        "conv2.then": "released, layers-145.cfg: normalized twice",
        "conv5.then": "released, layers-145.cfg: max and ReLU commute",
        "stddev": "released, layers-145.cfg: initW=0.03 in conv3 to conv5",
        "lrn_alpha": "released, layer.py: the scale 1e-4 is divided by the size, 5",
        "epochs": f"{_LOG}: killed at epoch 91",
        "bias_rate": "released, layer-params-145.cfg: epsB=0.02 beside epsW=0.01",
        "drop_at": f"{_LOG}: ÷10 at epochs 25, 51 and 79 of 91",
        "slow_from": f"{_LOG}: slowed at about epoch 66 of 91; a tenth is ours",
        "freeze_from": f"{_LOG}: frozen at about epoch 75 of 91",
    },
)

CAFFE = Recipe(
    name="caffe",
    summary="Caffe's bvlc_alexnet, the best-known replication",
    crop_size=227,
    colour_noise=0.0,
    convs=hidden_biases(LITERAL, 0.1)["convs"],
    dense=each(LITERAL.dense, bias=0.1, stddev=0.005),
    lrn_k=1.0,
    lrn_alpha=1e-4 / 5,
    batch_size=256,
    bias_rate=2.0,
    drop_at=(1 / 4.5, 2 / 4.5, 3 / 4.5, 4 / 4.5),
    because={
        "crop_size": "Caffe, train_val.prototxt: floor arithmetic gives 55 from 227",
        "colour_noise": "Caffe, readme.md: no relighting",
        "bias": "Caffe, readme.md: initialization to 1 gave flat loss",
        "stddev": "Caffe, train_val.prototxt: 0.005 in fc6 and fc7",
        "lrn_k": "Caffe, LRN layer: k is 1 unless said otherwise",
        "lrn_alpha": "Caffe, LRN layer: 1e-4 is divided by the size, 5",
        "batch_size": "Caffe, train_val.prototxt",
        "bias_rate": "Caffe, train_val.prototxt: lr_mult of 2",
        "drop_at": "Caffe, solver.prototxt: every 100,000 of 450,000 iterations",
    },
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
    dense=each(LITERAL.dense, bias=0.0, stddev=None),
    output_stddev=None,
    batch_size=32,
    epochs=50,
    learning_rate=0.001,
    momentum=0.0,
    weight_decay=0.0,
    rate_drops=0,
    because={
        "stored_size": "Notebook: no crops, so none larger than the input",
        "squash": "Notebook: resized to 227×227, whatever its shape",
        "crop_size": "Notebook: the whole image",
        "subtract": "Notebook: no mean",
        "scale": "Notebook: rescale=1/255",
        "flip": "Notebook: no augmentation",
        "colour_noise": "Notebook: no augmentation",
        "then": "Notebook: batch normalization, as many after 2015",
        "towers": "Notebook: full convolutions",
        "bias": "Notebook: Keras' defaults",
        "stddev": "Notebook: Keras' defaults (Glorot uniform)",
        "output_stddev": "Notebook: Keras' defaults (Glorot uniform)",
        "batch_size": "Notebook",
        "epochs": "Notebook",
        "learning_rate": "Notebook: SGD(0.001)",
        "momentum": "Notebook: plain SGD",
        "weight_decay": "Notebook: plain SGD",
        "rate_drops": "Notebook: a fixed rate",
    },
)

# The paper's network, to the weight. What was tried, and what it brought, is in benchmarks/LOG.md.
MODERN = replace(
    PAPER,
    name="modern",
    summary="the paper's network, trained with what has been learnt since, for few photographs",
    squash=True,
    subtract="channel",
    crop_area=0.35,
    batch_size=32,
    learning_rate=0.005,
    label_smoothing=0.1,
    warmup=0.05,
    cosine=True,
    rate_drops=0,
    because={
        **PAPER.because,
        "squash": "Measured: the whole photograph is seen, not its centre",
        "subtract": "Simonyan and Zisserman 2014: the mean of each channel; crops lie at no one place",
        "crop_area": "Szegedy et al. 2014: objects of many sizes and shapes",
        "batch_size": "Measured: of few photographs an epoch then has four times the steps",
        "learning_rate": "Measured, for batches of 32",
        "label_smoothing": "Szegedy et al. 2015, section 7",
        "warmup": "Goyal et al. 2017: a start at the full rate kills units",
        "cosine": "Loshchilov and Hutter 2016: no epoch to guess at which the rate should drop",
        "rate_drops": "Loshchilov and Hutter 2016",
    },
)

RECIPES = {recipe.name: recipe for recipe in (PAPER, MODERN, LITERAL, RELEASED, CAFFE, NOTEBOOK)}


def choose(kind: str, name: str, choices: dict[str, Any]) -> Any:
    """Return the choice of that name; raises `UsageError` that lists the names there are."""
    if name not in choices:
        raise UsageError(f"no {kind} named {name!r}: choose from {', '.join(choices)}")
    return choices[name]


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name; raises `UsageError` that lists the names there are."""
    recipe: Recipe = choose("recipe", name, RECIPES)
    return recipe


def constants(recipe: Recipe) -> dict[str, Any]:
    """Flatten to `conv2.bias`, `fc6.dropout`, `lrn_k`, …: every constant by its name."""
    flat = {
        f"{name}.{f.name}": getattr(layer, f.name)
        for name, layer in recipe.layers().items()
        for f in fields(layer)
    }
    return flat | {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.metadata}


def differences(one: Recipe, two: Recipe) -> list[str]:
    """Name the constants in which two recipes differ."""
    a, b = constants(one), constants(two)
    missing = object()
    return [key for key in a | b if a.get(key, missing) != b.get(key, missing)]
