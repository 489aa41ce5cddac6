"""TrivialAugment against formulas in NumPy for each operation, and the odds that its paper gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY
from noise import noise_image, noise_statistics
from PIL import Image

from alexnet_cli.data import trivial_augment as module
from alexnet_cli.data.augment import Augmenter
from alexnet_cli.data.trivial_augment import OPERATIONS, trivial_augment

FILL = (10, 200, 90)
IDENTITY, AUTOCONTRAST, EQUALIZE, POSTERIZE, SOLARIZE = range(5)
BRIGHTNESS, COLOR, CONTRAST, SHARPNESS = range(5, 9)
ROTATE, SHEAR_X, SHEAR_Y, SHIFT_X, SHIFT_Y = range(9, 14)


def change(pixels, operation, strength):
    changed = OPERATIONS[operation](Image.fromarray(pixels), strength, FILL)
    return np.asarray(changed).astype(float)


def muted():
    """Return an image of 40 to 200, which an enhancer of half the strength does not clip."""
    return (40 + noise_image().astype(np.uint16) * 160 // 255).astype(np.uint8)


@pytest.mark.parametrize(("strength", "bits"), [(0, 8), (0.5, 5), (-0.5, 5), (1, 2)])
def test_posterize_keeps_the_upper_bits(strength, bits):
    pixels = noise_image()
    kept = pixels // 2 ** (8 - bits) * 2 ** (8 - bits)
    np.testing.assert_array_equal(change(pixels, POSTERIZE, strength), kept)


@pytest.mark.parametrize("strength", [0, 0.2, -0.6, 1])
def test_solarize_inverts_what_is_bright(strength):
    """Oracle: thresholds from 256, which leaves even white, to 0."""
    pixels = noise_image()
    pixels[0] = 255
    inverted = np.where(pixels >= round(256 * (1 - abs(strength))), 255 - pixels, pixels)
    np.testing.assert_array_equal(change(pixels, SOLARIZE, strength), inverted)


@pytest.mark.parametrize("strength", [-1, -0.5, 0, 0.2])
def test_enhancers_blend_by_factors_from_a_hundredth(strength):
    """Oracle: black, the mean gray or the gray image, blended with the image by 1 + 0.99 strength."""
    pixels, factor = muted(), 1 + 0.99 * strength
    gray = (pixels @ (0.299, 0.587, 0.114))[..., None]
    for operation, base in ((BRIGHTNESS, 0), (COLOR, gray), (CONTRAST, gray.mean())):
        blended = base + factor * (pixels - base)
        np.testing.assert_allclose(change(pixels, operation, strength), blended, atol=2)


@pytest.mark.parametrize("strength", [-1, -0.5, 0, 0.5])
def test_sharpness_blurs_or_sharpens(strength):
    """Oracle: the image blended with its mean of 3×3 pixels, of which the middle counts five times."""
    pixels, factor = muted().astype(float), 1 + 0.99 * strength
    rows = [pixels[1 + down : 71 + down] for down in (-1, 0, 1)]
    near = [row[:, 1 + right : 71 + right] for row in rows for right in (-1, 0, 1)]
    middle = near[4]
    smooth = (sum(near) + 4 * middle) / 13
    changed = change(pixels.astype(np.uint8), SHARPNESS, strength)[1:71, 1:71]
    np.testing.assert_allclose(changed, smooth + factor * (middle - smooth), atol=2)


def test_autocontrast_stretches_each_color_to_the_whole_range():
    pixels = muted().astype(float)
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    stretched = (pixels - low) / (high - low) * 255
    changed = change(pixels.astype(np.uint8), AUTOCONTRAST, 0.3)
    np.testing.assert_allclose(changed, stretched, atol=1)


def test_equalize_makes_values_uniform():
    """Oracle: each value goes to its rank among all pixels of its color, in 256 steps."""
    pixels = (noise_image().astype(float) ** 2 / 255).astype(np.uint8)  # mostly dark
    changed = change(pixels, EQUALIZE, 0.3)
    for color in range(3):
        values = pixels[..., color].ravel()
        rank = np.searchsorted(np.sort(values), values) / values.size
        np.testing.assert_allclose(changed[..., color].ravel(), 255 * rank, atol=8)


# Output places (x, y) from the center → the input places that they show; sides are 71.
ANGLE = np.radians(135 / 2)
MAPS = {
    ROTATE: lambda x, y: (
        np.cos(ANGLE) * x - np.sin(ANGLE) * y,
        np.sin(ANGLE) * x + np.cos(ANGLE) * y,
    ),
    SHEAR_X: lambda x, y: (x + 0.99 / 2 * y, y),
    SHEAR_Y: lambda x, y: (x, y + 0.99 / 2 * x),
    SHIFT_X: lambda x, y: (x + 71 / 7 / 2, y),
    SHIFT_Y: lambda x, y: (x, y + 71 / 7 / 2),
}


@pytest.mark.parametrize("operation", MAPS)
def test_an_image_moves_about_its_center_and_what_comes_into_view_is_filled(operation):
    """Oracle: a picture of its own coordinates, 0 to 210, tells where each pixel came from."""
    x, y = np.meshgrid(np.arange(71) - 35.0, np.arange(71) - 35.0)
    pixels = np.stack([(x + 35) * 3, (y + 35) * 3, 0 * x], axis=-1).astype(np.uint8)
    changed = change(pixels, operation, 0.5)
    from_x, from_y = MAPS[operation](x, y)
    inside = np.maximum(abs(from_x), abs(from_y))
    seen, beyond = inside < 34, inside > 36
    expected = np.stack([from_x + 35, from_y + 35], axis=-1) * 3
    np.testing.assert_allclose(changed[seen][:, :2], expected[seen], atol=3)
    assert beyond.any()
    np.testing.assert_array_equal(changed[beyond], np.broadcast_to(FILL, (beyond.sum(), 3)))


def test_operations_and_strengths_are_uniform(monkeypatch):
    """Oracle: of 14 each a 14th, within five standard deviations; 0 to 30 thirtieths either way.

    Their mean square is 30 · 61 / 6 / 900.
    """
    drawn = []
    recorders = [
        lambda image, strength, fill, number=number: drawn.append((number, strength)) or image
        for number in range(14)
    ]
    assert len(OPERATIONS) == len(recorders)
    monkeypatch.setattr(module, "OPERATIONS", recorders)
    random, n = np.random.default_rng(5), 7000
    for _ in range(n):
        trivial_augment(noise_image(2, 2), FILL, random)
    numbers, strengths = np.transpose(drawn)
    counts = np.bincount(numbers.astype(int))
    assert np.abs(counts - n / 14).max() < 5 * np.sqrt(n / 14 * 13 / 14)
    assert {round(30 * abs(strength), 9) for strength in strengths} == set(range(31))
    squares, mean_square = strengths**2, 30 * 61 / 6 / 900
    assert abs(strengths.mean()) < 5 * np.sqrt(mean_square / n)
    assert abs(squares.mean() - mean_square) < 5 * squares.std() / np.sqrt(n)


def test_a_recipe_changes_each_image_by_one_operation():
    """Oracle: the share of images that stay as they are, and of those with a corner that was outside.

    One operation of 14 does nothing; at one strength of 31 neither do eleven others, and posterize
    keeps all bits at three. Rotations, both directions of shifts and half of the shears move a
    tested corner out of view if they are not weak. The corner has then the mean color.
    """
    recipe = replace(TINY, crop_size=72, flip=False, color_noise=0.0, mean="none")
    found, pixels, n = noise_statistics(), noise_image().clip(1, 254), 1500
    augment = Augmenter(replace(recipe, trivial_augment=True), found)
    out = np.empty((72, 72, 3), np.float32)
    same = filled = 0
    mean = found.mean_image.mean(axis=(0, 1)).round()
    for number in range(n):
        augment(pixels, (0, 1, number, number), out)
        same += np.array_equal(out, pixels)
        filled += np.array_equal(out[0, 0], mean) or np.array_equal(out[-1, -1], mean)
    share = (1 + 11 / 31 + 3 / 31) / 14
    assert abs(same / n - share) < 5 * np.sqrt(share * (1 - share) / n)
    assert 3 / 14 < filled / n < 4 / 14
