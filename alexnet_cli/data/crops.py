"""Crops without randomness: windows of decoded images minus the mean, center crop and ten crops."""

from __future__ import annotations

import numpy as np

from alexnet_cli.data.images import Float32Array, UInt8Array
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.recipes.hyperparameters import Recipe


class WindowCutter:
    """Cuts windows out of decoded images and subtracts the mean."""

    def __init__(self, recipe: Recipe, statistics: Statistics) -> None:
        """Compute the mean of `recipe`; `margin` is by how many pixels a window can be moved."""
        self.recipe, self.mean = recipe, statistics.mean(recipe)
        self.margin = recipe.resize_size - recipe.crop_size

    def cut(self, image: UInt8Array, top: int, left: int, out: Float32Array) -> None:
        """Write to `out` (crop_size, crop_size, 3) the window at (`top`, `left`) minus the mean.

        `image` is uint8 with at least crop_size rows and columns from there on.
        """
        window = self._window(top, left)
        # A randomly scaled crop corresponds to no single window of the mean.
        centered = self.recipe.mean == "center" or self.recipe.crop_area is not None
        mean = self.center_mean() if centered else self.mean[window]
        np.subtract(image[window], mean, out=out)

    def center_mean(self) -> Float32Array:
        """Return the mean that is subtracted from the center crop: (crop_size, crop_size, 3)."""
        return self.mean[self._window(self.margin // 2, self.margin // 2)]

    def _window(self, top: int, left: int) -> tuple[slice, slice]:
        size = self.recipe.crop_size
        return slice(top, top + size), slice(left, left + size)


def mirror(crops: Float32Array, out: Float32Array) -> None:
    """Write the horizontal reflections of `crops` (…, height, width, 3) to `out`."""
    # Three times as fast as assigning a reversed slice.
    np.take(crops, np.arange(crops.shape[-2])[::-1], axis=-2, out=out, mode="clip")


class Cropper(WindowCutter):
    """Cuts the center crop, or the ten crops of section 4.1, scaled as in training."""

    def __init__(self, recipe: Recipe, statistics: Statistics, *, ten: bool = False) -> None:
        """Prepare the center window; with `ten` also the corners, and the reflections of all."""
        super().__init__(recipe, statistics)
        middle, end = self.margin // 2, self.margin
        self.corners = [(middle, middle)]
        if ten:
            self.corners += [(0, 0), (0, end), (end, 0), (end, end)]
        self.mirror = ten

    def __call__(self, image: UInt8Array) -> Float32Array:
        """Return the crops of `image`, float32 (1 or 10, crop_size, crop_size, 3).

        `image` is uint8 (resize_size, resize_size, 3). The center crop comes first, reflections
        last.
        """
        size, n = self.recipe.crop_size, len(self.corners)
        crops: Float32Array = np.empty((n * (1 + self.mirror), size, size, 3), np.float32)
        for (top, left), out in zip(self.corners, crops):
            self.cut(image, top, left, out)
        if self.mirror:
            mirror(crops[:n], crops[n:])
        crops *= np.float32(self.recipe.scale)
        return crops
