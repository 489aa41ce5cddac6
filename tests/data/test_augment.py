"""Augmentation against windows cut by hand and the distributions that the recipes promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY
from noise import noise_image, noise_statistics
from PIL import Image, ImageEnhance

from alexnet_cli.data.augment import Augmenter, _jitter, _random_resized_crop

STILL = replace(TINY, flip=False, color_noise=0.0)


def augment(image, key, recipe, stats):
    out = np.empty((recipe.crop_size, recipe.crop_size, 3), np.float32)
    Augmenter(recipe, stats)(image, (*key, *range(len(key), 4)), out)
    return out


def test_every_crop_is_a_window_of_image_minus_mean():
    """Oracle: each of the 81 windows, with and without flip, cut out of the whole difference.

    By the law of large numbers all 9 offsets of each axis and both flips come up about
    as often: within five standard deviations of a binomial.
    """
    image = noise_image()
    stats = noise_statistics()
    recipe = replace(TINY, color_noise=0.0)
    whole = image.astype(np.float32) - stats.mean_image
    windows = {}
    for top in range(9):
        for left in range(9):
            window = whole[top : top + 64, left : left + 64]
            windows[window[0, 0].tobytes(), window[0, 1].tobytes()] = (top, left, False, window)
            mirrored = window[:, ::-1]
            corner = (mirrored[0, 0].tobytes(), mirrored[0, 1].tobytes())
            windows[corner] = (top, left, True, mirrored)
    assert len(windows) == 162
    n = 900
    seen = []
    for index in range(n):
        crop = augment(image, (0, 1, index), recipe, stats)
        top, left, flipped, expected = windows[crop[0, 0].tobytes(), crop[0, 1].tobytes()]
        np.testing.assert_array_equal(crop, expected)
        seen.append((top, left, flipped))
    for column, n_values in ((0, 9), (1, 9), (2, 2)):
        counts = np.unique([row[column] for row in seen], return_counts=True)[1]
        spread = np.sqrt(n * (1 / n_values) * (1 - 1 / n_values))
        assert len(counts) == n_values
        assert np.abs(counts - n / n_values).max() < 5 * spread


def test_color_noise_follows_the_covariance():
    """Oracle: Σ p_i·α_i·√λ_i with α ~ N(0, 0.1) has covariance 0.01 · C, and is one per image."""
    mixing = np.random.default_rng(5).normal(size=(3, 3)) * 40
    covariance = mixing @ mixing.T
    stats = noise_statistics(mean=np.zeros((72, 72, 3), np.float32), covariance=covariance)
    recipe = replace(TINY, flip=False)
    black = np.zeros((72, 72, 3), np.uint8)
    shifts = []
    for index in range(4000):
        crop = augment(black, (0, 1, index), replace(recipe, resize_size=72), stats)
        if index < 5:  # the same for every pixel
            np.testing.assert_array_equal(crop, np.broadcast_to(crop[0, 0], crop.shape))
        shifts.append(crop[0, 0].astype(float))
    found = np.cov(np.array(shifts).T, bias=True)
    variances = 0.01 * np.diag(covariance)
    error = 0.01 * np.sqrt((covariance**2 + np.outer(*2 * [np.diag(covariance)])) / 4000)
    assert (np.abs(found - 0.01 * covariance) < 5 * error).all()
    assert (np.abs(np.mean(shifts, axis=0)) < 5 * np.sqrt(variances / 4000)).all()


def test_scale_multiplies_after_the_mean():
    image = noise_image()
    stats, whole = noise_statistics(), replace(STILL, crop_size=72, scale=1 / 255)
    crop = augment(image, (0, 1, 0), whole, stats)
    np.testing.assert_allclose(crop, (image - stats.mean_image) / 255, rtol=1e-5, atol=1e-7)


def test_randomness_depends_only_on_seed_epoch_and_image():
    image, stats = noise_image(), noise_statistics()
    base = augment(image, (1, 2, 3), TINY, stats)
    np.testing.assert_array_equal(base, augment(image, (1, 2, 3), TINY, stats))
    for key in ((9, 2, 3), (1, 9, 3), (1, 2, 9)):
        assert not np.array_equal(base, augment(image, key, TINY, stats))


def test_the_center_of_the_mean_serves_every_crop():
    """Oracle: each window of the raw image minus one and the same mean."""
    recipe = replace(STILL, mean="center")
    image = noise_image()
    stats = noise_statistics()
    mean = stats.mean_image[4:68, 4:68]
    windows = [
        image[top : top + 64, left : left + 64] - mean for top in range(9) for left in range(9)
    ]
    for index in range(5):
        crop = augment(image, (0, 1, index), recipe, stats)
        assert sum(np.array_equal(crop, window) for window in windows) == 1


def test_shared_crop_gives_consecutive_images_one_window_but_own_colors():
    """Oracle: crops of one image at positions of the epoch, compared; 1 in 162 by chance."""
    recipe = replace(TINY, color_noise=0.0, shared_crop=32)
    image = noise_image()
    stats = noise_statistics(covariance=100 * np.eye(3))
    crops = [augment(image, (0, 1, at, at), recipe, stats) for at in range(64)]
    assert all(np.array_equal(crop, crops[0]) for crop in crops[:32])
    assert all(np.array_equal(crop, crops[32]) for crop in crops[32:])
    assert not np.array_equal(crops[0], crops[32])
    colored = replace(recipe, color_noise=0.1)
    shifts = [augment(image, (0, 1, at, at), colored, stats) - crops[0] for at in range(3)]
    assert all(np.ptp(shift.reshape(-1, 3), axis=0).max() < 1e-3 for shift in shifts)
    assert not np.allclose(shifts[0], shifts[1])


def test_color_noise_and_its_divisor_end_at_noise_until():
    """Oracle: epochs 1 and 2 of 3 are (crop + noise) ÷ 1.1, epoch 3 the crop itself."""
    recipe = replace(STILL, epochs=3, noise_until=2 / 3, noise_divisor=1.1, crop_size=72)
    image = noise_image()
    stats = noise_statistics(covariance=100 * np.eye(3))
    plain = image - stats.mean_image
    for epoch in (1, 2, 3):
        quiet = augment(image, (0, epoch, 0), recipe, stats)
        np.testing.assert_allclose(quiet, plain, rtol=1e-6)
        noisy = augment(image, (0, epoch, 0), replace(recipe, color_noise=0.1), stats)
        if epoch == 3:
            np.testing.assert_array_equal(noisy, plain)
        else:
            shift = noisy * 1.1 - plain
            np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=1e-3)
            assert np.abs(shift).max() > 0.01


def test_scaled_crops_have_the_drawn_area_and_aspect_ratio():
    """Oracle: an image whose colors are its coordinates tells where each corner of a crop was.

    Areas uniform in 0.35 to 1 have mean 0.675, less what does not fit in the image; by bounds.
    """
    size = TINY.resize_size
    place = np.linspace(0, 255, size)
    coordinates = np.stack([*np.meshgrid(place, place), np.zeros((size, size))], axis=-1)
    recipe = replace(STILL, crop_area=0.35, mean="none")
    augment, areas, shapes = Augmenter(recipe, noise_statistics()), [], []
    out = np.empty((recipe.crop_size, recipe.crop_size, 3), np.float32)
    for number in range(300):
        augment(coordinates.round().astype(np.uint8), (0, 1, number, number), out)
        width = (out[:, -1, 0] - out[:, 0, 0]).mean() / 255
        height = (out[-1, :, 1] - out[0, :, 1]).mean() / 255
        areas.append(width * height)
        shapes.append(width / height)
        np.testing.assert_allclose(out[:, :, 0].std(axis=0), 0, atol=1)  # upright: not sheared
    assert 0.33 < min(areas) < 0.40
    assert 0.85 < max(areas) <= 1
    assert 0.55 < np.mean(areas) < 0.70
    assert 0.73 < min(shapes) < 0.80
    assert 1.25 < max(shapes) < 1.37


def _windows(least_area, n):
    """Draw areas and logarithms of aspect ratios from the whole rectangle; keep those that fit."""
    random, widest = np.random.default_rng(8), math.log(4 / 3)
    area, log_aspect = random.uniform(least_area, 1, n), random.uniform(-widest, widest, n)
    fits = np.abs(log_aspect) <= -np.log(area)
    return area[fits], log_aspect[fits]


@pytest.mark.parametrize("least_area", [0.35, 0.75, 0.9, 0.9999, 1 - 1e-12])
def test_a_window_is_drawn_within_few_draws(least_area):
    """Oracle: numbers that a second generator needs to come to the same state.

    An area and an aspect ratio fit with a probability of 0.47 or more: 60 do not fit once in 1e16.
    """
    image = noise_image()
    for seed in range(100):
        used, fresh = (np.random.default_rng(seed) for _ in range(2))
        _random_resized_crop(image, least_area, 8, used)
        states = (fresh.random() and fresh.bit_generator.state for _ in range(2 * 60 + 2))
        assert used.bit_generator.state in states


@pytest.mark.parametrize("least_area", [0.35, 0.8, 0.95])
def test_windows_of_any_least_area_follow_the_same_law(least_area):
    """Oracle: uniform draws of area and logarithm of the aspect ratio, of which those that fit stay.

    Means of area and of the aspect ratio's size within five standard errors of each other. The
    image is a ramp along both axes, so that the corners of a crop tell its width and height.
    """
    side = 72
    down, right = np.mgrid[:side, :side] * 3.5
    image = np.stack([right, down, right], axis=2).round().astype(np.uint8)
    found = []
    for seed in range(2000):
        crop = _random_resized_crop(image, least_area, side, np.random.default_rng(seed))
        crop = crop.astype(float)
        width = (crop[:, -1, 0] - crop[:, 0, 0]).mean() / 3.5 / (side - 1)
        height = (crop[-1, :, 1] - crop[0, :, 1]).mean() / 3.5 / (side - 1)
        found.append((width * height, abs(np.log(width / height))))
    area, log_aspect = _windows(least_area, n=100_000 if least_area > 0.9 else 20_000)
    for one, other, rounding in zip(
        np.transpose(found), (area, np.abs(log_aspect)), (0.005, 0.005), strict=True
    ):
        error = np.hypot(one.std() / len(one) ** 0.5, other.std() / len(other) ** 0.5)
        assert one.mean() == pytest.approx(other.mean(), abs=5 * error + rounding)


def test_scaled_crops_take_the_center_of_the_mean_and_are_reflected_like_others():
    """Oracle: a uniform image minus the mean image's center, mirrored in about half of 60 draws."""
    found = noise_statistics()
    recipe = replace(TINY, crop_area=0.5, color_noise=0.0)
    augment = Augmenter(recipe, found)
    margin = (recipe.resize_size - recipe.crop_size) // 2
    center = found.mean_image[margin : margin + 64, margin : margin + 64]
    out, mirrored = np.empty((64, 64, 3), np.float32), 0
    ramp = np.broadcast_to(np.arange(72, dtype=np.uint8)[:, None] * 3, (72, 72, 3))
    for number in range(60):
        augment(ramp, (0, 1, number, number), out)
        row = (out + center).mean(axis=(0, 2))
        mirrored += row[-1] < row[0]
        augment(np.full((72, 72, 3), 7, np.uint8), (0, 1, number, number), out)
        expected = 7 - center
        np.testing.assert_allclose(out if row[-1] > row[0] else out[:, ::-1], expected, rtol=1e-5)
    assert 15 < mirrored < 45


def _jittered(pixels, amount=0.3, draws=600):
    augment = Augmenter(replace(STILL, jitter=amount, mean="none"), noise_statistics())
    out = np.empty((64, 64, 3), np.float32)
    for number in range(draws):
        augment(pixels, (0, 1, number, number), out)
        yield out


def test_jitter_changes_brightness_contrast_and_saturation_independently():
    """Oracle: factors of 1 ± 0.3, uniform, have variance 0.03, products of n have 1.03ⁿ − 1.

    Uniform gray knows brightness only, two grays contrast too, colors all three.
    """
    gray, halves, color = (np.full((72, 72, 3), 100, np.uint8) for _ in range(3))
    halves[:36] = 60
    color[..., 0] = 60
    brightness = [out.mean() / 100 for out in _jittered(gray)]
    contrast = [(out[-1] - out[0]).mean() / 40 for out in _jittered(halves)]
    saturation = [(out[..., 1] - out[..., 0]).mean() / 40 for out in _jittered(color)]
    for n, factors in enumerate((brightness, contrast, saturation), start=1):
        assert 0.7**n - 0.02 < min(factors) < max(factors) < 1.3**n + 0.02
        assert np.mean(factors) == pytest.approx(1, abs=0.05)
        assert np.var(factors) == pytest.approx(1.03**n - 1, rel=0.2)


def test_jitter_is_that_of_pillow():
    """Oracle: Pillow's three enhancers, one after the other, each of which rounds down.

    The values of the image are too far from 0 and 255 to be clipped.
    """
    ramp = np.arange(300, dtype=np.uint16)[:, None, None] * (24, 7, 3) // 100
    pixels = ramp + np.random.default_rng(3).integers((75, 90, 80), (80, 95, 85), (300, 72, 3))
    pixels = pixels.astype(np.uint8)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for seed in range(20):
        random = np.random.default_rng(seed)
        expected = Image.fromarray(pixels)
        for number in random.permutation(3):
            expected = enhancers[number](expected).enhance(random.uniform(0.7, 1.3))
        jittered = _jitter(pixels, 0.3, np.random.default_rng(seed))
        error = jittered.astype(float) - np.asarray(expected)
        assert np.abs(error).max() <= 3
        assert abs(error.mean()) < 2


def test_rotation_turns_about_the_center_by_up_to_so_many_degrees_either_way():
    """Oracle: of a ramp the slopes along rows and columns are the cosine and sine of the angle.

    Angles uniform in ±20 have mean 0 and variance 400/3. A corner of the square lies 9.1 beyond the
    side when it is turned by 20 degrees: there is the mean's color, and nowhere near the center.
    """
    recipe = replace(STILL, rotation=20.0, mean="none", crop_size=72)
    found, out, angles = noise_statistics(), np.empty((72, 72, 3), np.float32), []
    augment, mean = Augmenter(recipe, found), found.mean_image.mean(axis=(0, 1)).round()
    ramp = np.broadcast_to(np.arange(72, dtype=np.uint8)[:, None] * 3, (72, 72, 3))
    for number in range(300):
        augment(ramp, (0, 1, number, number), out)
        middle = out[16:56, 16:56, 0]
        down, right = (np.diff(middle, axis=axis).mean() / 3 for axis in (0, 1))
        assert np.hypot(down, right) == pytest.approx(1, abs=0.02)
        assert middle.mean() == pytest.approx(35.5 * 3, abs=1)
        angles.append(np.degrees(np.arctan2(down, right)))
        if abs(angles[-1]) > 15:
            np.testing.assert_array_equal(out[0, 0], mean)
    assert 19 < max(angles) < 20.5
    assert -20.5 < min(angles) < -19
    assert np.mean(angles) == pytest.approx(0, abs=2)
    assert np.var(angles) == pytest.approx(400 / 3, rel=0.15)


def test_cutmix_windows_have_the_probability_and_area_of_the_paper():
    """Oracle: of uniform area u and center, a window of side s = √u loses s²/4 of it at the edges.

    So its mean share is E[(s − s²/4)²] = 1/2 − 1/5 + 1/48.
    """
    augment = Augmenter(replace(STILL, cutmix=0.3), noise_statistics())
    draws = [augment.cutmix_window((0, 1, number)) for number in range(4000)]
    windows = [window for window in draws if window]
    areas = [np.ones((64, 64))[window].sum() / 64**2 for window in windows]
    assert len(windows) / len(draws) == pytest.approx(0.3, abs=0.03)
    assert np.mean(areas) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.02)
    middles = np.array([[(side.start + side.stop) / 2 for side in window] for window in windows])
    np.testing.assert_allclose(middles.mean(axis=0), 32, atol=2)
