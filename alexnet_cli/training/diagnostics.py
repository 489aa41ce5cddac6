"""Say that a run does not learn while it runs, with the evidence and the most likely remedy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.records import EpochRow, Finding

# A run gets this many epochs and updates before it must have learned something.
PATIENCE_EPOCHS, PATIENCE_STEPS = 3, 60
FLAT = 0.02  # how near to a constant guess the loss may stay, as a share of it
DEAD = 0.75  # of a layer's units; healthy runs on flowers have 0.00 to 0.13
ENOUGH_IMAGES = 3  # for each class, before one class for all means something
EXPLODED = 4.0  # a batch's loss, in terms of a uniform guess's
TURNED = 1.25  # validation loss in terms of its lowest, while the training loss halves
TURNED_EPOCHS = 10
UNEQUAL = 10  # times the images of the rarest class that the most frequent one may have


@dataclass(frozen=True)
class EpochDiagnostics:
    """What an epoch shows beside its row."""

    n_steps: int  # updates since the run began
    guess_loss: float  # of always guessing alike; ln(classes) if they are equal
    worst_loss: float  # of the epoch's batches
    predicted: Mapping[str, int]  # validation images by predicted class
    dead: Mapping[str, float]  # by layer with ReLU: share of units that no image of a batch moves


def examine(
    history: Sequence[EpochRow],
    vitals: EpochDiagnostics,
    recipe: Recipe,
    known: Iterable[Finding] = (),
) -> tuple[Finding, ...]:
    """Return what is wrong after the last epoch of `history` and is not among `known` by kind."""
    found = {
        "exploded": _exploded(history, vitals),
        "dead": _dead(vitals),
        "flat": _flat(history, vitals),
        "one class": _one_class(history, vitals),
        "turned": _turned(history),
    }
    kinds = {finding.kind for finding in known}
    epoch = history[-1].epoch
    return tuple(
        Finding(kind, epoch, evidence, remedy(recipe) if kind != "turned" else _MORE_IMAGES)
        for kind, evidence in found.items()
        if evidence and kind not in kinds
    )


def examine_classes(counts: Mapping[str, int], recipe: Recipe) -> tuple[Finding, ...]:
    """Return whether one class dwarfs another, by their numbers of training images."""
    few, many = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if recipe.balance or counts[many] < UNEQUAL * counts[few]:
        return ()
    evidence = f"{many} has {counts[many]:,} training images, {few} {counts[few]:,}"
    return (Finding("unequal", 0, evidence, "rare classes will be missed: try --set balance=true"),)


_MORE_IMAGES = "the best epoch's weights are kept; more photographs help most, more epochs do not"


def remedy(recipe: Recipe) -> str:
    """Name what most likely makes a run learn that does not."""
    if max(layer.bias for layer in recipe.layers().values()) >= 0.5:
        return "hidden biases start at 1, too much for few classes: try --variant biases-0.1"
    return f"try --learning-rate {recipe.learning_rate / 10:g}"


def _is_early(history: Sequence[EpochRow], vitals: EpochDiagnostics) -> bool:
    return len(history) < PATIENCE_EPOCHS or vitals.n_steps < PATIENCE_STEPS


def _exploded(history: Sequence[EpochRow], vitals: EpochDiagnostics) -> str:
    n_classes = max(len(vitals.predicted), 2)
    if vitals.worst_loss <= EXPLODED * math.log(n_classes):
        return ""
    return (
        f"the loss of a batch rose to {vitals.worst_loss:.1f}, where a blind guess has "
        f"{math.log(n_classes):.2f}"
    )


def _dead(vitals: EpochDiagnostics) -> str:
    layers = [f"{share:.0%} of {name}" for name, share in vitals.dead.items() if share >= DEAD]
    return f"dead ReLUs, whatever the image: {', '.join(layers)}" if layers else ""


def _flat(history: Sequence[EpochRow], vitals: EpochDiagnostics) -> str:
    last = history[-PATIENCE_EPOCHS:]
    if _is_early(history, vitals) or any(
        row.train_loss < (1 - FLAT) * vitals.guess_loss for row in last
    ):
        return ""
    return (
        f"the training loss stays at {last[-1].train_loss:.3f}; guessing without a look at the "
        f"image has {vitals.guess_loss:.3f}"
    )


def _one_class(history: Sequence[EpochRow], vitals: EpochDiagnostics) -> str:
    n_images = sum(vitals.predicted.values())
    name, count = max(vitals.predicted.items(), key=lambda item: item[1])
    too_few = n_images < ENOUGH_IMAGES * len(vitals.predicted)  # it may be chance
    if _is_early(history, vitals) or count < n_images or too_few:
        return ""
    return f"every one of {n_images} validation images is taken for {name}"


def _turned(history: Sequence[EpochRow]) -> str:
    lowest = min(history, key=lambda row: row.val_loss)
    last = history[-1]
    recent = [row.val_loss for row in history[-PATIENCE_EPOCHS:]]
    if (
        last.epoch - lowest.epoch < TURNED_EPOCHS
        or min(recent) < TURNED * lowest.val_loss
        or last.train_loss > lowest.train_loss / 2
    ):
        return ""
    return (
        f"validation loss has turned: {lowest.val_loss:.3f} at epoch {lowest.epoch}, "
        f"{last.val_loss:.3f} now, while the training loss fell from {lowest.train_loss:.3f} to "
        f"{last.train_loss:.3f}"
    )
