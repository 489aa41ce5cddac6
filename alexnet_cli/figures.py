"""Pictures of a run, drawn by matplotlib, which is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.files import atomic_write
from alexnet_cli.metrics import EpochRow

TRAIN, VAL = "#1f77b4", "#d95f02"
LABELLED_CLASSES = 40  # beyond, names on the axes of a matrix can't be read


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Any]:
    # The object-oriented interface: pyplot would look for a screen and keep figures alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    yield figure
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def draw_curves(history: Sequence[EpochRow], path: Path) -> None:
    """Draw loss and top-1 accuracy by epoch, train and validation, with the rate's drops."""
    epochs = [row.epoch for row in history]
    drops = [b.epoch for a, b in pairwise(history) if b.learning_rate < a.learning_rate]
    best = max(history, key=lambda row: (row.val_top1, -row.val_loss))
    with _figure(path, 9, 3.6) as figure:
        loss, accuracy = figure.subplots(1, 2)
        loss.plot(epochs, [row.train_loss for row in history], color=TRAIN, label="train")
        loss.plot(epochs, [row.val_loss for row in history], color=VAL, label="validation")
        loss.set(xlabel="epoch", title="cross-entropy loss", ylim=(0, None))
        accuracy.plot(epochs, [row.train_top1 for row in history], color=TRAIN, label="train")
        accuracy.plot(epochs, [row.val_top1 for row in history], color=VAL, label="validation")
        accuracy.plot(best.epoch, best.val_top1, "o", color=VAL, markersize=5)
        accuracy.annotate(
            f"best {best.val_top1:.3f}",
            (best.epoch, best.val_top1),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            color=VAL,
        )
        accuracy.set(xlabel="epoch", title="top-1 accuracy", ylim=(0, 1.05))
        for axes in (loss, accuracy):
            for number, epoch in enumerate(drops):
                label = "learning rate ÷10" if number == 0 else None
                axes.axvline(epoch - 0.5, color="0.6", linewidth=0.8, linestyle=":", label=label)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="0.92")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(frameon=False)


def draw_confusion(
    matrix: npt.NDArray[np.int64], classes: Sequence[str], path: Path, title: str
) -> None:
    """Draw a confusion matrix: rows are true classes, shades are shares of their images."""
    n = len(classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 3.5 + 0.32 * min(n, LABELLED_CLASSES)
    with _figure(path, side + 0.8, side) as figure:
        axes = figure.subplots()
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the true class")
        axes.set(xlabel="predicted", ylabel="true", title=title)
        if n <= LABELLED_CLASSES:
            axes.set_xticks(range(n), [_plain(name) for name in classes], rotation=45, ha="right")
            axes.set_yticks(range(n), [_plain(name) for name in classes])
        if n <= LABELLED_CLASSES // 2:
            for row, column in np.ndindex(n, n):
                colour = "white" if shares[row, column] > 0.5 else "0.2"
                axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour)


def _plain(name: str) -> str:
    """Shorten a class name for an axis, and keep matplotlib from reading it as mathematics."""
    short = name if len(name) <= 24 else name[:23] + "…"
    return short.replace("$", r"\$")
