"""Plots of a run. Matplotlib is imported only when one is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.images import Float32Array, UInt8Array
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.system.atomic_files import atomic_write
from alexnet_cli.system.safe_names import printable

TRAIN, VAL = "#1f77b4", "#d95f02"
TRUE, OTHER = "#8cc8a0", "#b9cbe2"  # bars of the true class and of others
LABELED_CLASSES = 40  # with more, the labels on the axes are not readable
SHEET_COLUMNS = 16  # kernels in a row
MAX_CELLS = 250  # per side of a matrix; with more, single cells are not visible


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Any]:
    # the object-oriented interface, as pyplot looks for a display and keeps figures in memory
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    yield figure
    with atomic_write(path) as file, warnings.catch_warnings():
        # a class name with letters that the font lacks is drawn as boxes, which is acceptable
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png")


def rate_drops(history: Sequence[EpochRow]) -> list[int]:
    """Return the epochs at which the learning rate drops after being constant."""
    rates = [row.learning_rate for row in history]
    falls = zip(history[2:], rates, rates[1:], rates[2:])
    return [row.epoch for row, before, last, now in falls if before == last > now]


def _tidy(axes: Any, *, percent: bool = False, epochs: bool = True) -> None:
    """Draw only the axes that are read, with round numbers, and horizontal lines."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if epochs:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def draw_curves(history: Sequence[EpochRow], best_epoch: int, path: Path, recipe: str) -> None:
    """Draw loss and top-1 accuracy by epoch, with drops of the learning rate.

    The training curves are those of the sample, which is measured as validation is. `best_epoch` is
    the one whose weights were kept, `recipe` the name of the recipe, for the title.
    """
    losses, top1s = [r.train_sample_loss for r in history], [r.train_sample_top1 for r in history]
    epochs = [row.epoch for row in history]
    drops = rate_drops(history)
    with _figure(path, 9, 3.6) as figure:
        loss, accuracy = figure.subplots(1, 2)
        loss.plot(epochs, losses, color=TRAIN, label="training (sample)")
        loss.plot(epochs, [row.val_loss for row in history], color=VAL, label="validation")
        figure.suptitle(_axis_label(f"recipe {recipe}", longest=90))
        loss.set(xlabel="epoch", title="cross-entropy loss", ylim=(0, None))
        accuracy.plot(epochs, top1s, color=TRAIN, label="training (sample)")
        accuracy.plot(epochs, [row.val_top1 for row in history], color=VAL, label="validation")
        # A training that goes on may have kept an epoch that is not in the history yet.
        if 0 < best_epoch <= len(history):
            best = history[best_epoch - 1]
            best_label = f"weights kept, epoch {best.epoch}: {100 * best.val_top1:.1f} %"
            accuracy.plot(best.epoch, best.val_top1, "o", color=VAL, markersize=5, label=best_label)
        accuracy.set(xlabel="epoch", title="top-1 accuracy", ylim=(0, 1.05))
        for axes in (loss, accuracy):
            for number, epoch in enumerate(drops):
                label = "learning rate drops" if number == 0 else None
                axes.axvline(epoch - 0.5, color="0.6", linewidth=0.8, linestyle=":", label=label)
            _tidy(axes, percent=axes is accuracy)
            axes.legend(frameon=False, loc="lower right" if axes is accuracy else "upper right")


def draw_confusion(
    matrix: npt.NDArray[np.int64], classes: Sequence[str], path: Path, title: str
) -> None:
    """Draw a confusion matrix: rows are true classes, shades are shares of their images.

    With very many classes, a cell shows the largest value of several neighboring cells, and the
    color scale makes a few errors among many images visible.
    """
    from matplotlib.colors import PowerNorm

    n = len(classes)
    shares = row_shares(matrix)
    cells = downsample(shares)
    side = 3.5 + 0.32 * min(n, LABELED_CLASSES)
    with _figure(path, side + 0.8, side) as figure:
        axes = figure.subplots()
        edges = (-0.5, n - 0.5, n - 0.5, -0.5)
        shades = PowerNorm(1 if n <= LABELED_CLASSES else 0.35, 0, 1)
        picture = axes.imshow(
            cells, cmap="Blues", norm=shades, interpolation="nearest", extent=edges
        )
        figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the true class")
        axes.set(xlabel="predicted", ylabel="true", title=title)
        if n <= LABELED_CLASSES:
            axes.set_xticks(
                range(n), [_axis_label(name) for name in classes], rotation=45, ha="right"
            )
            axes.set_yticks(range(n), [_axis_label(name) for name in classes])
        if n <= LABELED_CLASSES // 2:
            for row, column in np.ndindex(n, n):
                color = "white" if shares[row, column] > 0.5 else "0.2"
                axes.text(column, row, matrix[row, column], ha="center", va="center", color=color)


def row_shares(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return each row divided by its sum, the number of images of that class."""
    shares: npt.NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return shares


def downsample(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the maxima of blocks of cells, so that no side has more than `MAX_CELLS`."""
    starts = np.arange(0, len(shares), -(-len(shares) // MAX_CELLS))
    rows = np.maximum.reduceat(shares, starts, axis=0)
    cells: npt.NDArray[np.float64] = np.maximum.reduceat(rows, starts, axis=1)
    return cells


def _axis_label(name: str, longest: int = 24) -> str:
    """Return a class name shortened for an axis, with $ escaped, which starts a formula."""
    name = printable(name)
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return short.replace("$", r"\$")


# The paper's figures


def draw_training_errors(errors: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw Figure 1: the training error of several runs by epoch, 0 to 1, with a line at 25 %."""
    with _figure(path, 6.4, 4.2) as figure:
        axes = figure.subplots()
        for number, (name, values) in enumerate(errors.items()):
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=f"C{number}",
                linestyle=("-", "--", "-.", ":")[number % 4],
                label=_axis_label(name, longest=40),
            )
        axes.axhline(0.25, color="0.6", linewidth=0.8, linestyle=":")
        axes.set(xlabel="epoch", ylabel="training error", ylim=(0, None), xlim=(0, None))
        _tidy(axes, percent=True)
        axes.legend(frameon=False)


def color_selectivity(kernels: Float32Array) -> npt.NDArray[np.float64]:
    """Return for each kernel of (h, w, 3, kernels) the share of its energy that is not gray.

    0: all three channels are equal; 1: their sum is 0 at every position.
    """
    weights = kernels.astype(np.float64)
    gray = weights.mean(axis=2, keepdims=True)
    energy = (weights**2).sum(axis=(0, 1, 2))
    colored = ((weights - gray) ** 2).sum(axis=(0, 1, 2))
    shares: npt.NDArray[np.float64] = colored / np.maximum(energy, np.finfo(float).tiny)
    return shares


def kernel_sheet(kernels: Float32Array) -> UInt8Array:
    """Return an RGBA image of kernels (h, w, 3, kernels), `SHEET_COLUMNS` in a row.

    Each kernel is scaled by its own largest weight; gray is 0. The gaps are transparent.
    """
    height, width, _, n = kernels.shape
    largest = np.maximum(np.abs(kernels).max(axis=(0, 1, 2)), np.finfo(np.float32).tiny)
    shown = (127.5 + kernels * (127.5 / largest)).round().astype(np.uint8)
    rows = -(-n // SHEET_COLUMNS)
    sheet = np.zeros((rows * (height + 1) + 1, SHEET_COLUMNS * (width + 1) + 1, 4), np.uint8)
    for index in range(n):
        row, column = divmod(index, SHEET_COLUMNS)
        top, left = 1 + row * (height + 1), 1 + column * (width + 1)
        cell = sheet[top : top + height, left : left + width]
        cell[..., :3], cell[..., 3] = shown[..., index], 255
    return sheet


def draw_kernels(kernels: Float32Array, towers: int, path: Path) -> None:
    """Draw Figure 3: the kernels of the first layer by tower, and a histogram of color selectivity.

    `kernels`: (h, w, 3, kernels). Each is scaled by its own largest weight; gray is 0.
    """
    n = kernels.shape[3]
    rows = -(-n // towers // SHEET_COLUMNS)
    selectivity = color_selectivity(kernels)
    with _figure(path, 9, max(towers * (0.46 * rows + 0.6), 2.4)) as figure:
        grid = figure.subplots(towers, 2, squeeze=False, width_ratios=[4, 1])
        for number, (axes, strip) in enumerate(grid):
            chosen = np.arange(number * n // towers, (number + 1) * n // towers)
            axes.imshow(kernel_sheet(kernels[..., chosen]), interpolation="nearest")
            axes.axis("off")
            kind = f"tower {number + 1}, " if towers > 1 else ""
            axes.set_title(f"{kind}{len(chosen)} kernels", loc="left", fontsize=10)
            strip.hist(selectivity[chosen], bins=10, range=(0, 1), color=TRAIN)
            strip.axvline(selectivity[chosen].mean(), color="0.3", linewidth=0.8, linestyle=":")
            strip.set(xlim=(0, 1), ylabel="kernels")
            strip.set_xlabel("share of color\n(0: gray; dotted: mean)", fontsize=8)
            strip.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            _tidy(strip, epochs=False)


def draw_predictions(
    shown: Sequence[tuple[UInt8Array, str, Sequence[tuple[str, float]]]], path: Path
) -> None:
    """Draw Figure 4, left: images with their true class and bars of the most likely classes.

    The bar of the true class is green and its name is bold. `shown`: for each image (pixels, true
    class, [(class, probability), …], most likely first).
    """
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    with _figure(path, 2.3 * columns, 3.5 * rows) as figure:
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.2, 1] * rows)
        for axes in grid.flat:
            axes.axis("off")
        for number, (pixels, label, bars) in enumerate(shown):
            row, column = divmod(number, columns)
            picture, chart = grid[2 * row, column], grid[2 * row + 1, column]
            picture.imshow(pixels)
            picture.set_title(_axis_label(label), fontsize=10)
            chart.set(xlim=(0, 1), ylim=(4.6, -0.6))
            for place, (name, probability) in enumerate(bars):
                true = name == label
                chart.barh(place, probability, height=0.86, color=TRUE if true else OTHER)
                font = {"va": "center", "fontsize": 8, "fontweight": "bold" if true else "normal"}
                chart.text(0.02, place, _axis_label(name), **font)
                chart.text(0.98, place, f"{probability:.1%}".replace("%", " %"), ha="right", **font)


def draw_neighbors(
    rows: Sequence[tuple[UInt8Array, str, Sequence[tuple[UInt8Array, str]]]],
    path: Path,
    kind: str = "true",
) -> None:
    """Draw Figure 4, right: an image in the first column, then the training images nearest to it.

    `rows`: for each image (pixels, class, [(pixels, class), …], nearest first). A tick marks the
    neighbors of the same class, a cross the others. `kind` of class is "true" or "predicted".
    """
    columns = 1 + max(len(neighbors) for _, _, neighbors in rows)
    with _figure(path, 1.35 * columns + 0.3, 1.6 * len(rows) + 0.2) as figure:
        # a narrow empty column between the image and its neighbors
        ratios = [1, 0.12, *[1] * (columns - 1)]
        grid = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=ratios)
        for axes in grid.flat:
            axes.axis("off")
        for line, (pixels, label, neighbors) in zip(grid, rows):
            line[0].imshow(pixels)
            line[0].set_title(_axis_label(label, 16), fontsize=9, fontweight="bold")
            for axes, (neighbor, other) in zip(line[2:], neighbors):
                axes.imshow(neighbor)
                same = other == label
                axes.set_title(
                    f"{'✓' if same else '✗'} {_axis_label(other, 14)}",
                    fontsize=8,
                    color="#1e7a3c" if same else VAL,
                )
        nearest = ", then the nearest training images (fc7)" if columns > 1 else ""
        figure.suptitle(f"image and {kind} class{nearest}", fontsize=10, x=0.01, ha="left")
