"""Detect problems of a run while it trains, with the evidence and the most likely remedy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alexnet_cli.data import near_copies
from alexnet_cli.data.manifest import Manifest
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import PAPER, RECIPES
from alexnet_cli.runs.records import EpochRow, Finding

# After this many epochs at the full rate, and updates, a run should have learned something.
PATIENCE_EPOCHS, PATIENCE_STEPS = 3, 60
NO_PROGRESS_MARGIN = 0.02  # relative decrease of the loss from that of a constant prediction
DEAD_SHARE = 0.75  # share of a layer's units; healthy runs on flowers have 0.00 to 0.13
MIN_IMAGES_PER_CLASS = 3  # validation images; with fewer, predicting one class may be chance
EXPLODING_FACTOR = 4.0  # loss of a batch, relative to the loss of uniform probabilities
OVERFIT_FACTOR = 1.25  # validation loss relative to its minimum, while that of training halves
OVERFIT_RISE = 0.05  # least rise of the validation loss, in nats; below it both losses are tiny
OVERFIT_EPOCHS = 10  # since the epoch with the lowest validation loss
IMBALANCE_RATIO = 10  # images of the most frequent class relative to the rarest class


@dataclass(frozen=True)
class EpochDiagnostics:
    """Measurements of an epoch that are not in its row."""

    n_steps: int  # updates since the start of the run
    baseline_loss: float  # of a constant prediction; ln(classes) for equal classes
    worst_loss: float  # the largest loss of a batch in the epoch
    predicted: Mapping[str, int]  # validation images by predicted class
    dead: Mapping[str, float]  # by ReLU layer: share of units that are 0 for all probed images


def find_problems(
    history: Sequence[EpochRow],
    measured: EpochDiagnostics,
    recipe: Recipe,
    known: Iterable[Finding] = (),
) -> tuple[Finding, ...]:
    """Return the problems after the last epoch of `history` whose kind is not among `known`."""
    found = {
        "exploding loss": _exploding_loss(history, measured),
        "dead ReLUs": _dead_relus(measured),
        "no progress": _no_progress(history, measured, recipe),
        "one class predicted": _one_class_predicted(history, measured, recipe),
        "overfitting": _overfitting(history),
    }
    kinds = {finding.kind for finding in known}
    epoch = history[-1].epoch
    return tuple(
        Finding(
            kind,
            epoch,
            evidence,
            suggest_remedy(recipe) if kind != "overfitting" else _OVERFITTING_REMEDY,
        )
        for kind, evidence in found.items()
        if evidence and kind not in kinds
    )


def find_class_imbalance(counts: Mapping[str, int], recipe: Recipe) -> tuple[Finding, ...]:
    """Return a finding if one class has many more training images than another."""
    few, many = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if recipe.balance or counts[many] < IMBALANCE_RATIO * counts[few]:
        return ()
    evidence = f"{many} has {counts[many]:,} training images, {few} {counts[few]:,}"
    return (Finding("class imbalance", 0, evidence, "try --set balance=true"),)


def find_known_images(manifest: Manifest, known: Manifest | None) -> tuple[Finding, ...]:
    """Return a finding if validation or test images were training images of the initial weights.

    `known` has the images of the run with these weights, None if nobody knows them.
    """
    judges = [file for split in ("val", "test") for file in manifest.of(split)]
    among = near_copies.are_among(judges, known.of("train") if known else ())
    found = Counter(file.split for file, is_known in zip(judges, among) if is_known)
    if not found:
        return ()
    counts = [f"{n:,} of {len(manifest.of(split)):,} {split}" for split, n in found.items()]
    evidence = f"{' and '.join(counts)} images were training images of the initial weights"
    return (Finding("known images", 0, evidence, _KNOWN_REMEDY),)


_KNOWN_REMEDY = "their accuracy is optimistic; use the split that these weights were trained on"
_OVERFITTING_REMEDY = "add images, as more epochs do not help"


def suggest_remedy(recipe: Recipe) -> str:
    """Return the change that most likely helps a run that does not learn."""
    own_rate = RECIPES.get(recipe.name.partition("+")[0], recipe).learning_rate
    if recipe.learning_rate > own_rate:
        return f"try --learning-rate {own_rate:g}, which is the recipe's own"
    if max(layer.bias for layer in recipe.layers().values()) >= 0.5:
        return "initial biases of 1 are too large for few classes: try --variant biases-0.1"
    return f"try --learning-rate {min(recipe.learning_rate / 10, PAPER.learning_rate):g}"


def _is_too_early(history: Sequence[EpochRow], measured: EpochDiagnostics, recipe: Recipe) -> bool:
    rising = round(recipe.warmup * recipe.epochs)  # epochs of lower rates do not count
    patience = max(PATIENCE_EPOCHS, min(PATIENCE_EPOCHS + rising, recipe.epochs))
    return len(history) < patience or measured.n_steps < PATIENCE_STEPS


def _exploding_loss(history: Sequence[EpochRow], measured: EpochDiagnostics) -> str:
    n_classes = max(len(measured.predicted), 2)
    if measured.worst_loss <= EXPLODING_FACTOR * math.log(n_classes):
        return ""
    return (
        f"the loss of a batch rose to {measured.worst_loss:.1f}; uniform probabilities have a loss "
        f"of {math.log(n_classes):.2f}"
    )


def _dead_relus(measured: EpochDiagnostics) -> str:
    layers = [
        f"{share:.0%} of {name}" for name, share in measured.dead.items() if share >= DEAD_SHARE
    ]
    return f"units that are 0 for every image: {', '.join(layers)}" if layers else ""


def _no_progress(history: Sequence[EpochRow], measured: EpochDiagnostics, recipe: Recipe) -> str:
    last = history[-PATIENCE_EPOCHS:]
    if _is_too_early(history, measured, recipe) or any(
        row.train_loss < (1 - NO_PROGRESS_MARGIN) * measured.baseline_loss for row in last
    ):
        return ""
    return (
        f"the training loss stays at {last[-1].train_loss:.3f}; a constant prediction has a loss "
        f"of {measured.baseline_loss:.3f}"
    )


def _one_class_predicted(
    history: Sequence[EpochRow], measured: EpochDiagnostics, recipe: Recipe
) -> str:
    n_images = sum(measured.predicted.values())
    name, count = max(measured.predicted.items(), key=lambda item: item[1])
    too_few = n_images < MIN_IMAGES_PER_CLASS * len(measured.predicted)  # may be chance
    if _is_too_early(history, measured, recipe) or count < n_images or too_few:
        return ""
    return f"all {n_images} validation images are predicted as {name}"


def _overfitting(history: Sequence[EpochRow]) -> str:
    # Label smoothing and CutMix keep the running training loss up, however well the images are
    # memorized; the sample's loss is measured as that of validation.
    lowest = min(history, key=lambda row: row.val_loss)
    last = history[-1]
    recent = [row.val_loss for row in history[-PATIENCE_EPOCHS:]]
    if (
        last.epoch - lowest.epoch < OVERFIT_EPOCHS
        or min(recent) < max(OVERFIT_FACTOR * lowest.val_loss, lowest.val_loss + OVERFIT_RISE)
        or last.train_sample_loss > lowest.train_sample_loss / 2
    ):
        return ""
    return (
        f"the validation loss rose from {lowest.val_loss:.3f} at epoch {lowest.epoch} to "
        f"{last.val_loss:.3f}, while that of training images fell from "
        f"{lowest.train_sample_loss:.3f} to {last.train_sample_loss:.3f}"
    )
