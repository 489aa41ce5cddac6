"""Noise for the tests of image data: images, files and statistics that differ at every pixel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet_cli.data.images import UInt8Array
from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.data.statistics import Statistics


def noise_image(height: int = 72, width: int = 72, seed: int = 3) -> UInt8Array:
    """Return uint8 (height, width, 3), uniform over 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(seed: int) -> Image.Image:
    """Return an image of 80×90 pixels with a few large shapes, unlike that of any other seed."""
    return Image.fromarray(noise_image(7, 8, seed)).resize((80, 90), Image.Resampling.BICUBIC)


def noise_files(folder: Path) -> list[Path]:
    """Write six PNG files of different shapes."""
    paths = [folder / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        Image.fromarray(noise_image(90 + 7 * number, 80, seed=number)).save(path)
    return paths


def image_files(paths: Iterable[Path]) -> list[ImageFile]:
    """Return them without class, split or SHA-256."""
    return [ImageFile(path) for path in paths]


def noise_statistics(
    mean: npt.NDArray[np.float32] | None = None, covariance: npt.NDArray[np.float64] | None = None
) -> Statistics:
    """Return statistics of 72x72 pixels, by default with a mean that differs at every pixel."""
    if mean is None:
        mean = np.random.default_rng(4).uniform(90, 160, (72, 72, 3)).astype(np.float32)
    return Statistics(mean, np.eye(3) if covariance is None else covariance)
