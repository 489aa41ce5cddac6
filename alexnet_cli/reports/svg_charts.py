"""Charts as SVG coordinates, for the HTML report: curves of a history, a reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_cli.runs.calibration import ReliabilityBin
from alexnet_cli.runs.metrics import wilson_interval
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
class Bar:
    """The accuracy of a bin, with its 95 % interval: y of the accuracy and of both ends."""

    x: float
    width: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """A chart of metrics by epoch, or of accuracy by probability."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]  # (x, label) of some epochs
    y_ticks: tuple[tuple[float, str], ...]  # (y, label) of some values
    bars: tuple[Bar, ...] = ()


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
        return _x((epoch - 1) / (n - 1))

    def y(value: float) -> float:
        return _y(value / top)

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


def reliability_chart(bins: Sequence[ReliabilityBin]) -> Chart:
    """Return the reliability diagram: a bar of accuracy for each bin that has images.

    The line is where accuracy equals probability.
    """
    ticks = [(part, f"{100 * part:.0f}") for part in (0, 0.25, 0.5, 0.75, 1)]
    return Chart(
        title="accuracy by probability of the predicted class, percent",
        lines=(Line("perfect", f"{_x(0)},{_y(0)} {_x(1)},{_y(1)}", 1.0),),
        x_ticks=tuple((_x(part), label) for part, label in ticks),
        y_ticks=tuple((_y(part), label) for part, label in ticks),
        bars=tuple(
            Bar(
                _x(b.low),
                round(_x(b.high) - _x(b.low), 1),
                _y(b.n_correct / b.n),
                *map(_y, wilson_interval(b.n_correct, b.n)),
            )
            for b in bins
            if b.n
        ),
    )


def _x(share: float) -> float:
    """Return x of a share, 0 to 1, of the width between the margins."""
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(share: float) -> float:
    """Return y of a share, 0 to 1, of the height between the margins."""
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)
