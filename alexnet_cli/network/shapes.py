"""What a network's weights are, known before any of it is built: recipes come with models from others."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.hyperparameters import Conv, Recipe

# The paper's network has 62 million weights, and with all that follows a layer 2 million outputs.
MOST_WEIGHTS = 500_000_000
MOST_OUTPUTS = 20_000_000
MOST_LAYERS = 100

Shape = tuple[int, ...]


def count_weights(recipe: Recipe, n_classes: int) -> int:
    """Return how many numbers the layers hold; raises `AlexNetError` if they are too many to build."""
    return sum(map(prod, weight_shapes(recipe, n_classes).values()))


def weight_shapes(recipe: Recipe, n_classes: int) -> dict[str, Shape]:
    """Return the shapes of `conv2/tower1/kernel`, `fc6/bias`, …; raises as `count_weights`."""
    inputs = (recipe.crop_size, recipe.crop_size, 3)
    shapes: dict[str, Shape] = {}
    outputs, n_layers = prod(inputs), 0
    for name, layer in recipe.layers().items():
        n_layers += 1
        if not isinstance(layer, Conv):
            shapes |= _kernel_and_bias(name, (prod(inputs), layer.units))
            inputs = (1, 1, layer.units)
            outputs += layer.units
            continue
        side, _, channels = inputs
        if layer.stride > 1:
            side = 1 - (layer.kernel - side) // layer.stride
        own = (layer.kernel, layer.kernel, channels // layer.towers, layer.filters // layer.towers)
        for tower in tower_names(name, layer):
            shapes |= _kernel_and_bias(tower, own)
        outputs += side**2 * layer.filters
        for number, step in enumerate(layer.post_ops):
            n_layers += 1
            if step == "batch_norm":
                parts = ("gamma", "beta", "moving_mean", "moving_variance")
                norm = step_name(name, layer, number)
                shapes |= {f"{norm}/{part}": (layer.filters,) for part in parts}
            side = 1 + (side - recipe.pool_size) // recipe.pool_stride if step == "pool" else side
            outputs += side**2 * layer.filters
        if side < 1:
            raise AlexNetError(
                f"recipe {recipe.name} makes no network: nothing is left to slide over"
            )
        inputs = (side, side, layer.filters)
    shapes |= _kernel_and_bias(recipe.last_layer, (prod(inputs), n_classes))
    for count, most, what in (
        (sum(map(prod, shapes.values())), MOST_WEIGHTS, "weights"),
        (outputs, MOST_OUTPUTS, "outputs for an image"),
        (n_layers, MOST_LAYERS, "layers"),
    ):
        if count > most:
            raise AlexNetError(
                f"recipe {recipe.name} makes a network of {count:,} {what}; at most {most:,} are built"
            )
    return shapes


def _kernel_and_bias(name: str, kernel: Shape) -> dict[str, Shape]:
    return {f"{name}/kernel": kernel, f"{name}/bias": kernel[-1:]}


def tower_names(name: str, conv: Conv) -> list[str]:
    """Name the convolutions that a layer is made of."""
    if conv.towers == 1:
        return [name]
    return [f"{name}/tower{number}" for number in range(1, conv.towers + 1)]


def step_name(name: str, conv: Conv, number: int) -> str:
    """Name what follows a convolution `number` steps on: `relu1`, and `relu1_again` the second time."""
    step = conv.post_ops[number]
    return f"{step}{name[4:]}{'_again' if step in conv.post_ops[:number] else ''}"


def fitting(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, shape: Shape, dtype: Any = np.float32
) -> npt.NDArray[Any]:
    """Return the array of that name; raises `ValueError` if it is missing, unfit or not finite."""
    if name not in arrays:
        raise ValueError(f"the weights {name} are missing")
    array = arrays[name]
    if array.shape != shape or array.dtype != dtype:
        expected = f"{np.dtype(dtype)} {shape}"
        raise ValueError(f"{name}: expected {expected}. Received: {array.dtype} {array.shape}")
    if not np.isfinite(array.sum()):  # four times as fast as asking each
        raise ValueError(f"{name}: holds values that are not finite")
    return array
