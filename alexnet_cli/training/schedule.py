"""How fast what learns when."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.records import EpochRow


@dataclass(frozen=True)
class Schedule:
    """How often the rate has dropped, and the best epoch so far; `after` gives the next."""

    drops: int = 0
    waited: int = 0  # epochs since the validation error fell or the rate dropped
    best_epoch: int = 0
    best: tuple[float, float] = (2.0, 0.0)  # validation error, loss; at first worse than any

    def after(self, row: EpochRow, recipe: Recipe) -> Schedule:
        """Note an epoch; the rate drops when the validation error has stopped improving (section 5).

        A recipe that says how the rate falls is followed instead.
        """
        result = (1 - row.val_top1, row.val_loss)
        fell = result[0] < self.best[0]
        now = replace(self, waited=0 if fell else self.waited + 1)
        if result < self.best:
            now = replace(now, best=result, best_epoch=row.epoch)
        judged = not (recipe.cosine or recipe.drop_at)
        if judged and now.waited >= recipe.patience and now.drops < recipe.rate_drops:
            now = replace(now, drops=now.drops + 1, waited=0)
        return now

    def learning_rate(self, recipe: Recipe, epoch: int) -> float:
        """Return the rate of `epoch` (from 1); warm-up and cosine are taken at its middle."""
        done, rising = (epoch - 0.5) / recipe.epochs, recipe.warmup
        if done < rising:
            return recipe.learning_rate * done / rising
        if recipe.cosine:
            falling = math.pi * (done - rising) / (1 - rising)
            return recipe.learning_rate * (1 + math.cos(falling)) / 2
        drops = self.drops
        if recipe.drop_at:
            drops = sum(recipe.reached(part, epoch) for part in recipe.drop_at)
        return recipe.learning_rate / recipe.rate_drop**drops


def rate_factor(recipe: Recipe, epoch: int, variable: str) -> float:
    """Return by what `recipe` multiplies the learning rate of `variable`, `conv1/bias`, in `epoch`."""
    layer, *_, kind = variable.split("/")
    factor = recipe.bias_rate if kind == "bias" else 1.0
    if layer in ("conv1", "conv2"):
        if recipe.reached(recipe.freeze_from, epoch):
            return 0.0
        if recipe.reached(recipe.slow_from, epoch):
            return factor / 10
    return factor
