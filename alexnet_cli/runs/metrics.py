"""Metrics of a classifier. They sum counts over all images and divide once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.floating]

# With fewer than six classes, every class is among the top five.
TOP5_FROM = 6


@dataclass(frozen=True)
class Score:
    """Loss and accuracy over `n` images."""

    n: int
    loss: float  # mean cross-entropy, in nats
    top1: float  # share of images whose most likely class is the true class
    top5: float | None  # share with the true class in the top five; None below six classes


def score(y_true: IntArray, y_score: FloatArray) -> Score:
    """Return loss, top-1 and top-5 of probabilities `y_score` (n, classes) for `y_true` (n,)."""
    return score_from_sums(score_sums(y_true, y_score), y_score.shape[1])


def score_sums(y_true: IntArray, y_score: FloatArray) -> npt.NDArray[np.float64]:
    """Return the sums behind a score: images, loss, top-1 hits, top-5 hits.

    The sums of several sets of images can be added.
    """
    n = len(y_true)
    true_scores = y_score[np.arange(n), y_true].astype(np.float64)
    loss = -np.log(np.maximum(true_scores, np.finfo(np.float32).tiny)).sum()
    hits = (top_k_hits(y_true, y_score, k).sum() for k in (1, 5))
    return np.array([n, loss, *hits])


def score_from_sums(summed: npt.NDArray[np.float64], n_classes: int) -> Score:
    """Return the score for the sums that `score_sums` returns."""
    n, loss, top1, top5 = (float(value) for value in summed)
    return Score(int(n), loss / n, top1 / n, top5 / n if n_classes >= TOP5_FROM else None)


def top_k_hits(y_true: IntArray, y_score: FloatArray, k: int) -> npt.NDArray[np.bool_]:
    """Return for each image whether fewer than `k` classes score higher than the true class.

    Among tied classes, the one with the lower index ranks higher.
    """
    n, n_classes = y_score.shape
    true_scores = y_score[np.arange(n), y_true][:, None]
    lower_index = np.arange(n_classes) < np.asarray(y_true)[:, None]
    # "not <=" instead of ">", so that a NaN score is never a hit
    ahead = ~(y_score <= true_scores) | ((y_score == true_scores) & lower_index)
    hits: npt.NDArray[np.bool_] = ahead.sum(axis=1) < k
    return hits


def wilson_interval(hits: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval, 95 % by default, of the proportion `hits` / `n`."""
    share = hits / n
    center = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def confusion_matrix(y_true: IntArray, y_pred: IntArray, n_classes: int) -> npt.NDArray[np.int64]:
    """Return the number of images by true class (row) and predicted class (column)."""
    matrix = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(matrix, (y_true, y_pred), 1)
    return matrix


def baseline_loss(counts: IntArray, label_smoothing: float, balance: bool) -> float:
    """Return the lowest training loss of a constant prediction, the same for every image.

    It is the entropy of the mean target, or with `balance` that of equally frequent classes.
    `counts`: the number of training images of each class.
    """
    if balance:
        return math.log(len(counts))
    shares = (1 - label_smoothing) * counts / counts.sum() + label_smoothing / len(counts)
    return float(-(shares * np.log(np.maximum(shares, 1e-12))).sum())


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class; a ratio with denominator 0 is 0."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int  # images of this class


def per_class(matrix: npt.NDArray[np.int64], names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of each class from the confusion matrix."""
    scores = []
    for index, name in enumerate(names):
        hits = int(matrix[index, index])
        support, predicted = int(matrix[index].sum()), int(matrix[:, index].sum())
        scores.append(
            ClassScore(
                name=name,
                precision=hits / predicted if predicted else 0.0,
                recall=hits / support if support else 0.0,
                f1=2 * hits / (support + predicted) if support + predicted else 0.0,
                support=support,
            )
        )
    return tuple(scores)


def most_confused(
    matrix: npt.NDArray[np.int64], names: tuple[str, ...], top: int = 5
) -> tuple[tuple[str, str, int], ...]:
    """Return the `top` most frequent errors, as (true, predicted, count), most frequent first."""
    mistakes = matrix - np.diag(np.diag(matrix))
    worst = np.argsort(-mistakes, axis=None, kind="stable")[:top]
    pairs = (divmod(int(flat), len(names)) for flat in worst)
    return tuple((names[t], names[p], int(mistakes[t, p])) for t, p in pairs if mistakes[t, p])


# Single images


def most_confident_errors(y_true: IntArray, y_score: FloatArray) -> IntArray:
    """Return the indices of misclassified images, the highest predicted probability first."""
    mistakes = np.flatnonzero(y_score.argmax(axis=1) != y_true)
    order: IntArray = mistakes[np.argsort(-y_score[mistakes].max(axis=1), kind="stable")]
    return order


def least_certain(y_score: FloatArray) -> IntArray:
    """Return the indices of all images, the smallest margin of the top two classes first."""
    ranked = np.sort(y_score, axis=1)
    order: IntArray = np.argsort(ranked[:, -1] - ranked[:, -2:][:, 0], kind="stable")
    return order


@dataclass(frozen=True)
class SelectiveAccuracy:
    """Accuracy on the images whose top probability reaches `threshold`, and how many do not."""

    threshold: float
    n: int  # images in total
    n_below: int  # images whose top probability is below the threshold
    n_below_correct: int  # images of `n_below` whose predicted class is correct
    top1: float | None  # accuracy on the other images; None if there are none


def selective_accuracy(
    y_true: IntArray, y_score: FloatArray, threshold: float
) -> SelectiveAccuracy:
    """Return the accuracy if predictions with a top probability below `threshold` are withheld.

    The top softmax output as a measure of confidence: Hendrycks and Gimpel 2017.
    """
    hits, below = y_score.argmax(axis=1) == y_true, y_score.max(axis=1) < threshold
    kept = hits[~below]
    top1 = float(kept.mean()) if kept.size else None
    return SelectiveAccuracy(threshold, len(hits), int(below.sum()), int(hits[below].sum()), top1)
