"""The interface of a trained network, which the Keras and the NumPy network share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.recipes.hyperparameters import Recipe


class Classifier(Protocol):
    """Crops in, probabilities or features out.

    A batch is a list with an array of crops for each image: float32, (crops, size, size, 3), as
    `data.crops.Cropper` cuts them with `recipe` and `statistics`.
    """

    recipe: Recipe
    statistics: Statistics

    def probabilities(self, batch: Sequence[Float32Array]) -> list[Float32Array]:
        """Return for each image the softmax outputs of its crops: float32, (crops, classes)."""

    def features(self, batch: Sequence[Float32Array]) -> list[Float32Array]:
        """Return for each image the outputs of the last hidden layer, fc7: (crops, units)."""

    def gradients(
        self, batch: Sequence[Float32Array], classes: Sequence[int]
    ) -> list[Float32Array]:
        """Return for each image the gradient of the log-odds of its class, shaped like its crops.

        `classes` has the index of a class for each image; log-odds are log(p / (1 − p)).
        """

    def weight(self, name: str) -> Float32Array:
        """Return the weights called `name`, such as `conv1/kernel`."""


def first_kernels(network: Classifier) -> Float32Array:
    """Return the kernels of conv1 as RGB: float32, (height, width, 3, kernels).

    Kernels of a tower that sees one channel only are 0 in the two others.
    """
    conv, *_ = network.recipe.convs
    if conv.towers == 1:
        return network.weight("conv1/kernel")
    parts = [network.weight(f"conv1/tower{n}/kernel") for n in range(1, conv.towers + 1)]
    width = parts[0].shape[2]
    edges = [(n * width, 3 - (n + 1) * width) for n in range(conv.towers)]
    padded = [np.pad(part, ((0, 0), (0, 0), edge, (0, 0))) for part, edge in zip(parts, edges)]
    return np.concatenate(padded, axis=3)
