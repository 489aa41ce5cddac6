"""Metrics against numbers computed by hand, published intervals, and laws."""

from __future__ import annotations

from math import comb, log

import numpy as np
import pytest

from alexnet_cli.runs.metrics import (
    ClassScore,
    SelectiveAccuracy,
    confusion_matrix,
    least_certain,
    most_confident_errors,
    most_confused,
    per_class,
    score,
    selective_accuracy,
    top_k_hits,
    wilson_interval,
)

RANDOM = np.random.default_rng(11)
NAMES = ("cat", "dog", "emu", "fox")
# fox is never predicted, and no image shows an emu.
Y_TRUE = np.array([0, 0, 0, 0, 1, 1, 1, 3, 3, 3])
Y_PRED = np.array([0, 0, 1, 2, 1, 1, 0, 1, 1, 0])
MATRIX = np.array([[2, 1, 1, 0], [1, 2, 0, 0], [0, 0, 0, 0], [1, 2, 0, 0]])


def random_scores(n: int, n_classes: int) -> np.ndarray:
    """Scores of one digit, so that many tie."""
    return RANDOM.integers(0, 10, (n, n_classes)) / 10


# Counting


def test_confusion_matrix_counts_true_rows_and_predicted_columns():
    """Oracle: the ten pairs above, counted by hand."""
    np.testing.assert_array_equal(confusion_matrix(Y_TRUE, Y_PRED, 4), MATRIX)


def test_precision_recall_and_f1():
    """Oracle: by hand; F1 = 2PR / (P + R). A class never predicted or absent has zeros."""
    expected = (
        ClassScore("cat", precision=2 / 4, recall=2 / 4, f1=1 / 2, support=4),
        ClassScore("dog", precision=2 / 5, recall=2 / 3, f1=1 / 2, support=3),
        ClassScore("emu", precision=0.0, recall=0.0, f1=0.0, support=0),
        ClassScore("fox", precision=0.0, recall=0.0, f1=0.0, support=3),
    )
    assert per_class(MATRIX, NAMES) == expected


def test_a_class_without_images_or_predictions():
    """Oracle: 0/0 counts as 0 in all three ratios."""
    empty = per_class(np.zeros((1, 1), np.int64), ("emu",))
    assert empty == (ClassScore("emu", precision=0.0, recall=0.0, f1=0.0, support=0),)


@pytest.mark.parametrize("n_classes", [2, 3, 7, 40])
def test_laws_that_bind_the_metrics(n_classes):
    """Oracle: images add up; trace/n is top-1; F1 is the harmonic mean of the other two."""
    n = 200
    y_true, y_score = RANDOM.integers(0, n_classes, n), random_scores(n, n_classes)
    matrix = confusion_matrix(y_true, y_score.argmax(axis=1), n_classes)
    classes = per_class(matrix, tuple(map(str, range(n_classes))))
    assert matrix.sum() == sum(c.support for c in classes) == n
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(y_true, minlength=n_classes))
    assert score(y_true, y_score).top1 == np.trace(matrix) / n
    for c in classes:
        if c.f1:
            assert c.f1 == pytest.approx(2 / (1 / c.precision + 1 / c.recall))
        else:
            assert c.precision * c.recall == 0


# The worst mistakes


def test_most_confused_puts_the_worst_first():
    """Oracle: off-diagonal cells of the matrix by hand; of equals the earlier row, then column."""
    expected = (
        ("fox", "dog", 2),
        ("cat", "dog", 1),
        ("cat", "emu", 1),
        ("dog", "cat", 1),
        ("fox", "cat", 1),
    )
    assert most_confused(MATRIX, NAMES, top=9) == expected
    assert most_confused(MATRIX, NAMES, top=2) == expected[:2]


def test_without_mistakes_nothing_is_confused():
    """Oracle: a diagonal matrix holds no mistake."""
    assert most_confused(np.diag([3, 0, 5]), NAMES[:3]) == ()


# Top-k


@pytest.mark.parametrize(
    ("scores", "y_true", "place"),
    [
        ([0.1, 0.6, 0.3], 2, 2),
        ([0.4, 0.4, 0.2], 0, 1),  # of two that tie, the lower index is first
        ([0.4, 0.4, 0.2], 1, 2),
        ([0.2, 0.2, 0.2], 2, 3),
        ([0.2, 0.3, 0.2], 0, 2),
    ],
)
def test_top_k_with_ties(scores, y_true, place):
    """Oracle: the true class's place by hand; it is a hit from k = its place on."""
    hits = [top_k_hits(np.array([y_true]), np.array([scores]), k)[0] for k in (1, 2, 3)]
    assert hits == [k >= place for k in (1, 2, 3)]


@pytest.mark.parametrize("n_classes", [2, 6, 30])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_what_sorting_gives(n_classes, k):
    """Oracle: Python's stable sort of the classes by falling score."""
    y_true, y_score = RANDOM.integers(0, n_classes, 300), random_scores(300, n_classes)
    best = [sorted(range(n_classes), key=lambda c, row=row: -row[c])[:k] for row in y_score]
    expected = [label in classes for label, classes in zip(y_true, best)]
    np.testing.assert_array_equal(top_k_hits(y_true, y_score, k), expected)


# Score


def test_score_of_five_classes_has_no_top5():
    """Oracle: by hand: −ln ½ − ln ¼ − ln ⅛ = 6 ln 2 over 3 images, 1 of them right."""
    y_score = np.array([[0.5, 0.5, 0, 0, 0], [0.5, 0.25, 0.25, 0, 0], [0, 0, 0.125, 0.875, 0]])
    found = score(np.array([0, 1, 2]), y_score)
    assert (found.n, found.top1, found.top5) == (3, 1 / 3, None)
    assert found.loss == pytest.approx(2 * log(2))


def test_score_of_six_classes_has_top5():
    """Oracle: by hand; class 5 is last in both rows, class 0 fifth in the second."""
    row = [0.05, 0.3, 0.3, 0.2, 0.13, 0.02]
    found = score(np.array([5, 0, 1, 2]), np.array([row] * 4))
    assert (found.n, found.top1, found.top5) == (4, 1 / 4, 3 / 4)
    assert found.loss == pytest.approx(-(log(0.02) + log(0.05) + 2 * log(0.3)) / 4)


def test_a_probability_of_0_costs_a_finite_loss():
    """Oracle: the smallest normal float32 is 2⁻¹²⁶."""
    found = score(np.array([1]), np.array([[1.0, 0.0]], np.float32))
    assert found.loss == pytest.approx(126 * log(2))


# Wilson's interval


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),  # roots of 1.384146p² − 1.984146p + 0.64, by hand
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(hits, n, low, high):
    """Oracle: the table, to its four digits; misses have the mirrored interval."""
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 12), (1, 1), (12, 12), (3, 7), (950, 1000)])
def test_wilson_limits_are_where_the_score_test_turns(hits, n):
    """Oracle: its definition: the shares p with (hits/n − p)² = 1.96² p(1 − p)/n."""
    low, high = wilson_interval(hits, n)
    assert low < high
    for p in (low, high):
        distance, variance = (hits / n - p) ** 2, p * (1 - p) / n
        assert distance == pytest.approx(1.959964**2 * variance, abs=1e-12)


def test_wilson_interval_covers_95_percent():
    """Oracle: exact binomial sums: of 60 images, how often the interval holds the true share.

    Coverage jumps with the share, as counts are whole, but its mean over all shares is 95 %.
    """
    n = 60
    limits = [wilson_interval(hits, n) for hits in range(n + 1)]

    def coverage(p):
        chances = (comb(n, hits) * p**hits * (1 - p) ** (n - hits) for hits in range(n + 1))
        return sum(c for c, (low, high) in zip(chances, limits) if low <= p <= high)

    coverages = [coverage((i + 0.5) / 200) for i in range(200)]
    assert np.mean(coverages) == pytest.approx(0.95, abs=0.005)
    assert min(coverages[20:180]) > 0.92


# Single images

SURE = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5], [0.3, 0.7]])
TRUTH = np.array([1, 1, 1, 0, 0])


def test_the_most_confident_errors_come_first():
    """Oracle: by hand; images 0, 2 and 4 are misclassified, with 0.9, 0.6 and 0.7."""
    assert most_confident_errors(TRUTH, SURE).tolist() == [0, 4, 2]


def test_the_least_certain_images_come_first():
    """Oracle: by hand; the best two classes are 0.8, 0.6, 0.2, 0 and 0.4 apart."""
    assert least_certain(SURE).tolist() == [3, 2, 4, 1, 0]


@pytest.mark.parametrize(
    ("threshold", "n_below", "n_correct", "top1"),
    [
        (0.0, 0, 0, 2 / 5),
        (0.5, 0, 0, 2 / 5),
        (0.65, 2, 1, 1 / 3),
        (0.85, 4, 2, 0.0),
        (1.0, 5, 2, None),
    ],
)
def test_selective_accuracy(threshold, n_below, n_correct, top1):
    """Oracle: by hand; images 1 (with 0.8) and 3 (with 0.5) are classified correctly."""
    expected = SelectiveAccuracy(threshold, 5, n_below, n_correct, top1)
    assert selective_accuracy(TRUTH, SURE, threshold) == expected
