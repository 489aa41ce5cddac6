"""The sizes of a recipe's layers, and the check that they fit together and can be built.

Recipes come from `--set` and with models from others, so all sizes are known, and bounded, before
anything of that size is built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from alexnet_cli.recipes.hyperparameters import Conv, Recipe

# The paper's network has 62 million weights, and with all operations 2 million outputs per image.
MOST_WEIGHTS = 500_000_000
MOST_OUTPUTS = 20_000_000
MOST_LAYERS = 100


@dataclass(frozen=True)
class LayerSize:
    """The sizes of one layer and of the operations that follow it."""

    name: str
    kernel: tuple[int, ...]  # of one tower: (size, size, channels, filters), or (inputs, units)
    towers: int
    n_norms: int  # batch normalizations that follow, with four numbers for each filter
    outputs: int  # numbers for one image, of the layer and of all that follows it

    @property
    def weights(self) -> int:
        """The number of weights, biases included."""
        width = self.kernel[-1]
        return self.towers * (prod(self.kernel) + width + 4 * self.n_norms * width)


def layer_sizes(recipe: Recipe, n_classes: int) -> list[LayerSize]:
    """Return the size of every layer, the last included.

    Raises `ValueError` if the feature map shrinks to nothing.
    """
    side, channels = recipe.crop_size, 3
    sizes = []
    for name, layer in recipe.layers().items():
        if not isinstance(layer, Conv):
            sizes.append(LayerSize(name, (side**2 * channels, layer.units), 1, 0, layer.units))
            side, channels = 1, layer.units
            continue
        kernel = (layer.kernel, layer.kernel, channels // layer.towers)
        if layer.stride > 1:
            side = 1 - (layer.kernel - side) // layer.stride
        outputs = side**2 * layer.filters
        for post_op in layer.post_ops:
            if post_op == "pool":
                side = 1 + (side - recipe.pool_size) // recipe.pool_stride
            outputs += side**2 * layer.filters
        if side < 1:
            raise ValueError(
                f"the feature map shrinks to nothing in {name}. "
                "Raise crop_size, or lower strides and pool_size"
            )
        n_norms = layer.post_ops.count("batch_norm")
        own = (*kernel, layer.filters // layer.towers)
        sizes.append(LayerSize(name, own, layer.towers, n_norms, outputs))
        channels = layer.filters
    last = (side**2 * channels, n_classes)
    return [*sizes, LayerSize(recipe.last_layer, last, 1, 0, n_classes)]


def check_structure(recipe: Recipe, n_classes: int = 1) -> None:
    """Raise `ValueError`, in one line, unless the hyperparameters of `recipe` fit each other.

    Each of them is within its own bounds already. Without `n_classes` the last layer counts as one
    unit.
    """
    if not re.fullmatch(r"[\w.+-]{1,200}", recipe.name):  # part of a run folder's name
        raise ValueError("the recipe's name must be letters, digits and . + - _, 200 at most")
    if not recipe.convs or not recipe.dense:
        raise ValueError(f"{'dense' if recipe.convs else 'convs'} must hold at least one layer")
    if recipe.crop_size > recipe.resize_size:
        raise ValueError(
            f"crop_size must be at most resize_size, {recipe.resize_size}, which it is cut from"
        )
    if recipe.lrn_n % 2 == 0:
        raise ValueError("lrn_n must be odd: as many channels on either side")
    _check_towers(recipe)
    n_layers = len(recipe.layers()) + sum(len(conv.post_ops) for conv in recipe.convs)
    _check_most("layers", n_layers, MOST_LAYERS)
    sizes = layer_sizes(recipe, n_classes)
    _check_most("weights", sum(size.weights for size in sizes), MOST_WEIGHTS)
    inputs = recipe.crop_size**2 * 3
    _check_most("outputs per image", inputs + sum(size.outputs for size in sizes), MOST_OUTPUTS)


def _check_towers(recipe: Recipe) -> None:
    channels = 3
    for number, conv in enumerate(recipe.convs, start=1):
        name = f"conv{number}"
        if conv.stride > 1 and conv.towers > 1:
            raise ValueError(f"{name}.stride must be 1 where {name}.towers is more than 1")
        if conv.filters % conv.towers:
            raise ValueError(f"{name}.filters must be divisible by {name}.towers, {conv.towers}")
        if channels % conv.towers:
            source = f"conv{number - 1}.filters" if number > 1 else "the colors"
            raise ValueError(f"{name}.towers must divide its input channels, {channels} ({source})")
        channels = conv.filters


def _check_most(what: str, count: int, most: int) -> None:
    if count > most:
        raise ValueError(f"the network has {count:,} {what}; at most {most:,} are possible")
