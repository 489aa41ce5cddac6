"""Line charts of a history as SVG coordinates, for the HTML report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_cli.runs.records import EpochRow

WIDTH, HEIGHT = 460, 230  # of a chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 28  # margins, for the labels


@dataclass(frozen=True)
class Line:
    """A curve of a chart."""

    name: str
    points: str  # in the notation of SVG: "x,y x,y"
    last: float


@dataclass(frozen=True)
class Chart:
    """A chart of one metric by epoch."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]  # (x, label) of some epochs
    y_ticks: tuple[tuple[float, str], ...]  # (y, label) of some values


def build_charts(history: Sequence[EpochRow]) -> tuple[Chart, ...]:
    """Return charts of loss and top-1 accuracy by epoch; none for fewer than two epochs.

    The training curves are those of the sample, which is measured as validation is.
    """
    if len(history) < 2:
        return ()
    losses = {
        "train": [row.train_sample_loss for row in history],
        "validation": [row.val_loss for row in history],
    }
    top1s = {
        "train": [row.train_sample_top1 for row in history],
        "validation": [row.val_top1 for row in history],
    }
    return (
        _chart("cross-entropy loss", losses, max(map(max, losses.values()))),
        _chart("top-1 accuracy", top1s, 1.0),
    )


def round_step(span: float, most: int) -> float:
    """Return the smallest of …, 0.1, 0.2, 0.5, 1, 2, 5, … of which at most `most` fit into `span`.

    `span` must be above 0.
    """
    power: float = 10.0 ** math.floor(math.log10(span / most))
    return next(step for n in (1, 2, 5, 10, 20) if span / (step := n * power) < most + 1e-9)


def _chart(title: str, curves: dict[str, list[float]], highest: float) -> Chart:
    n = len(next(iter(curves.values())))
    value_step = round_step(max(highest, 1e-9), 5)
    top = math.ceil(max(highest, 1e-9) / value_step - 1e-9) * value_step
    values = [number * value_step for number in range(round(top / value_step) + 1)]

    def x(epoch: float) -> float:
        return round(LEFT + (epoch - 1) / (n - 1) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM), 1)

    epoch_step = max(round(round_step(n, 6)), 1)
    epochs = sorted({1, *range(epoch_step, n + 1, epoch_step)})
    return Chart(
        title=title,
        lines=tuple(
            Line(name, " ".join(f"{x(e)},{y(v)}" for e, v in enumerate(curve, 1)), curve[-1])
            for name, curve in curves.items()
        ),
        x_ticks=tuple((x(epoch), str(epoch)) for epoch in epochs),
        y_ticks=tuple((y(value), f"{value:.6g}") for value in values),
    )
