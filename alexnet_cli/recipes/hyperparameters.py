"""What a recipe is: every constant of a network and of its training, with its source.

The defaults of the classes below are the paper's values, each with the section that states it.

"§" is a section of Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep
Convolutional Neural Networks", NIPS 2012. "Released" is the authors' program, released by the
Computer History Museum in 2025.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from alexnet_cli.errors import AlexNetError
from alexnet_cli.system import strict_json

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


def _paper(
    value: Any, source: str, what: str, parse: Parser | None = None, *, late: bool = False
) -> Any:
    """Declare a constant: the paper's value, where it says so, what it is, how to read another.

    Runs from before a `late` one came have the paper's value.
    """
    metadata = {"source": source, "what": what, "parse": parse or _PARSERS[type(value)]}
    return field(default=value, metadata={**metadata, "late": late})


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
    post_ops: tuple[str, ...] = _paper(
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
    rationale: dict[str, str] = field(default_factory=dict, hash=False)  # constant → source and why

    # Images. Pixels are 0–255; the network sees (pixel − mean) × scale.
    resize_size: int = _paper(
        256, "§2", "shorter side of an image, pixels", _number(int, below=4097)
    )
    stretch: bool = _paper(False, "§2", "whole image pressed into the square, not its center cut")
    crop_size: int = _paper(224, "§2, §4.1", "crop, pixels")
    # `center`: the center of the mean image, wherever the crop lies
    mean: str = _paper(
        "image", "§2", "mean subtracted", _word("image", "center", "channel", "none")
    )
    scale: float = _paper(1.0, "§2", "pixels multiplied by")
    # a window of at least this share of the image's area, its sides as 3:4 to 4:3, resized to the
    # crop; None cuts windows of the crop's size
    crop_area: float | None = _paper(None, "§4.1", "scaled crops", _or_none(_PART))
    flip: bool = _paper(True, "§4.1", "horizontal reflections")
    jitter: float = _paper(
        0.0, "§4.1", "brightness, contrast and saturation vary by this share", _FROM_0_BELOW_1
    )
    rotation: float = _paper(
        0.0,
        "§4.1",
        "turned by up to so many degrees",
        _number(float, zero=True, below=181),
        late=True,
    )
    # a window of the image is another's, and so is that share of its target
    cutmix: float = _paper(0.0, "§4.1", "share of images that are mixed of two", _FROM_0_TO_1)
    shared_crop: int = _paper(1, "§4.1", "images in a row that share crop and reflection")
    # α ~ N(0, 0.1), drawn once per image and use. It multiplies the standard deviation along each
    # principal component of RGB, as in the released code: the eigenvalue that the paper names
    # reaches 13,000 on 0–255 pixels, and would drown every picture.
    color_noise: float = _paper(0.1, "§4.1", "color noise, σ of α, which multiplies √λ", _FROM_0)
    noise_divisor: float = _paper(1.0, "§4.1", "image divided by, after color noise")
    noise_until: float = _paper(1.0, "§4.1", "color noise until this part of the run", _FROM_0)

    # Network
    convs: tuple[Conv, ...] = (
        Conv(96, 11, stride=4, bias=0.0, post_ops=("relu", "lrn", "pool")),
        Conv(256, 5, towers=2, bias=1.0, post_ops=("relu", "lrn", "pool")),
        Conv(384, 3, bias=0.0),
        Conv(384, 3, towers=2, bias=1.0),
        Conv(256, 3, towers=2, bias=1.0, post_ops=("relu", "pool")),
    )
    dense: tuple[Dense, ...] = (Dense(), Dense())
    # Krähenbühl et al. 2016; they vary as much as noise of that σ would
    kmeans_init: bool = _paper(
        False, "§5", "kernels start as centroids of patches, not as noise", late=True
    )
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
        """Say whether `epoch` (from 1) lies beyond `part` (0 to 1) of the run; 1.0 is never.

        Only what is reached from the start on, 0.0, is so in the first epoch, however few there are.
        """
        return epoch - 1 >= (max(round(part * self.epochs), 1) if part else 0)

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
            recipe: Recipe = strict_json.as_type(cls, data)
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
                    constant.metadata["parse"](format_value(value))
                except ValueError as error:
                    raise ValueError(f"{prefix}{constant.name} must be {error}") from None
        for name, layer in self.layers().items():
            if isinstance(layer, Conv) and layer.stride > 1 and layer.towers > 1:
                raise ValueError(f"{name}.stride must be 1 where {name}.towers is more than 1")
        if self.crop_size > self.resize_size:
            sizes = f"crop_size {self.crop_size}, resize_size {self.resize_size}"
            raise ValueError(f"{sizes}: a crop can't be larger than what it is cut from")
        if not re.fullmatch(r"[\w.+-]{1,200}", self.name):  # part of a folder's name
            raise ValueError("its name can't be part of a folder's")


def format_value(value: Any) -> str:
    """Write a constant as one types it after `--set NAME=`."""
    if isinstance(value, tuple):
        return ",".join(map(format_value, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def hyperparameter_values(recipe: Recipe) -> dict[str, Any]:
    """Flatten to `conv2.bias`, `fc6.dropout`, `lrn_k`, …: every constant by its name."""
    flat = {
        f"{name}.{f.name}": getattr(layer, f.name)
        for name, layer in recipe.layers().items()
        for f in fields(layer)
    }
    return flat | {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.metadata}


def differing_hyperparameters(one: Recipe, two: Recipe) -> list[str]:
    """Name the constants in which two recipes differ."""
    a, b = hyperparameter_values(one), hyperparameter_values(two)
    missing = object()
    return [key for key in a | b if a.get(key, missing) != b.get(key, missing)]
