"""A recipe: every hyperparameter of a network and of its training, with its source.

The defaults of the classes below are the paper's values, each with the section that states it; what
the paper does not have is off. The types hold the bounds. `--set` and the reading of runs validate
against these declarations.

"§" is a section of Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep
Convolutional Neural Networks", NIPS 2012. "Released" is the authors' program, released by the
Computer History Museum in 2025.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(1), Lt(1_000_000)]
SmallCount = Annotated[int, Ge(1), Lt(100)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
ShareBelow1 = Annotated[float, Ge(0), Lt(1)]  # a share of 1 would leave nothing
OpenShare = Annotated[float, Gt(0), Lt(1)]

NOT_IN_PAPER = "not in the paper"

PostOp = Literal["relu", "tanh", "lrn", "batch_norm", "pool"]


def _paper(value: Any, source: str, what: str) -> Any:
    """Declare a hyperparameter: the paper's value, where the paper states it, a description.

    `source` is a section of the paper, `NOT_IN_PAPER`, or "ours" where the paper states no number.
    """
    return field(default=value, metadata={"source": source, "what": what})


@dataclass(frozen=True)
class Conv:
    """A convolution and the operations that follow it, in order.

    With stride 1 the output is as large as the input. With a larger stride its side is
    1 + ceil((input − kernel) / stride), the missing edge read as zeros: 55 from 224 and from 227
    (released, layer.py). With two towers each half of the kernels sees its own half of the
    channels. `stddev` is of the initial weights, N(0, stddev²); None stands for Glorot uniform.
    """

    filters: Count = _paper(MISSING, "§3.5", "number of kernels")
    kernel: Count = _paper(MISSING, "§3.5", "kernel size")
    stride: Count = _paper(1, "§3.5", "stride")
    towers: SmallCount = _paper(1, "§3.5, Figure 2", "number of towers")
    bias: NotNegative = _paper(0.0, "§5", "initial biases")
    stddev: Positive | None = _paper(0.01, "§5", "σ of the initial weights")
    post_ops: tuple[PostOp, ...] = _paper(("relu",), "§3.3, §3.5", "operations that follow")


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with its activation and dropout."""

    units: Count = _paper(4096, "§3.5", "number of units")
    activation: Literal["relu", "tanh"] = _paper("relu", "§3.1", "activation")
    bias: NotNegative = _paper(1.0, "§5", "initial biases")
    stddev: Positive | None = _paper(0.01, "§5", "σ of the initial weights")
    dropout: ShareBelow1 = _paper(0.5, "§4.2", "dropout rate")


@dataclass(frozen=True)
class Recipe:
    """A network and its training; the defaults are exactly the paper's."""

    name: str
    summary: str
    # hyperparameter → source of its value and the reason for it
    rationale: dict[str, str] = field(default_factory=dict, hash=False)

    # Images. Pixels are 0–255; the input of the network is (pixel − mean) × scale.
    resize_size: Annotated[int, Ge(1), Le(4096)] = _paper(
        256, "§2", "shorter side of the resized image, pixels"
    )
    stretch: bool = _paper(False, "§2", "stretch the whole image to a square, no center crop")
    crop_size: Count = _paper(224, "§2, §4.1", "side of the crop, pixels")
    # `center`: the center of the mean image, wherever the crop lies
    mean: Literal["image", "center", "channel", "none"] = _paper("image", "§2", "mean subtracted")
    scale: Positive = _paper(1.0, "§2", "factor of the pixels")
    # A window of at least this share of the image's area, its aspect ratio from 3:4 to 4:3, resized
    # to the crop; None cuts windows of the crop's size.
    crop_area: OpenShare | None = _paper(
        None, NOT_IN_PAPER, "smallest area of a random resized crop"
    )
    flip: bool = _paper(True, "§4.1", "random horizontal reflections")
    jitter: ShareBelow1 = _paper(
        0.0, NOT_IN_PAPER, "largest random change of brightness, contrast and saturation"
    )
    trivial_augment: bool = _paper(
        False, NOT_IN_PAPER, "one random operation of TrivialAugment on each image"
    )
    rotation: Annotated[float, Ge(0), Le(180)] = _paper(
        0.0, NOT_IN_PAPER, "largest random rotation, degrees"
    )
    # A window of such an image is replaced by another image's, and its target likewise in part.
    cutmix: Share = _paper(0.0, NOT_IN_PAPER, "share of images mixed by CutMix")
    shared_crop: Count = _paper(
        1, NOT_IN_PAPER, "consecutive images that share crop and reflection"
    )
    # α ~ N(0, 0.1), drawn once per image and use. It multiplies the standard deviation along each
    # principal component of RGB, as in the released code: the eigenvalue that the paper names
    # reaches 13,000 on 0–255 pixels, and such noise would hide every image.
    color_noise: NotNegative = _paper(0.1, "§4.1", "color noise, σ of α, which multiplies √λ")
    noise_divisor: Positive = _paper(1.0, NOT_IN_PAPER, "divisor of the image after color noise")
    noise_until: NotNegative = _paper(
        1.0, NOT_IN_PAPER, "share of training at which color noise ends"
    )

    # Network
    convs: tuple[Conv, ...] = (
        Conv(96, 11, stride=4, bias=0.0, post_ops=("relu", "lrn", "pool")),
        Conv(256, 5, towers=2, bias=1.0, post_ops=("relu", "lrn", "pool")),
        Conv(384, 3, bias=0.0),
        Conv(384, 3, towers=2, bias=1.0),
        Conv(256, 3, towers=2, bias=1.0, post_ops=("relu", "pool")),
    )
    dense: tuple[Dense, ...] = (Dense(), Dense())
    # Krähenbühl et al. 2016; the kernels are scaled to the variance that noise of σ would have.
    kmeans_init: bool = _paper(
        False, NOT_IN_PAPER, "kernels start as k-means centroids of image patches, not as noise"
    )
    output_stddev: Positive | None = _paper(0.01, "§5", "σ of the last layer's initial weights")
    lrn_k: Positive = _paper(2.0, "§3.3", "LRN k")
    lrn_n: SmallCount = _paper(5, "§3.3", "LRN n, the number of adjacent channels")
    lrn_alpha: NotNegative = _paper(1e-4, "§3.3", "LRN α, which multiplies the sum of squares")
    lrn_beta: NotNegative = _paper(0.75, "§3.3", "LRN β")
    pool_size: Count = _paper(3, "§3.4", "pooling window z")
    pool_stride: Count = _paper(2, "§3.4", "pooling stride s")

    # Training
    batch_size: Count = _paper(128, "§5", "batch size, over all devices")
    epochs: Count = _paper(90, "§5", "epochs")
    learning_rate: Positive = _paper(0.01, "§5", "peak learning rate")
    momentum: NotNegative = _paper(0.9, "§5", "momentum")
    # added to the gradient before momentum; of weights, never of biases
    weight_decay: NotNegative = _paper(0.0005, "§5", "weight decay")
    balance: bool = _paper(
        False, NOT_IN_PAPER, "equal weight for each class, however many images it has"
    )
    label_smoothing: ShareBelow1 = _paper(0.0, NOT_IN_PAPER, "label smoothing")
    # after the last epoch; of the finished network, so that it changes nothing that is trained
    temperature_scaling: bool = _paper(
        False, NOT_IN_PAPER, "divide the logits by a temperature fitted on validation images"
    )
    bias_rate: Positive = _paper(1.0, "§5", "learning rate of biases, relative to that of weights")
    warmup: ShareBelow1 = _paper(0.0, NOT_IN_PAPER, "share of training with a rising learning rate")
    cosine: bool = _paper(False, NOT_IN_PAPER, "cosine decay of the learning rate to 0")
    rate_drop: Positive = _paper(10.0, "§5", "divisor of the learning rate at a drop")
    rate_drops: Annotated[int, Ge(0), Lt(1_000_000)] = _paper(
        3, "§5", "most drops that the validation error may cause"
    )
    # The authors judged by eye; their logs drop it after 22 to 30 epochs at one rate.
    patience: Count = _paper(12, "ours", "epochs without a lower validation error before a drop")
    # with () the validation error decides
    drop_at: tuple[OpenShare, ...] = _paper((), "§5", "shares of training at which the rate drops")
    slow_from: NotNegative = _paper(
        1.0, NOT_IN_PAPER, "share of training at which conv1 and conv2 slow to a tenth"
    )
    freeze_from: NotNegative = _paper(
        1.0, NOT_IN_PAPER, "share of training at which conv1 and conv2 freeze"
    )

    def reached(self, share: float, epoch: int) -> bool:
        """Return whether `epoch` (from 1) lies beyond `share` (0 to 1) of training; 1.0 is never.

        In the first epoch only a share of 0.0 is reached, however few epochs there are.
        """
        return epoch - 1 >= (max(round(share * self.epochs), 1) if share else 0)

    def layers(self) -> dict[str, Conv | Dense]:
        """Return all layers but the last by their customary names: conv1, conv2, …, fc6, fc7."""
        named: dict[str, Conv | Dense] = {f"conv{n}": c for n, c in enumerate(self.convs, start=1)}
        return named | {f"fc{n}": layer for n, layer in enumerate(self.dense, start=6)}

    @property
    def last_layer(self) -> str:
        """Return the name of the layer whose units are the classes: fc8."""
        return f"fc{6 + len(self.dense)}"


def format_value(value: Any) -> str:
    """Return a hyperparameter's value as it is typed after `--set NAME=`."""
    if isinstance(value, tuple):
        return ",".join(map(format_value, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def hyperparameter_values(recipe: Recipe) -> dict[str, Any]:
    """Return the value of every hyperparameter by its name: `conv2.bias`, `fc6.dropout`, `lrn_k`."""
    flat = {
        f"{name}.{f.name}": getattr(layer, f.name)
        for name, layer in recipe.layers().items()
        for f in fields(layer)
    }
    return flat | {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.metadata}


def differing_hyperparameters(one: Recipe, two: Recipe) -> list[str]:
    """Return the names of the hyperparameters in which two recipes differ."""
    a, b = hyperparameter_values(one), hyperparameter_values(two)
    missing = object()
    return [key for key in a | b if a.get(key, missing) != b.get(key, missing)]
