"""The statistics of a data set against NumPy over all pixels at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY
from noise import image_files, noise_files, noise_statistics

from alexnet_cli.data.statistics import compute_statistics
from alexnet_cli.data.store import ImageStore


@pytest.fixture
def paths(tmp_path):
    """Six files of noise."""
    return noise_files(tmp_path)


def test_statistics_are_mean_and_covariance_of_all_pixels(paths, tmp_path):
    """Oracle: np.mean and np.cov over everything at once."""
    store = ImageStore(image_files(paths), TINY, tmp_path)
    calls = []
    found = compute_statistics(store, lambda done, total: calls.append((done, total)))
    everything = np.stack([store.get(i) for i in range(6)]).astype(np.float64)
    np.testing.assert_allclose(found.mean_image, everything.mean(axis=0), rtol=1e-6)
    expected = np.cov(everything.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9, atol=1e-9)
    assert calls == [(done, 6) for done in range(1, 7)]


def test_large_data_sets_are_sampled_and_measured_by_several_hosts(paths, tmp_path, monkeypatch):
    """Oracle: np.mean of every second image, as 6 are more than 4; also when two hosts share the work."""
    monkeypatch.setattr("alexnet_cli.data.statistics.SAMPLE", 4)
    store = ImageStore(image_files(paths), TINY, tmp_path)
    expected = np.mean([store.get(0), store.get(2), store.get(4)], axis=0)
    np.testing.assert_allclose(compute_statistics(store).mean_image, expected, rtol=1e-6)
    sums = []
    for worker in range(2):
        compute_statistics(
            store, None, lambda n, w=worker: range(w, n, 2), lambda s: sums.append(s) or s
        )
    together = compute_statistics(store, None, lambda n: range(0), lambda _: sum(sums))
    np.testing.assert_array_equal(together.mean_image, compute_statistics(store).mean_image)


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        ("image", lambda mean: mean),
        ("channel", lambda mean: np.broadcast_to(mean.mean(axis=(0, 1)), mean.shape)),
        ("none", np.zeros_like),
        ("center", lambda mean: mean),  # of which crops use the center
    ],
)
def test_mean_of_each_recipe_setting(mean, expected):
    """Oracle: the setting by hand."""
    found = noise_statistics()
    subtracted = found.mean(replace(TINY, mean=mean))
    np.testing.assert_allclose(subtracted, expected(found.mean_image), rtol=1e-5)


def test_another_mean_is_taken_over_whatever_its_size():
    """Oracle: the mean image itself, or by hand its mean color, at every pixel; never the covariance."""
    own = noise_statistics()
    other = replace(own, mean_image=own.mean_image / 2, covariance=own.covariance * 3)
    small = replace(other, mean_image=np.arange(12, dtype=np.float32).reshape(2, 2, 3))
    same, constant = own.with_mean(other), own.with_mean(small)
    np.testing.assert_array_equal(same.mean_image, other.mean_image)
    assert constant.mean_image.shape == own.mean_image.shape
    assert (constant.mean_image == np.array([4.5, 5.5, 6.5], np.float32)).all()
    for changed in (same, constant):
        np.testing.assert_array_equal(changed.covariance, own.covariance)
