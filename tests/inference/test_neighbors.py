"""Distances of fc7: the same from fresh features as from the file, and within little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from alexnet_cli.inference.neighbors import FeatureIndex, euclidean, to_float16
from alexnet_cli.runs.models import load_model


def features(n, units=4096, seed=0):
    """Return float16 (n, units): half zeros, as after ReLU, and half of the size that AlexNet has."""
    values = np.random.default_rng(seed).normal(0, 5, (n, units)).astype(np.float32)
    return values.clip(0).astype(np.float16)


def test_fresh_features_and_those_of_the_file_have_the_same_distances(run_copy):
    """Oracle: each other, exactly, for queries that are no training images."""
    model = load_model(run_copy)
    fresh, saved = FeatureIndex(model), FeatureIndex(model)
    for seed in range(5):
        query = np.random.default_rng(seed).normal(size=32).astype(np.float32)
        assert fresh.nearest(query, 9) == saved.nearest(query, 9)


def test_distances_are_those_of_double_precision():
    """Oracle: NumPy's norm in float64; a sum of 4096 squares in float32 is good to 1e-5 at least."""
    many, one = features(700), features(1, seed=1)[0]
    expected = np.linalg.norm(many.astype(np.float64) - one, axis=1)
    np.testing.assert_allclose(euclidean(one, many), expected, rtol=1e-5)


def test_a_search_takes_little_memory_beside_the_features():
    """Oracle: a quarter of their bytes, which a copy of them in float16 exceeds four times."""
    many, one = features(8192), features(1, seed=1)[0]
    tracemalloc.start()
    try:
        euclidean(one, many)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < many.nbytes / 4


def test_features_beyond_float16_stay_finite():
    """Oracle: the largest number of float16, by its definition (2 − 2⁻¹⁰) · 2¹⁵; NaN stays NaN."""
    most = (2 - 2**-10) * 2**15
    rounded = to_float16(np.array([1e6, -np.inf, 0.5, np.nan], np.float32))
    assert rounded.dtype == np.float16
    np.testing.assert_array_equal(rounded, [most, -most, 0.5, np.nan])


def test_an_image_is_at_distance_zero_of_its_equal():
    """Oracle: zero, as both are rounded in the same way."""
    exact = np.random.default_rng(2).normal(size=(3, 32)).astype(np.float32)
    assert euclidean(to_float16(exact[1]), to_float16(exact))[1] == 0
    assert euclidean(to_float16(exact[1]), to_float16(exact))[0] == pytest.approx(
        np.linalg.norm(exact[0] - exact[1]), rel=2**-9
    )
