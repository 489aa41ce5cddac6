"""The table of the comparison with PyTorch: like with like, and the strongest rival."""

from __future__ import annotations

import re

import pytest

from benchmarks import pytorch_comparison
from benchmarks.common import FLOWERS, link_images

SLOW, FAST, *_ = pytorch_comparison.VARIANTS


def test_the_fastest_rival_counts_and_is_named():
    """Oracle: by hand. Ratios to FAST by round 2, 1.5 and 3: the median is 2, not that of medians."""
    rates = {
        "alexnet": [20.0, 30.0, 60.0],
        SLOW: [5.0, 6.0, 10.0],
        FAST: [10.0, 20.0, 20.0],
        "the notebook": [40.0, 40.0, 40.0],
    }
    *table, last = pytorch_comparison.comparison(rates, "float32")
    assert last == (
        f"alexnet is 2.00 times as fast as the fastest in PyTorch ({FAST}), both float32"
    )
    assert f"| {FAST} | 20.0 | 10.0 to 20.0 | 2.00 |" in table
    assert f"| {SLOW} | 6.0 | 5.0 to 10.0 | 5.00 |" in table
    assert "| alexnet | 30.0 | 20.0 to 60.0 |  |" in table
    assert "| the notebook | 40.0 | 40.0 to 40.0 | 0.75 |" in table


def test_every_option_of_a_variant_is_one_that_the_program_knows():
    """Oracle: the words that the program itself asks for."""
    known = set(re.findall(r'"([a-z-]+)" in options', pytorch_comparison.TORCH))
    used = {word for options in pytorch_comparison.VARIANTS.values() for word in options.split()}
    assert used == known


@pytest.mark.parametrize(("at_least", "times"), [(1, 1), (200, 1), (201, 2), (1000, 5)])
def test_images_are_linked_as_often_as_needed(tmp_path, at_least, times):
    """Oracle: by hand; examples/flowers has 200 images."""
    data = link_images(FLOWERS, tmp_path / "data", at_least)
    train = list((data / "train").glob("*/*"))
    assert len(train) == 200 * times >= at_least
    assert len({path.resolve() for path in train}) == 200
    val = list((data / "val").glob("*/*"))
    assert len(val) == 40
    assert {path.parent.name for path in val} == {path.parent.name for path in train}
