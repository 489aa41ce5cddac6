"""What several test modules share: a network that trains in seconds, and comparisons of runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from conftest import TINY

from alexnet_cli.runs.weights_file import load_arrays, load_notes
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.devices import choose_devices

# Wide enough draws for a network this narrow; the rest is the paper's.
QUICK = replace(
    TINY,
    convs=tuple(replace(conv, stddev=None) for conv in TINY.convs),
    dense=tuple(replace(layer, units=32, stddev=None, dropout=0.2) for layer in TINY.dense),
    output_stddev=None,
    color_noise=0.02,
    batch_size=4,
    epochs=4,
)


def run(data, out, recipe=QUICK, **options):
    return start_and_resume.train(
        data, recipe=recipe, devices=choose_devices(0, "float32"), out=out, **options
    )


def assert_same_run(one: Path, two: Path):
    """Every array of the last state bit for bit, and the same history but for its timings."""
    a, b = load_arrays(one / "last.npz"), load_arrays(two / "last.npz")
    notes = [load_notes(arrays) for arrays in (a, b)]
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    for note in notes:
        for row in note["history"]:
            del row["seconds"], row["images_per_second"]
    assert notes[0] == notes[1]
