"""A trained network in NumPy, which is faster for a few images than importing TensorFlow.

Every array is float32 of shape (batch, height, width, channels).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import accumulate

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
            last = ("dense", self.recipe.last_layer)
            return [_softmax(self._apply(self._hidden(crops), last)) for crops in batch]

    def features(self, batch: Sequence[Float32Array]) -> list[Float32Array]:
        """Return for each image the outputs of the last hidden layer, fc7: (crops, units)."""
        with np.errstate(all="ignore"):
            return [self._hidden(crops) for crops in batch]

    def weight(self, name: str) -> Float32Array:
        """Return the weights called `name`, such as `conv1/kernel`."""
        return self.weights[name]

    def gradients(
        self, batch: Sequence[Float32Array], classes: Sequence[int]
    ) -> list[Float32Array]:
        """Return for each image the gradient of the log-odds of its class, shaped like its crops."""
        with np.errstate(all="ignore"):
            return [self._gradients(crops, chosen) for crops, chosen in zip(batch, classes)]

    def _gradients(self, crops: Float32Array, chosen: int) -> Float32Array:
        operations = [*_operations(self.recipe), ("dense", self.recipe.last_layer)]
        values = [*accumulate(operations, self._apply, initial=crops)]
        others = values[-1].copy()
        others[:, chosen] = -np.inf
        gradient = -_softmax(others)
        gradient[:, chosen] = 1
        for operation, x, y in reversed([*zip(operations, values, values[1:])]):
            gradient = self._gradient(gradient, x, y, *operation)
        return gradient

    def _hidden(self, x: Float32Array) -> Float32Array:
        """Return the outputs of the last hidden layer."""
        return reduce(self._apply, _operations(self.recipe), x)

    def _apply(self, x: Float32Array, operation: tuple[str, str]) -> Float32Array:
        """Return the output of an operation: its kind, and the name of its layer."""
        recipe, (kind, name) = self.recipe, operation
        if kind == "conv":
            parts = [
                convolve(part, kernel, stride) + self.weights[f"{tower}/bias"]
                for part, tower, kernel, stride in self._towers(x, name)
            ]
            return np.concatenate(parts, axis=-1)
        if kind == "dense":
            product: Float32Array = x.reshape(len(x), -1) @ self.weights[f"{name}/kernel"]
            return product + self.weights[f"{name}/bias"]
        if kind == "relu":
            return np.maximum(x, 0)
        if kind == "tanh":
            return np.tanh(x)
        if kind == "pool":
            return pool(x, recipe.pool_size, recipe.pool_stride)
        if kind == "lrn":
            return normalize(x, recipe.lrn_k, recipe.lrn_n, recipe.lrn_alpha, recipe.lrn_beta)
        mean, beta = (self.weights[f"{name}/{part}"] for part in ("moving_mean", "beta"))
        return (x - mean) * self._norm_scale(name) + beta

    def _gradient(
        self, upstream: Float32Array, x: Float32Array, y: Float32Array, kind: str, name: str
    ) -> Float32Array:
        """Return the gradient with respect to the input `x` of an operation, from that of `y`."""
        recipe = self.recipe
        if kind == "conv":
            parts = [
                convolve_gradient(part, kernel, stride, x.shape[1])
                for part, _, kernel, stride in self._towers(upstream, name)
            ]
            return np.concatenate(parts, axis=-1)
        if kind == "dense":
            product: Float32Array = upstream @ self.weights[f"{name}/kernel"].T
            return product.reshape(x.shape)
        if kind == "relu":
            return upstream * (y > 0)
        if kind == "tanh":
            return upstream * (1 - y * y)
        if kind == "pool":
            return pool_gradient(upstream, x, y, recipe.pool_size, recipe.pool_stride)
        if kind == "lrn":
            constants = recipe.lrn_k, recipe.lrn_n, recipe.lrn_alpha, recipe.lrn_beta
            return normalize_gradient(upstream, x, *constants)
        return upstream * self._norm_scale(name)

    def _towers(
        self, x: Float32Array, name: str
    ) -> Iterator[tuple[Float32Array, str, Float32Array, int]]:
        """Yield for each tower of a convolution its channels of `x`, its name, kernel and stride."""
        conv = self.recipe.layers()[name]
        assert isinstance(conv, Conv)
        towers = tower_names(name, conv)
        for part, tower in zip(np.split(x, len(towers), axis=-1), towers):
            yield part, tower, self.weights[f"{tower}/kernel"], conv.stride

    def _norm_scale(self, name: str) -> Float32Array:
        gamma, variance = (self.weights[f"{name}/{part}"] for part in ("gamma", "moving_variance"))
        scale: Float32Array = gamma / np.sqrt(variance + np.float32(_EPSILON))
        return scale


def _operations(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield kind and layer of each operation up to the last hidden layer, in order."""
    for name, layer in recipe.layers().items():
        if isinstance(layer, Conv):
            yield "conv", name
            for number, post_op in enumerate(layer.post_ops):
                yield post_op, post_op_name(name, layer, number)
        else:
            yield "dense", name
            yield layer.activation, name


def _softmax(logits: Float32Array) -> Float32Array:
    e: Float32Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    total: Float32Array = e.sum(axis=1, keepdims=True)
    return e / total


def convolve(x: Float32Array, kernel: Float32Array, stride: int) -> Float32Array:
    """Return `x` convolved with `kernel` (size, size, channels, filters), padded as in `Conv`."""
    size = kernel.shape[0]
    n_out, before, after = _padding(x.shape[1], size, stride)
    x = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    image, row, column, number = x.strides
    # Each window is `size` rows of `size` pixels, so one matrix product computes all windows.
    shape = (len(x), n_out, n_out, size, size * x.shape[3])
    windows = as_strided(x, shape, (image, row * stride, column * stride, row, number))
    product: Float32Array = windows.reshape(len(x) * n_out**2, -1) @ kernel.reshape(
        -1, kernel.shape[3]
    )
    return product.reshape(len(x), n_out, n_out, -1)


def convolve_gradient(
    upstream: Float32Array, kernel: Float32Array, stride: int, side: int
) -> Float32Array:
    """Return the gradient with respect to the input of `convolve`, (batch, side, side, channels)."""
    size, _, channels, filters = kernel.shape
    n_out, before, after = _padding(side, size, stride)
    windows = upstream @ kernel.reshape(-1, filters).T
    padded = np.zeros((len(upstream), *[before + side + after] * 2, channels), np.float32)
    for place, window in zip(_places(size, n_out, stride), np.split(windows, size**2, axis=-1)):
        padded[place] += window
    return padded[:, before : before + side, before : before + side]


def _padding(side: int, size: int, stride: int) -> tuple[int, int, int]:
    """Return the side of the output of a convolution, and the zeros before and after its input."""
    n_out = side if stride == 1 else 1 - (size - side) // stride
    before = (size - 1) // 2 if stride == 1 else 0
    return n_out, before, max((n_out - 1) * stride + size - side - before, 0)


def _places(size: int, n_out: int, stride: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the inputs at each position within the windows, for all windows at once."""
    extent = (n_out - 1) * stride + 1
    for top, left in np.ndindex(size, size):
        yield np.s_[:, top : top + extent : stride, left : left + extent : stride]


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


def pool_gradient(
    upstream: Float32Array, x: Float32Array, y: Float32Array, size: int, stride: int
) -> Float32Array:
    """Return the gradient with respect to the input `x` of `pool`; of equal maxima the first has it."""
    gradient, free = np.zeros_like(x), np.ones(y.shape, bool)
    for place in _places(size, y.shape[1], stride):
        first = free & (x[place] == y)
        gradient[place] += upstream * first
        free &= ~first
    return gradient


def normalize(x: Float32Array, k: float, n: int, alpha: float, beta: float) -> Float32Array:
    """Return `x` after local response normalization (section 3.3)."""
    scale: Float32Array = np.float32(k) + np.float32(alpha) * _window_sum(x * x, n)
    normalized: Float32Array = x * scale ** np.float32(-beta)
    return normalized


def normalize_gradient(
    upstream: Float32Array, x: Float32Array, k: float, n: int, alpha: float, beta: float
) -> Float32Array:
    """Return the gradient with respect to the input `x` of `normalize`."""
    scale: Float32Array = np.float32(k) + np.float32(alpha) * _window_sum(x * x, n)
    direct: Float32Array = upstream * scale ** np.float32(-beta)
    through_neighbors = x * _window_sum(direct * x / scale, n)
    return direct - np.float32(2 * alpha * beta) * through_neighbors


def _window_sum(x: Float32Array, n: int) -> Float32Array:
    """Return the sum of each channel and (n − 1)/2 channels on both sides."""
    padded = np.pad(x, ((0, 0), (0, 0), (0, 0), (n // 2, n // 2)))
    return reduce(np.add, (padded[..., i : i + x.shape[-1]] for i in range(n)))
