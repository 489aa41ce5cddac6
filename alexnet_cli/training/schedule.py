"""The learning-rate schedule, by epoch and by variable."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.records import EpochRow


def learning_rate(recipe: Recipe, history: Sequence[EpochRow]) -> float:
    """Return the learning rate of the epoch after `history`.

    It rises linearly during the warm-up. Then, depending on the recipe, it falls along half a
    cosine, at fixed fractions of the run (`drop_at`), or whenever the validation error stops improving
    (section 5). Warm-up and cosine are evaluated at the middle of the epoch.
    """
    epoch = len(history) + 1
    done, rising = (epoch - 0.5) / recipe.epochs, recipe.warmup
    if done < rising:
        return recipe.learning_rate * done / rising
    if recipe.cosine:
        falling = math.pi * (done - rising) / (1 - rising)
        return recipe.learning_rate * (1 + math.cos(falling)) / 2
    if recipe.drop_at:
        drops = sum(recipe.reached(part, epoch) for part in recipe.drop_at)
    else:
        drops = count_drops(recipe, history)
    return recipe.learning_rate / recipe.rate_drop**drops


def count_drops(recipe: Recipe, history: Sequence[EpochRow]) -> int:
    """Return how often the rate has dropped because the validation error stopped improving.

    It drops after `patience` epochs without a new lowest error; the count restarts at each drop.
    """
    drops, waited, lowest = 0, 0, math.inf
    for row in history:
        error = 1 - row.val_top1
        waited = 0 if error < lowest else waited + 1
        lowest = min(error, lowest)
        if waited >= recipe.patience and drops < recipe.rate_drops:
            drops, waited = drops + 1, 0
    return drops


def rate_factor(recipe: Recipe, epoch: int, variable: str) -> float:
    """Return the factor of the learning rate for `variable`, such as `conv1/bias`, in `epoch`."""
    layer, *_, kind = variable.split("/")
    factor = recipe.bias_rate if kind == "bias" else 1.0
    if layer in ("conv1", "conv2"):
        if recipe.reached(recipe.freeze_from, epoch):
            return 0.0
        if recipe.reached(recipe.slow_from, epoch):
            return factor / 10
    return factor
