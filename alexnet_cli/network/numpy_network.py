"""A trained network in NumPy, which is faster for a few images than importing TensorFlow.

Every array is float32 of shape (batch, height, width, channels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.lib.stride_tricks import as_strided

from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.network.weight_shapes import post_op_name, tower_names
from alexnet_cli.recipes.hyperparameters import Conv, Recipe

_EPSILON = 1e-3  # of Keras' batch normalization


class NumPyNetwork:
    """A `Classifier` in NumPy; its weights may be memory-mapped."""

    def __init__(
        self, recipe: Recipe, statistics: Statistics, weights: Mapping[str, Float32Array]
    ) -> None:
        """Take weights by name, `conv2/tower1/kernel`, …, of the shapes that `recipe` requires."""
        self.recipe, self.statistics, self.weights = recipe, statistics, weights

    def probabilities(self, batch: Sequence[Float32Array]) -> list[Float32Array]:
        """Return for each image the softmax outputs of its crops: float32, (crops, classes)."""
        with np.errstate(all="ignore"):  # as Keras does: huge weights yield NaN, not warnings
            return [self._softmax(self._hidden(crops)) for crops in batch]

    def features(self, batch: Sequence[Float32Array]) -> list[Float32Array]:
        """Return for each image the outputs of the last hidden layer, fc7: (crops, units)."""
        with np.errstate(all="ignore"):
            return [self._hidden(crops) for crops in batch]

    def weight(self, name: str) -> Float32Array:
        """Return the weights called `name`, such as `conv1/kernel`."""
        return self.weights[name]

    def _hidden(self, x: Float32Array) -> Float32Array:
        """Return the outputs of the last hidden layer."""
        for name, layer in self.recipe.layers().items():
            if not isinstance(layer, Conv):
                x = self._dense(x.reshape(len(x), -1), name)
                x = np.tanh(x) if layer.activation == "tanh" else np.maximum(x, 0)
                continue
            x = self._convolve(x, name, layer)
            for number, post_op in enumerate(layer.post_ops):
                x = self._post_op(x, post_op, post_op_name(name, layer, number))
        return x

    def _softmax(self, x: Float32Array) -> Float32Array:
        logits = self._dense(x.reshape(len(x), -1), self.recipe.last_layer)
        e: Float32Array = np.exp(logits - logits.max(axis=1, keepdims=True))
        total: Float32Array = e.sum(axis=1, keepdims=True)
        return e / total

    def _dense(self, x: Float32Array, name: str) -> Float32Array:
        product: Float32Array = x @ self.weights[f"{name}/kernel"]
        return product + self.weights[f"{name}/bias"]

    def _convolve(self, x: Float32Array, name: str, conv: Conv) -> Float32Array:
        towers = tower_names(name, conv)
        parts = [
            convolve(part, self.weights[f"{tower}/kernel"], conv.stride)
            + self.weights[f"{tower}/bias"]
            for part, tower in zip(np.split(x, len(towers), axis=-1), towers)
        ]
        return np.concatenate(parts, axis=-1)

    def _post_op(self, x: Float32Array, post_op: str, name: str) -> Float32Array:
        recipe = self.recipe
        if post_op == "relu":
            return np.maximum(x, 0)
        if post_op == "tanh":
            return np.tanh(x)
        if post_op == "pool":
            return pool(x, recipe.pool_size, recipe.pool_stride)
        if post_op == "lrn":
            return normalize(x, recipe.lrn_k, recipe.lrn_n, recipe.lrn_alpha, recipe.lrn_beta)
        gamma, beta, mean, variance = (
            self.weights[f"{name}/{part}"]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale: Float32Array = gamma / np.sqrt(variance + np.float32(_EPSILON))
        return (x - mean) * scale + beta


def convolve(x: Float32Array, kernel: Float32Array, stride: int) -> Float32Array:
    """Return `x` convolved with `kernel` (size, size, channels, filters), padded as in `Conv`."""
    size, side = kernel.shape[0], x.shape[1]
    n_out = side if stride == 1 else 1 - (size - side) // stride
    before = (size - 1) // 2 if stride == 1 else 0
    after = (n_out - 1) * stride + size - side - before
    x = np.pad(x, ((0, 0), (before, max(after, 0)), (before, max(after, 0)), (0, 0)))
    image, row, column, number = x.strides
    # Each window is `size` rows of `size` pixels, so one matrix product computes all windows.
    shape = (len(x), n_out, n_out, size, size * x.shape[3])
    windows = as_strided(x, shape, (image, row * stride, column * stride, row, number))
    product: Float32Array = windows.reshape(len(x) * n_out**2, -1) @ kernel.reshape(
        -1, kernel.shape[3]
    )
    return product.reshape(len(x), n_out, n_out, -1)


def pool(x: Float32Array, size: int, stride: int) -> Float32Array:
    """Return the maximum of each window (section 3.4)."""
    n_out = (x.shape[1] - size) // stride + 1
    extent = (n_out - 1) * stride + 1
    rows: Float32Array = x[:, :extent:stride]
    for top in range(1, size):
        rows = np.maximum(rows, x[:, top : top + extent : stride])
    out: Float32Array = rows[:, :, :extent:stride]
    for left in range(1, size):
        out = np.maximum(out, rows[:, :, left : left + extent : stride])
    return out


def normalize(x: Float32Array, k: float, n: int, alpha: float, beta: float) -> Float32Array:
    """Return `x` after local response normalization (section 3.3)."""
    padded = np.pad(x * x, ((0, 0), (0, 0), (0, 0), (n // 2, n // 2)))
    channels = x.shape[-1]
    total: Float32Array = reduce(np.add, (padded[..., i : i + channels] for i in range(n)))
    scale: Float32Array = np.float32(k) + np.float32(alpha) * total
    normalized: Float32Array = x * scale ** np.float32(-beta)
    return normalized
