"""Calibration: the temperature, and how far probabilities are from accuracies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import reference
from helpers import HANG

from alexnet_cli.runs.calibration import (
    HIGHEST,
    LOWEST,
    N_BINS,
    can_fit,
    expected_calibration_error,
    fit_temperature,
    reliability,
    temper,
)
from alexnet_cli.runs.metrics import Score, score

RANDOM = np.random.default_rng(5)


def softmax(logits):
    """As networks return it: float32."""
    return reference.softmax(logits).astype(np.float32)


def labeled_logits(n=400, n_classes=7):
    """Logits, and labels drawn from their softmax, so that the best temperature is near 1."""
    logits = RANDOM.normal(0, 2, (n, n_classes))
    return np.array([RANDOM.choice(n_classes, p=p) for p in reference.softmax(logits)]), logits


def test_a_temperature_divides_the_logits():
    """Oracle: the softmax of divided logits in float64, for any shape and each model's temperature."""
    logits = RANDOM.normal(0, 4, (3, 2, 7))
    temperatures = np.array([0.5, 1, 2.5])[:, None, None]
    found = temper(softmax(logits), temperatures)
    np.testing.assert_allclose(found, reference.softmax(logits / temperatures), rtol=1e-5)


@pytest.mark.parametrize("factor", [0.4, 1, 3])
def test_the_temperature_has_the_lowest_loss(factor):
    """Oracle: the loss of 2,000 temperatures, each by its formula."""
    y_true, logits = labeled_logits()
    found = fit_temperature([(y_true, softmax(factor * logits))])
    tried = np.geomspace(LOWEST, HIGHEST, 2000)
    images = np.arange(len(y_true))
    losses = [-np.log(reference.softmax(factor * logits / t)[images, y_true]).mean() for t in tried]
    assert found.temperature == pytest.approx(tried[np.argmin(losses)], rel=2e-3)
    assert found.loss == pytest.approx(min(losses), rel=1e-5)
    before = score(y_true, softmax(factor * logits)).loss
    assert found.uncalibrated_loss == pytest.approx(before, rel=1e-6)


def test_logits_multiplied_by_three_are_mended():
    """Oracle: the law T(3 z) = 3 T(z), and equal probabilities."""
    y_true, logits = labeled_logits()
    plain, sharp = (fit_temperature([(y_true, softmax(k * logits))]) for k in (1, 3))
    assert sharp.temperature == pytest.approx(3 * plain.temperature, rel=0.02)
    assert sharp.loss == pytest.approx(plain.loss, rel=0.02)
    mended = temper(softmax(3 * logits), sharp.temperature)
    np.testing.assert_allclose(mended, temper(softmax(logits), plain.temperature), atol=0.02)


def test_the_loss_never_rises_and_classes_never_change():
    """Oracle: both laws, whatever the labels and however extreme the logits are."""
    for spread in (0.01, 1, 30, 300):  # beyond 87 float32 has only zeros
        for n in (1, 60):
            probabilities = softmax(RANDOM.normal(0, spread, (n, 5)))
            y_true = RANDOM.integers(0, 5, n)
            found = fit_temperature([(y_true, probabilities)])
            assert LOWEST <= found.temperature <= HIGHEST
            assert found.loss <= found.uncalibrated_loss
            after = temper(probabilities, found.temperature)
            np.testing.assert_array_equal(after.argmax(1), probabilities.argmax(1))
            assert score(y_true, after).loss == pytest.approx(found.loss)
    alike = fit_temperature([(np.zeros(60, int), np.full((60, 5), 0.2, np.float32))])
    assert alike.temperature == 1  # which none is better than


def test_the_temperature_is_bounded():
    """Oracle: logits of which no temperature is soft enough, or sharp enough."""
    y_true, logits = labeled_logits()
    for factor, bound in ((40, HIGHEST), (0.02, LOWEST)):
        found = fit_temperature([(y_true, softmax(factor * logits))])
        assert found.temperature == pytest.approx(bound, rel=1e-5)


def test_workers_and_batches_share_the_images():
    """Oracle: one worker with one batch, beside two that have unequal shares and add up their sums."""
    y_true, logits = labeled_logits(n=120)
    batches = [(y_true[part], softmax(logits[part])) for part in np.split(np.arange(120), [7, 40])]
    shares, sums, barrier = (batches[:1], batches[1:]), [np.zeros(3)] * 2, Barrier(2, timeout=HANG)

    def work(rank):
        def total(own):
            sums[rank] = own
            barrier.wait()
            both = sums[0] + sums[1]
            barrier.wait()  # before either writes its next sums
            return both

        return fit_temperature(shares[rank], total)

    with ThreadPoolExecutor(2) as pool:
        workers = list(pool.map(work, range(2)))
    whole = fit_temperature([(y_true, softmax(logits))])
    for found in (*workers, fit_temperature(batches)):
        assert vars(found) == pytest.approx(vars(whole), rel=1e-5)


def test_few_images_and_those_without_a_mistake_have_no_temperature():
    """Oracle: the bounds, by hand."""
    cases = ((49, 0.5, False), (50, 0.5, True), (50, 1.0, False), (50, 49 / 50, True))
    for n, top1, expected in cases:
        assert can_fit(Score(n, 0.7, top1, None)) is expected


def test_the_expected_calibration_error_by_hand():
    """Oracle: two images in the bin of 0.95, half of them right, and one in each of two others."""
    y_score = np.array([[0.95, 0.05], [0.95, 0.05], [0.62, 0.38], [0.45, 0.55]])
    bins = reliability(np.array([0, 1, 0, 0]), y_score)
    assert [(b.n, b.n_correct) for b in bins if b.n] == [(1, 0), (1, 1), (2, 1)]
    expected = 2 / 4 * abs(1 / 2 - 0.95) + 1 / 4 * (1 - 0.62) + 1 / 4 * 0.55
    assert expected_calibration_error(bins) == pytest.approx(expected)


def test_the_expected_calibration_error_by_its_definition():
    """Oracle: equation 3 of Guo et al. 2017, image by image; bins exclude their lower edges."""
    y_score = softmax(RANDOM.normal(0, 2, (300, 4)))
    y_score[:2] = [[1, 0, 0, 0], [0.25] * 4]
    y_true = RANDOM.integers(0, 4, 300)
    expected = 0.0
    for m in range(1, 16):
        gap = 0.0
        for label, row in zip(y_true, y_score):
            if (m - 1) / 15 < row.max() <= m / 15:
                gap += float(row.argmax() == label) - float(row.max())
        expected += abs(gap) / 300
    bins = reliability(y_true, y_score)
    assert expected_calibration_error(bins) == pytest.approx(expected)
    assert (len(bins), sum(b.n for b in bins)) == (N_BINS, 300)
    for one in bins:
        (found,) = (b for b in reliability(np.zeros(1, int), np.array([[one.high, 0]])) if b.n)
        assert found.high == one.high
