"""A tiny network and a tiny data set that it can learn, for all tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_cli.recipes import presets
from alexnet_cli.system import tensorflow_startup

# The paper's network with every kind of layer, and every width and size as small as it can be.
_WIDTHS = (8, 12, 8, 8, 8)
TINY = replace(
    presets.PAPER,
    name="tiny",
    resize_size=72,
    crop_size=64,
    convs=tuple(replace(c, filters=w) for c, w in zip(presets.PAPER.convs, _WIDTHS)),
    dense=tuple(replace(d, units=16) for d in presets.PAPER.dense),
    batch_size=8,
    epochs=2,
)
tensorflow_startup.load_tensorflow()  # before any test module imports it aloud

COLORS = {"blue": (40, 60, 190), "green": (50, 170, 60), "red": (200, 50, 40)}


def paint(folder: Path, per_class: int, seed: int = 0) -> Path:
    """Make a folder of class folders of noisy single-color photographs, 80×90 pixels."""
    random = np.random.default_rng(seed)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.array(color) + random.normal(0, 25, (80, 90, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Three classes of 12 photographs each; do not write into it."""
    return paint(tmp_path_factory.mktemp("photographs") / "colors", per_class=12)
