"""The statistics of the benchmarks, whose programs themselves run too long for a test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.ablations import difference, student_t95, welch_margin


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (1e6, 1.960)]
)
def test_student_t_agrees_with_the_printed_tables(freedom, t):
    """Oracle: the table of any textbook, to its three digits."""
    assert student_t95(freedom) == pytest.approx(t, abs=6e-4)


def test_student_t_for_a_fraction_of_a_degree_of_freedom():
    """Oracle: the density of Student's t with 50/17 degrees, integrated from −t to t: 95 %."""
    v = 50 / 17
    x = np.linspace(-student_t95(v), student_t95(v), 200_001)
    scale = math.gamma((v + 1) / 2) / math.gamma(v / 2) / math.sqrt(math.pi * v)
    assert np.trapezoid(scale * (1 + x**2 / v) ** (-(v + 1) / 2), x) == pytest.approx(
        0.95, abs=1e-6
    )


def test_the_interval_of_a_difference_is_that_of_welch():
    """Oracle: by hand.

    1, 2, 3 and 4, 5, 6: variances 1 and 1, so the error of the difference is √(1/3 + 1/3) = 0.816,
    with (2/3)² / (1/9/2 + 1/9/2) = 4 degrees: 2.776 × 0.816 = 2.27. With two degrees it was 3.5.
    1, 2, 3 and 2, 2, 2: 1/√3 = 0.577, with two degrees: 4.303 × 0.577 = 2.48.
    """
    assert difference([4, 5, 6], [1, 2, 3]) == "+3.0 ± 2.3"
    assert difference([1, 2, 3], [2, 2, 2]) == "+0.0 ± 2.5"
    assert welch_margin([2, 2], [2, 2]) == 0.0
    assert difference([4], [1, 2, 3]) == "+2.0"  # one value has no variance
