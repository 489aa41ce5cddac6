"""Data augmentation: random crops, reflections, color noise and what else a recipe asks for.

All randomness is keyed by (seed, epoch, image): the result is the same whatever the number of threads
or devices, and after an interruption.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet_cli.data.crops import WindowCutter, mirror
from alexnet_cli.data.images import Float32Array, UInt8Array
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.data.trivial_augment import trivial_augment
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.system.random_streams import random_stream


class Augmenter(WindowCutter):
    """Cuts one random crop of an image: window, horizontal flip, mean, color noise (section 4.1).

    If the recipe says so, the image is first rotated, cropped at a random scale, jittered in color
    and changed by TrivialAugment.
    """

    def __init__(self, recipe: Recipe, statistics: Statistics) -> None:
        """Compute the principal components of the colors and the mean color."""
        super().__init__(recipe, statistics)
        self.color_axes = statistics.color_axes()
        red, green, blue = statistics.mean_image.mean(axis=(0, 1)).round().astype(int).tolist()
        self.mean_color = red, green, blue

    def __call__(
        self, image: UInt8Array, key: tuple[int, int, int, int], out: Float32Array
    ) -> None:
        """Write one random crop of `image` to `out`.

        `image`: uint8 (resize_size, resize_size, 3). `out`: float32 (crop_size, crop_size, 3).
        `key`: (seed, epoch, index of the image, its position in the order of the epoch). The
        position decides which images share a window, if `recipe.shared_crop` is above 1.
        """
        recipe, (seed, epoch, index, position) = self.recipe, key
        random = window_random = random_stream(seed, "crop", epoch, index)
        if recipe.shared_crop > 1:
            group = position // recipe.shared_crop
            window_random = random_stream(seed, "shared crop", epoch, group)
        if recipe.rotation:
            image = _rotate(image, recipe.rotation, self.mean_color, random)
        if recipe.crop_area is None:
            top, left = window_random.integers(0, self.margin + 1, size=2)
        else:
            image = _random_resized_crop(image, recipe.crop_area, recipe.crop_size, window_random)
            top = left = 0
        if recipe.jitter:
            image = _jitter(image, recipe.jitter, random)
        if recipe.trivial_augment:
            image = trivial_augment(image, self.mean_color, random)
        if recipe.flip and window_random.random() < 0.5:
            crop = np.empty_like(out)
            self.cut(image, top, left, crop)
            mirror(crop, out)
        else:
            self.cut(image, top, left, out)
        if recipe.color_noise and not recipe.reached(recipe.noise_until, epoch):
            shift = self.color_shift(random).astype(np.float32)
            rows = out.reshape(len(out), -1)
            rows += np.tile(shift, len(out))  # NumPy is slow if the innermost axis has length 3
            if recipe.noise_divisor != 1:
                out /= np.float32(recipe.noise_divisor)
        if recipe.scale != 1:
            out *= np.float32(recipe.scale)

    def cutmix_window(self, key: tuple[int, int, int]) -> tuple[slice, slice] | None:
        """Draw the rows and columns of a crop that show another image (CutMix), or None.

        The area of the window is uniform, its center uniform over the crop, its aspect ratio that
        of the crop (Yun et al. 2019, section 3.1). `key`: (seed, epoch, index of the image).
        """
        random = random_stream(key[0], "cutmix", *key[1:])
        if random.random() >= self.recipe.cutmix:
            return None
        size = self.recipe.crop_size
        half = size * math.sqrt(random.random()) / 2
        rows, columns = (
            slice(max(round(middle - half), 0), min(round(middle + half), size))
            for middle in random.uniform(0, size, 2)
        )
        return rows, columns

    def color_shift(self, random: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw the (3,) color noise that is added to R, G and B of every pixel: Σ p_i · α_i · √λ_i.

        α_i is normal with standard deviation `recipe.color_noise` (section 4.1).
        """
        return self.color_axes @ random.normal(0, self.recipe.color_noise, size=3)


def _random_resized_crop(
    image: UInt8Array, least_area: float, size: int, random: np.random.Generator
) -> UInt8Array:
    """Return a window of random area and aspect ratio, resized to (size, size, 3).

    The area is uniform between `least_area` and 1 of the image, the logarithm of the aspect ratio
    between those of 3:4 and 4:3, both given that the window fits into the image.
    """
    # Windows of this area or more do not fit beyond it; within it about half of the draws or more do.
    widest = min(math.log(4 / 3), -math.log(least_area))
    width = height = 2.0  # as fractions of the image
    while max(width, height) > 1:
        area = random.uniform(least_area, 1)
        aspect = math.exp(random.uniform(-1, 1) * widest)
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    side = len(image)
    box = (left * side, top * side, (left + width) * side, (top + height) * side)
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box)
    return np.asarray(resized)


def _rotate(
    image: UInt8Array,
    max_degrees: float,
    fill: tuple[int, int, int],
    random: np.random.Generator,
) -> UInt8Array:
    """Rotate about the center by up to `max_degrees` either way; corners get the color `fill`."""
    angle = random.uniform(-max_degrees, max_degrees)
    rotated = Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)
    return np.asarray(rotated)


# The luminance of R, G and B, as Pillow converts to gray (ITU-R BT.601).
_GRAY = np.array([0.299, 0.587, 0.114])


def _jitter(image: UInt8Array, amount: float, random: np.random.Generator) -> UInt8Array:
    """Change brightness, contrast and saturation in random order, each by a factor 1 ± `amount`.

    Each is a blend: with black, with the mean gray of the image, with its gray image. All three are
    linear in the colors, so one pass with the product of their matrices does it; values are rounded
    and clipped at its end.
    """
    mean = image.reshape(len(image), -1).sum(axis=0, dtype=np.uint32)  # fast, as rows are long
    mean = mean.reshape(-1, 3).sum(axis=0) * 3 / image.size
    matrix, shift = np.eye(3), np.zeros(3)
    for number in random.permutation(3):
        factor = random.uniform(1 - amount, 1 + amount)
        gray = _GRAY @ (matrix @ mean + shift)
        change = factor * np.eye(3) + ((1 - factor) * _GRAY if number == 2 else 0)
        matrix, shift = change @ matrix, change @ shift
        if number == 1:
            shift += (1 - factor) * gray
    changed = Image.fromarray(image).convert("RGB", tuple(np.c_[matrix, shift].ravel()))
    return np.asarray(changed)
