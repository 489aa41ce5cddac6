"""Figures that say how good a classifier is. They sum counts and divide once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.floating]

# Below six classes the correct one is among the best five by construction.
TOP5_FROM = 6


@dataclass(frozen=True)
class Score:
    """Loss and accuracy over `n` images."""

    n: int
    loss: float  # mean cross-entropy, in nats
    top1: float  # share of images whose best class is the true one
    top5: float | None  # share with the true class among the best five; None below six classes


def score(y_true: IntArray, y_score: FloatArray) -> Score:
    """Compute loss, top-1 and top-5 of probabilities `y_score` (n, classes) for `y_true` (n,)."""
    return score_of(sums(y_true, y_score), y_score.shape[1])


def sums(y_true: IntArray, y_score: FloatArray) -> npt.NDArray[np.float64]:
    """Return what a score divides: images, their loss, top-1 and top-5 hits; parts may be added."""
    n = len(y_true)
    true_scores = y_score[np.arange(n), y_true].astype(np.float64)
    loss = -np.log(np.maximum(true_scores, np.finfo(np.float32).tiny)).sum()
    hits = (top_k_hits(y_true, y_score, k).sum() for k in (1, 5))
    return np.array([n, loss, *hits])


def score_of(summed: npt.NDArray[np.float64], n_classes: int) -> Score:
    """Divide what `sums` counted."""
    n, loss, top1, top5 = (float(value) for value in summed)
    return Score(int(n), loss / n, top1 / n, top5 / n if n_classes >= TOP5_FROM else None)


def top_k_hits(y_true: IntArray, y_score: FloatArray, k: int) -> npt.NDArray[np.bool_]:
    """Say for each image whether fewer than `k` classes score higher than the true one.

    Of classes that tie, the one with the lower index counts as the higher.
    """
    n, n_classes = y_score.shape
    true_scores = y_score[np.arange(n), y_true][:, None]
    lower_index = np.arange(n_classes) < np.asarray(y_true)[:, None]
    # "Not at most" in place of "above", so that a score that is not a number is never a hit.
    ahead = ~(y_score <= true_scores) | ((y_score == true_scores) & lower_index)
    hits: npt.NDArray[np.bool_] = ahead.sum(axis=1) < k
    return hits


def wilson_interval(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a proportion of `hits` in `n` (Wilson's score interval)."""
    share = hits / n
    center = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def confusion_matrix(y_true: IntArray, y_pred: IntArray, n_classes: int) -> npt.NDArray[np.int64]:
    """Count images by true class (row) and predicted class (column)."""
    matrix = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(matrix, (y_true, y_pred), 1)
    return matrix


def guess_loss(counts: IntArray, label_smoothing: float, balance: bool) -> float:
    """Return the training loss of the best guess without a look at the image.

    That is the entropy of the targets' mean; with `balance` the classes are guessed alike.
    `counts`: training images of each class.
    """
    if balance:
        return math.log(len(counts))
    shares = (1 - label_smoothing) * counts / counts.sum() + label_smoothing / len(counts)
    return float(-(shares * np.log(np.maximum(shares, 1e-12))).sum())


def balancing_weights(counts: IntArray) -> npt.NDArray[np.float32]:
    """Return the weight of each class's images with which all classes count alike; their mean is 1."""
    weights: npt.NDArray[np.floating] = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return weights.astype(np.float32)


@dataclass(frozen=True)
class ClassScore:
    """How one class fares; a ratio whose denominator is 0 counts as 0."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int  # images of this class


def per_class(matrix: npt.NDArray[np.int64], names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Compute precision, recall and F1 of each class from its confusion matrix."""
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
    """List the (true, predicted, count) of the most frequent mistakes, the worst first."""
    mistakes = matrix - np.diag(np.diag(matrix))
    worst = np.argsort(-mistakes, axis=None, kind="stable")[:top]
    pairs = (divmod(int(flat), len(names)) for flat in worst)
    return tuple((names[t], names[p], int(mistakes[t, p])) for t, p in pairs if mistakes[t, p])


# Single images


def surest_mistakes(y_true: IntArray, y_score: FloatArray) -> IntArray:
    """Number the images (n,) whose best class is not the true one, the likeliest such class first."""
    mistakes = np.flatnonzero(y_score.argmax(axis=1) != y_true)
    order: IntArray = mistakes[np.argsort(-y_score[mistakes].max(axis=1), kind="stable")]
    return order


def most_doubtful(y_score: FloatArray) -> IntArray:
    """Number all images (n,), those first whose two best classes are nearest to each other."""
    ranked = np.sort(y_score, axis=1)
    order: IntArray = np.argsort(ranked[:, -1] - ranked[:, -2:][:, 0], kind="stable")
    return order


@dataclass(frozen=True)
class SelectiveAccuracy:
    """What it costs to say "none of these" wherever the best class is less likely than `below`."""

    below: float
    n: int  # images
    n_refused: int
    n_refused_right: int  # of them, those whose best class is the true one
    top1: float | None  # of those that are left; None if none is


def refuse(y_true: IntArray, y_score: FloatArray, below: float) -> SelectiveAccuracy:
    """Count what would be refused (Hendrycks and Gimpel 2017: the largest softmax output tells)."""
    hits, refused = y_score.argmax(axis=1) == y_true, y_score.max(axis=1) < below
    left = hits[~refused]
    top1 = float(left.mean()) if left.size else None
    return SelectiveAccuracy(below, len(hits), int(refused.sum()), int(hits[refused].sum()), top1)
