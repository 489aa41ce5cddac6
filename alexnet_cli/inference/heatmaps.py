"""Heat maps: where in an image the evidence for a class lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array, UInt8Array
from alexnet_cli.errors import UsageError
from alexnet_cli.inference.prediction import Source
from alexnet_cli.runs.models import Ensemble, LoadedModel

SPREAD = 1 / 28  # σ of the blur, as a share of the crop: 8 of 224 pixels


@dataclass(frozen=True)
class Heatmap:
    """The evidence for a class in the center crop of an image.

    `pixels`: uint8 (size, size, 3), the crop. `evidence`: float32 (size, size), in nats of log-odds;
    above 0 for the class, below 0 against it.
    """

    pixels: UInt8Array
    evidence: Float32Array


def compute(
    model: LoadedModel, source: Source, label: str | None = None, n_images: int | None = 1
) -> Heatmap:
    """Return the evidence for the class `label`, by default the likeliest, in an image.

    Gradient × input: the gradient of the class's log-odds, log(p / (1 − p)), with respect to a pixel,
    times the pixel minus the mean color, summed over R, G and B. To first order this is by how much
    the log-odds would fall if the pixel were gray. A Gaussian blur follows, which keeps the sum.

    `n_images` is the number of images in all, None if many: they are left to TensorFlow. Raises
    `ImageError` for an image that can't be read, `UsageError` for an unknown class.
    """
    if label is not None and label not in model.classes:
        raise UsageError("the model has no such class", argument="label", value=label)
    (crops,) = Ensemble([model], n_images=0).load(source)
    network, recipe, statistics = model.network(n_images), model.recipe, model.statistics
    if label is None:
        index = int(network.probabilities([crops])[0].argmax())
    else:
        index = model.classes.index(label)
    ((gradient,),) = network.gradients([crops], [index])
    pixels = crops[0] / np.float32(recipe.scale) + Cropper(recipe, statistics).center_mean()
    mean_color = statistics.mean(replace(recipe, mean="channel"))[0, 0]
    with np.errstate(all="ignore"):  # huge weights yield NaN, not warnings
        evidence = (gradient * (pixels - mean_color)).sum(axis=-1) * np.float32(recipe.scale)
        evidence = _blur(evidence, SPREAD * recipe.crop_size)
    return Heatmap(pixels.round().astype(np.uint8), evidence)


def _blur(evidence: Float32Array, sigma: float) -> Float32Array:
    places = np.arange(len(evidence))
    weights = np.exp(-(((places[:, None] - places) / sigma) ** 2) / 2)
    weights /= weights.sum(axis=0)
    return (weights @ evidence @ weights.T).astype(np.float32)
