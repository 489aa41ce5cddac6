"""Names, shapes and number of the weights of a recipe's network, without building it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.recipes.hyperparameters import Conv, Recipe
from alexnet_cli.recipes.structure import layer_sizes

Shape = tuple[int, ...]


def count_weights(recipe: Recipe, n_classes: int) -> int:
    """Return the number of weights, also called parameters."""
    return sum(size.weights for size in layer_sizes(recipe, n_classes))


def weight_shapes(recipe: Recipe, n_classes: int) -> dict[str, Shape]:
    """Return the shape of each array of weights: `conv2/tower1/kernel`, `fc6/bias`, …"""
    layers = recipe.layers()
    shapes: dict[str, Shape] = {}
    for size in layer_sizes(recipe, n_classes):
        layer = layers.get(size.name)  # None for the last layer
        if not isinstance(layer, Conv):
            shapes |= _kernel_and_bias(size.name, size.kernel)
            continue
        for tower in tower_names(size.name, layer):
            shapes |= _kernel_and_bias(tower, size.kernel)
        for number, post_op in enumerate(layer.post_ops):
            if post_op == "batch_norm":
                norm = post_op_name(size.name, layer, number)
                parts = ("gamma", "beta", "moving_mean", "moving_variance")
                shapes |= {f"{norm}/{part}": (layer.filters,) for part in parts}
    return shapes


def _kernel_and_bias(name: str, kernel: Shape) -> dict[str, Shape]:
    return {f"{name}/kernel": kernel, f"{name}/bias": kernel[-1:]}


def tower_names(name: str, conv: Conv) -> list[str]:
    """Return the names of the convolutions of a layer, one for each tower."""
    if conv.towers == 1:
        return [name]
    return [f"{name}/tower{number}" for number in range(1, conv.towers + 1)]


def post_op_name(name: str, conv: Conv, number: int) -> str:
    """Return the name of the operation `number` (from 0) after a convolution.

    `relu1` after conv1; `relu1_again` if the operation follows conv1 a second time, then `relu1_again2`.
    """
    post_op = conv.post_ops[number]
    n_before = conv.post_ops[:number].count(post_op)
    again = "" if not n_before else "_again" if n_before == 1 else f"_again{n_before}"
    return f"{post_op}{name[4:]}{again}"


def checked_array(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, shape: Shape, dtype: Any = np.float32
) -> npt.NDArray[Any]:
    """Return the array `name` after checking it.

    Raises `ValueError` if it is missing, of another shape or dtype, or not finite.
    """
    if name not in arrays:
        raise ValueError(f"the weights {name} are missing")
    array = arrays[name]
    if array.shape != shape or array.dtype != dtype:
        expected = f"{np.dtype(dtype)} {shape}"
        raise ValueError(f"{name}: expected {expected}. Received: {array.dtype} {array.shape}")
    with np.errstate(all="ignore"):  # the error below says it in our words
        total = array.sum()  # four times as fast as `isfinite(array).all()`
    if not np.isfinite(total):
        raise ValueError(f"{name}: contains NaN or infinite values")
    return array
