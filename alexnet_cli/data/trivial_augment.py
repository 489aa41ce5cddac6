"""TrivialAugment: one random operation of random strength on each image (Müller and Hutter 2021)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from alexnet_cli.data.images import UInt8Array

Color = tuple[int, int, int]
# image, strength from −1 to 1, color of what comes into view → image
Operation = Callable[[Image.Image, float, Color], Image.Image]

STRENGTHS = 31  # steps from 0 to the strongest


def trivial_augment(image: UInt8Array, fill: Color, random: np.random.Generator) -> UInt8Array:
    """Return `image`, uint8 (height, width, 3), changed by one of `OPERATIONS`.

    Operation and strength are uniform, as is the direction of those that have one. Places that come
    into view get the color `fill`.
    """
    operation = OPERATIONS[random.integers(len(OPERATIONS))]
    strength = random.integers(STRENGTHS) / (STRENGTHS - 1) * random.choice((-1, 1))
    return np.asarray(operation(Image.fromarray(image), strength, fill))


def _enhance(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Return an operation whose factor is 0.01 to 1.99."""
    return lambda image, strength, _: enhancer(image).enhance(1 + 0.99 * strength)


def _shear(image: Image.Image, x: float, y: float, fill: Color) -> Image.Image:
    """Shear about the center: a place so far below it moves by `x` times as much to the left."""
    width, height = image.size
    return _affine(image, (1, x, -x * height / 2, y, 1, -y * width / 2), fill)


def _shift(image: Image.Image, x: float, y: float, fill: Color) -> Image.Image:
    """Shift by up to 1/7 of the side: 32 pixels of 224."""
    width, height = image.size
    return _affine(image, (1, 0, x * width / 7, 0, 1, y * height / 7), fill)


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Color) -> Image.Image:
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return image.transform(image.size, affine, matrix, bilinear, fillcolor=fill)


def _rotate(image: Image.Image, strength: float, fill: Color) -> Image.Image:
    return image.rotate(135 * strength, Image.Resampling.BILINEAR, fillcolor=fill)


# The paper's "wide" space, with pixels as parts of the side. The authors turn and shear about a corner
# of the image and fill with black, and let the strength of an enhancer run from 0.01 to 2.
OPERATIONS: tuple[Operation, ...] = (
    lambda image, strength, fill: image,
    lambda image, strength, fill: ImageOps.autocontrast(image),
    lambda image, strength, fill: ImageOps.equalize(image),
    lambda image, strength, fill: ImageOps.posterize(image, 8 - round(6 * abs(strength))),
    lambda image, strength, fill: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Sharpness),
    _rotate,
    lambda image, strength, fill: _shear(image, 0.99 * strength, 0, fill),
    lambda image, strength, fill: _shear(image, 0, 0.99 * strength, fill),
    lambda image, strength, fill: _shift(image, strength, 0, fill),
    lambda image, strength, fill: _shift(image, 0, strength, fill),
)
