"""Calibration: whether probabilities are as high as they are right, and the temperature that mends them.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from alexnet_cli.runs.metrics import FloatArray, IntArray, Score, score

Float64Array = npt.NDArray[np.float64]

LOWEST, HIGHEST = 0.25, 4.0  # temperatures
MIN_IMAGES = 50  # of validation, as a temperature of fewer is mostly chance
N_BINS = 15  # Guo et al. 2017, section 5
_STEPS = 24  # halvings, which leave 2e-7 of the temperature


@dataclass(frozen=True)
class Calibration:
    """The temperature of the best weights, and the validation loss without and with it."""

    temperature: Annotated[float, Ge(LOWEST), Le(HIGHEST)]  # the logits are divided by it
    uncalibrated_loss: float  # as in `Score`
    loss: float


def can_fit(val: Score) -> bool:
    """Return whether validation can tell a temperature: without a mistake, the lowest is the best."""
    return val.n >= MIN_IMAGES and val.top1 < 1


def temper(probabilities: FloatArray, temperature: float | Float64Array) -> Float64Array:
    """Return the softmax of the logits over `temperature`, from the softmax of the logits.

    Float64 of the same shape; the classes are the last axis. The logarithms of probabilities are
    the logits up to a constant; what float32 can't tell from 0 counts as its smallest number.
    """
    logits = _log(probabilities) / temperature
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    tempered: Float64Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return tempered


def _log(probabilities: FloatArray) -> Float64Array:
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny), dtype=np.float64)


def fit_temperature(
    outputs: Sequence[tuple[IntArray, FloatArray]],
    total: Callable[[Float64Array], Float64Array] = lambda sums: sums,
) -> Calibration:
    """Return the temperature with the lowest loss between `LOWEST` and `HIGHEST`.

    `outputs`: batches of labels (n,) and probabilities (n, classes), which another worker may have
    too; `total` adds up the sums of all workers. The loss is convex in 1 / temperature, so that the
    sign of its slope tells on which side the minimum lies. If rounding makes no temperature better
    than 1, it is 1.
    """

    def sums(temperature: float) -> Float64Array:
        """Return the number of images, the sum of their losses and its slope by 1 / temperature."""
        summed = np.zeros(3)
        for y_true, probabilities in outputs:
            image, tempered = np.arange(len(y_true)), temper(probabilities, temperature)
            logits = _log(probabilities)
            loss = -_log(tempered)[image, y_true].sum()
            slope = (tempered * logits).sum() - logits[image, y_true].sum()
            summed += len(y_true), loss, slope
        return total(summed)

    low, high = np.log((LOWEST, HIGHEST))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if sums(np.exp(middle))[2] < 0 else (middle, high)
    fitted = float(np.exp((low + high) / 2))
    (n, before, _), (_, after, _) = sums(1.0), sums(fitted)
    if not after < before:  # or both are NaN
        fitted, after = 1.0, before
    return Calibration(fitted, float(before / n), float(after / n))


# Evaluation


@dataclass(frozen=True)
class CalibratedScore(Score):
    """A score, and what its probabilities are worth."""

    uncalibrated_loss: float  # of the same images, with a temperature of 1 in every model
    calibration_error: float  # expected calibration error over `N_BINS` bins, 0 to 1


def calibrated_score(
    y_true: IntArray, y_score: FloatArray, uncalibrated: FloatArray
) -> CalibratedScore:
    """Return the score of probabilities `y_score` (n, classes) for `y_true` (n,).

    `uncalibrated` (n,) is the probability of the true class with a temperature of 1.
    """
    return CalibratedScore(
        **vars(score(y_true, y_score)),
        uncalibrated_loss=float(-_log(uncalibrated).mean()),
        calibration_error=expected_calibration_error(reliability(y_true, y_score)),
    )


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose top probability lies in one bin: above `low`, at most `high`."""

    low: float
    high: float
    n: int
    n_correct: int
    confidence: float | None  # mean top probability; None without images


def reliability(y_true: IntArray, y_score: FloatArray) -> tuple[ReliabilityBin, ...]:
    """Return `N_BINS` bins of equal width of probabilities (n, classes) for labels (n,)."""
    edges = np.linspace(0, 1, N_BINS + 1)
    top = y_score.max(axis=1).astype(np.float64)
    hits, bins = y_score.argmax(axis=1) == y_true, np.searchsorted(edges[1:-1], top)
    return tuple(
        ReliabilityBin(
            float(edges[number]),
            float(edges[number + 1]),
            int(inside.sum()),
            int(hits[inside].sum()),
            float(top[inside].mean()) if inside.any() else None,
        )
        for number, inside in enumerate(bins == number for number in range(N_BINS))
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean distance of accuracy and confidence, each bin by its number of images."""
    gaps = [abs(b.n_correct - b.n * b.confidence) for b in bins if b.confidence is not None]
    return sum(gaps) / sum(b.n for b in bins)
