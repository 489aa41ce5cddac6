"""From decoded images to the crops that the network sees, with noise and without.

All of it is NumPy and Pillow, and all randomness is keyed by (seed, epoch, image): the same crop comes
out whatever the number of threads, devices or interruptions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from alexnet_cli.data import images
from alexnet_cli.data.store import Float32Array, Statistics
from alexnet_cli.recipes.hyperparameters import Recipe


class _Cutter:
    """Cuts windows out of stored images and subtracts the mean."""

    def __init__(self, recipe: Recipe, statistics: Statistics) -> None:
        """Prepare what all images share."""
        self.recipe, self.mean = recipe, statistics.mean(recipe)
        self.room = recipe.resize_size - recipe.crop_size

    def cut(self, image: images.UInt8Array, top: int, left: int, out: Float32Array) -> None:
        """Write to `out` (crop_size, crop_size, 3) the window at `top`, `left`, minus its mean."""
        window = self._window(top, left)
        # A scaled crop lies at no one place.
        centered = self.recipe.mean == "center" or self.recipe.crop_area is not None
        mean = self.mean[self._window(self.room // 2, self.room // 2) if centered else window]
        np.subtract(image[window], mean, out=out)

    def _window(self, top: int, left: int) -> tuple[slice, slice]:
        size = self.recipe.crop_size
        return slice(top, top + size), slice(left, left + size)


def _mirror(crops: Float32Array, out: Float32Array) -> None:
    """Write to `out` the crops (…, height, width, 3) reflected, three times as fast as by a slice."""
    np.take(crops, np.arange(crops.shape[-2])[::-1], axis=-2, out=out, mode="clip")


def _scaled_crop(
    image: images.UInt8Array, least_area: float, size: int, random: np.random.Generator
) -> images.UInt8Array:
    """Resize a window of random area and shape to (size, size, 3)."""
    width = height = 2.0  # of the image
    while max(width, height) > 1:
        area = random.uniform(least_area, 1)
        shape = math.exp(random.uniform(-1, 1) * math.log(4 / 3))
        width, height = math.sqrt(area * shape), math.sqrt(area / shape)
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    side = len(image)
    box = (left * side, top * side, (left + width) * side, (top + height) * side)
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box)
    return np.asarray(resized)


def _turned(
    image: images.UInt8Array,
    most: float,
    outside: tuple[int, int, int],
    random: np.random.Generator,
) -> images.UInt8Array:
    """Rotate about the center by up to `most` degrees either way; corners get the color `outside`."""
    picture, angle = Image.fromarray(image), random.uniform(-most, most)
    return np.asarray(picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=outside))


def _jittered(
    image: images.UInt8Array, amount: float, random: np.random.Generator
) -> images.UInt8Array:
    """Change brightness, contrast and saturation, in random order, each by a factor near 1."""
    picture = Image.fromarray(image)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for number in random.permutation(len(enhancers)):
        picture = enhancers[number](picture).enhance(random.uniform(1 - amount, 1 + amount))
    return np.asarray(picture)


class Augmenter(_Cutter):
    """Random crop, horizontal flip and color noise (section 4.1), then mean and scale.

    Where a recipe asks for it: turned, cropped at random scales, light and colors varied.
    """

    def __init__(self, recipe: Recipe, statistics: Statistics) -> None:
        """Prepare what all images share."""
        super().__init__(recipe, statistics)
        self.color_axes = statistics.color_axes()
        red, green, blue = statistics.mean_image.mean(axis=(0, 1)).round().astype(int).tolist()
        self.mean_color = red, green, blue

    def __call__(
        self, image: images.UInt8Array, key: tuple[int, int, int, int], out: Float32Array
    ) -> None:
        """Write one augmented crop of `image` to `out`, drawn by `key`.

        `image`: uint8 (resize_size, resize_size, 3); `out`: float32 (crop_size, crop_size, 3).
        `key`: (seed, epoch, number of the image, its position in the epoch's order); the position
        tells which images share their crop, if the recipe wants that.
        """
        recipe, (seed, epoch, index, position) = self.recipe, key
        random = where = np.random.default_rng((seed, epoch, index))
        if recipe.shared_crop > 1:
            where = np.random.default_rng((seed, epoch, position // recipe.shared_crop, 1))
        if recipe.rotation:
            image = _turned(image, recipe.rotation, self.mean_color, random)
        if recipe.crop_area is None:
            top, left = where.integers(0, self.room + 1, size=2)
        else:
            image = _scaled_crop(image, recipe.crop_area, recipe.crop_size, where)
            top = left = 0
        if recipe.jitter:
            image = _jittered(image, recipe.jitter, random)
        if recipe.flip and where.random() < 0.5:
            crop = np.empty_like(out)
            self.cut(image, top, left, crop)
            _mirror(crop, out)
        else:
            self.cut(image, top, left, out)
        if recipe.color_noise and not recipe.reached(recipe.noise_until, epoch):
            shift = self.color_shift(random).astype(np.float32)
            rows = out.reshape(len(out), -1)
            rows += np.tile(shift, len(out))  # NumPy crawls where the innermost loop is three long
            if recipe.noise_divisor != 1:
                out /= np.float32(recipe.noise_divisor)
        if recipe.scale != 1:
            out *= np.float32(recipe.scale)

    def foreign_window(self, key: tuple[int, int, int]) -> tuple[slice, slice] | None:
        """Draw which rows and columns of a crop are another image's, if any (cutmix).

        Its area is uniform, its center anywhere, its shape the crop's (Yun et al. 2019, section
        3.1). `key`: (seed, epoch, number of the image).
        """
        random = np.random.default_rng((*key, 2))
        if random.random() >= self.recipe.cutmix:
            return None
        size = self.recipe.crop_size
        half = size * math.sqrt(random.random()) / 2
        top, left = (
            slice(max(round(middle - half), 0), min(round(middle + half), size))
            for middle in random.uniform(0, size, 2)
        )
        return top, left

    def color_shift(self, random: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw what is added to every pixel's R, G and B: Σ p_i · α_i · √λ_i."""
        return self.color_axes @ random.normal(0, self.recipe.color_noise, size=3)


class Cropper(_Cutter):
    """The center crop, or the ten crops of section 4.1, without randomness."""

    def __init__(self, recipe: Recipe, statistics: Statistics, *, ten: bool = False) -> None:
        """Prepare the windows: the center alone, or center, corners and their reflections."""
        super().__init__(recipe, statistics)
        middle, end = self.room // 2, self.room
        self.corners = [(middle, middle)]
        if ten:
            self.corners += [(0, 0), (0, end), (end, 0), (end, end)]
        self.mirror = ten

    def center_mean(self) -> Float32Array:
        """Return what is subtracted from the center crop: (crop_size, crop_size, 3)."""
        return self.mean[self._window(self.room // 2, self.room // 2)]

    def __call__(self, image: images.UInt8Array) -> Float32Array:
        """Return float32 of shape (1 or 10, crop_size, crop_size, 3); the center comes first."""
        size, n = self.recipe.crop_size, len(self.corners)
        crops: Float32Array = np.empty((n * (1 + self.mirror), size, size, 3), np.float32)
        for (top, left), out in zip(self.corners, crops):
            self.cut(image, top, left, out)
        if self.mirror:
            _mirror(crops[:n], crops[n:])
        crops *= np.float32(self.recipe.scale)
        return crops
