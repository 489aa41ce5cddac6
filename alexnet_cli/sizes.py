"""How large a network is, known before any of it is built: recipes come with models from others."""

from __future__ import annotations

from math import prod

from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes import Conv, Recipe

# The paper's network has 62 million weights, and with all that follows a layer 2 million outputs.
MOST_WEIGHTS = 500_000_000
MOST_OUTPUTS = 20_000_000
MOST_LAYERS = 100


def count_weights(recipe: Recipe, n_classes: int) -> int:
    """Return how many numbers the layers hold; raises `AlexNetError` if they are too many to build."""
    inputs = (recipe.crop_size, recipe.crop_size, 3)
    weights, outputs, n_layers = 0, prod(inputs), 0
    for layer in recipe.layers().values():
        n_layers += 1
        if not isinstance(layer, Conv):
            weights += (prod(inputs) + 1) * layer.units
            inputs = (1, 1, layer.units)
            outputs += layer.units
            continue
        side, _, channels = inputs
        if layer.stride > 1:
            side = 1 - (layer.kernel - side) // layer.stride
        weights += (layer.kernel**2 * channels // layer.towers + 1) * layer.filters
        outputs += side**2 * layer.filters
        for step in layer.then:
            n_layers += 1
            weights += 4 * layer.filters if step == "batch_norm" else 0
            side = 1 + (side - recipe.pool_size) // recipe.pool_stride if step == "pool" else side
            outputs += side**2 * layer.filters
        if side < 1:
            raise AlexNetError(
                f"recipe {recipe.name} makes no network: nothing is left to slide over"
            )
        inputs = (side, side, layer.filters)
    weights += (prod(inputs) + 1) * n_classes
    for count, most, what in (
        (weights, MOST_WEIGHTS, "weights"),
        (outputs, MOST_OUTPUTS, "outputs for an image"),
        (n_layers, MOST_LAYERS, "layers"),
    ):
        if count > most:
            raise AlexNetError(
                f"recipe {recipe.name} makes a network of {count:,} {what}; at most {most:,} are built"
            )
    return weights
