"""Decoded store, statistics, crops and color noise against NumPy, by hand and by statistics."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from alexnet_cli.data.augment import Augmenter, Cropper
from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.data.store import (
    BadImageBudget,
    ImageStore,
    Statistics,
    compute_statistics,
    epoch_order,
    load_image,
)
from alexnet_cli.errors import AlexNetError, BadFile
from alexnet_cli.system.workers import map_in_order
from alexnet_cli.training.batches import BatchLoader
from alexnet_cli.training.devices import choose_devices

RANDOM = np.random.default_rng(3)
STILL = replace(TINY, flip=False, color_noise=0.0)


def files_of(paths):
    return [ImageFile(path) for path in paths]


@pytest.fixture
def paths(tmp_path):
    """Six noisy files of different shapes."""
    names = []
    for number in range(6):
        pixels = RANDOM.integers(0, 256, (90 + 7 * number, 80, 3), dtype=np.uint8)
        names.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(names[-1])
    return names


def statistics(size=72, mean=None, covariance=None):
    """Statistics with a mean image that differs at every pixel."""
    if mean is None:
        mean = RANDOM.uniform(90, 160, (size, size, 3)).astype(np.float32)
    return Statistics(mean, np.eye(3) if covariance is None else covariance)


# The store


@pytest.mark.parametrize(("kept", "room"), [("in memory", (10**9, 0)), ("on disk", (0, 10**9))])
def test_the_store_gives_what_the_decoder_gives(paths, tmp_path, kept, room):
    """Oracle: `load_image`, also the second time, and also when the file is gone by then."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    store = ImageStore(files_of(paths), TINY, scratch, *room)
    assert store.kept == kept
    expected = [load_image(file, TINY) for file in store.files]
    for index in (3, 0, 5, 1, 2, 4):
        np.testing.assert_array_equal(store.get(index), expected[index])
    for path in paths:
        path.unlink()
    for index in range(6):
        np.testing.assert_array_equal(store.get(index), expected[index])
    assert list(scratch.iterdir()) == []  # a file without a name can't be left behind


def test_room_on_disk_is_taken_before_it_is_needed(paths, tmp_path, monkeypatch):
    """Oracle: the blocks of the file, as many as it has bytes; on a full disk there is no file.

    A hole would be filled by writing to the mapping, which on a full disk ends the process.
    """
    found = []
    reserve = os.posix_fallocate

    def look(descriptor, start, count):
        reserve(descriptor, start, count)
        found.append((os.fstat(descriptor).st_blocks * 512, count))

    monkeypatch.setattr(os, "posix_fallocate", look)
    ImageStore(files_of(paths), TINY, tmp_path, 0, 10**9)
    ((taken, count),) = found
    assert taken >= count == 6 * 72 * 72 * 3

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    store = ImageStore(files_of(paths), TINY, tmp_path, 0, 10**9)
    assert store.kept is None
    np.testing.assert_array_equal(store.get(2), load_image(store.files[2], TINY))


def test_without_room_every_image_is_decoded_anew(paths, tmp_path):
    """Oracle: another photograph in the place of the first is seen; nothing is written."""
    store = ImageStore(files_of(paths), TINY, tmp_path, 0, 0)
    assert store.kept is None
    before = store.get(0)
    np.testing.assert_array_equal(store.get(0), before)
    paths[0].write_bytes(paths[1].read_bytes())
    np.testing.assert_array_equal(store.get(0), store.get(1))
    assert {*tmp_path.iterdir()} == {*paths}


def test_of_very_many_images_a_sample_is_measured(paths, tmp_path, monkeypatch):
    """Oracle: np.mean of every second image, 6 being more than 4; shared by two workers too."""
    monkeypatch.setattr("alexnet_cli.data.store.SAMPLE", 4)
    store = ImageStore(files_of(paths), TINY, tmp_path)
    expected = np.mean([store.get(0), store.get(2), store.get(4)], axis=0)
    np.testing.assert_allclose(compute_statistics(store).mean_image, expected, rtol=1e-6)
    sums = []
    for worker in range(2):
        compute_statistics(
            store, None, lambda n, w=worker: range(w, n, 2), lambda s: sums.append(s) or s
        )
    together = compute_statistics(store, None, lambda n: range(0), lambda _: sum(sums))
    np.testing.assert_array_equal(together.mean_image, compute_statistics(store).mean_image)


@pytest.mark.parametrize("room", [(10**9, 0), (0, 0)], ids=["kept", "decoded anew"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:99]), "is not what it was when the data"),
        (lambda path: Image.new("RGB", (9, 9)).save(path), "is not what it was when the data"),
        (lambda path: path.unlink(), "No such file or directory"),
    ],
    ids=["truncated", "replaced", "deleted"],
)
def test_what_went_bad_is_left_out_and_told_once(paths, tmp_path, room, damage, reason):
    """Oracle: the statistics of the five others, alone."""
    told = []
    files = files_of(paths)
    known = [replace(f, sha256=hashlib.sha256(f.path.read_bytes()).hexdigest()) for f in files]
    damage(paths[2])
    store = ImageStore(known, TINY, tmp_path, *room, tell=told.append)
    found = [compute_statistics(store) for _ in range(2)][1]
    assert store.get(2) is None
    assert [rejected.path for rejected in store.left_out] == [paths[2]]
    assert told == list(store.left_out)
    assert reason in told[0].reason
    others = compute_statistics(ImageStore([*known[:2], *known[3:]], TINY, tmp_path))
    np.testing.assert_array_equal(found.mean_image, others.mean_image)
    np.testing.assert_array_equal(found.covariance, others.covariance)


@pytest.mark.parametrize(("n_files", "most"), [(1, 0), (2, 1), (39, 1), (40, 2), (100, 5)])
def test_of_a_split_so_many_may_go_bad_and_no_more(n_files, most):
    """Oracle: a twentieth by hand, at least one, and never all."""
    left_out = BadImageBudget(n_files)
    for number in range(most):
        left_out.add(BadFile(Path(f"{number}.jpg"), "is gone"))
    again = BadFile(Path("0.jpg"), "is gone")
    with pytest.raises(AlexNetError, match=rf"x\.jpg: is gone; with it {most + 1} of {n_files} im"):
        [left_out.add(bad) for bad in (*[again] * most, BadFile(Path("x.jpg"), "is gone"))]


def test_statistics_are_mean_and_covariance_of_all_pixels(paths, tmp_path):
    """Oracle: np.mean and np.cov over everything at once."""
    store = ImageStore(files_of(paths), TINY, tmp_path)
    told = []
    found = compute_statistics(store, lambda done, total: told.append((done, total)))
    everything = np.stack([store.get(i) for i in range(6)]).astype(np.float64)
    np.testing.assert_allclose(found.mean_image, everything.mean(axis=0), rtol=1e-6)
    expected = np.cov(everything.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9, atol=1e-9)
    assert told == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        ("image", lambda mean: mean),
        ("channel", lambda mean: np.broadcast_to(mean.mean(axis=(0, 1)), mean.shape)),
        ("none", np.zeros_like),
        ("center", lambda mean: mean),  # of which the crops take the center
    ],
)
def test_what_a_recipe_subtracts(mean, expected):
    found = statistics()
    mean = found.mean(replace(TINY, mean=mean))
    np.testing.assert_allclose(mean, expected(found.mean_image), rtol=1e-5)


# Training crops


def augment(image, key, recipe, stats):
    out = np.empty((recipe.crop_size, recipe.crop_size, 3), np.float32)
    Augmenter(recipe, stats)(image, (*key, *range(len(key), 4)), out)
    return out


def test_every_crop_is_a_window_of_image_minus_mean():
    """Oracle: each of the 81 windows, upright or mirrored, cut out of the whole difference.

    By the law of large numbers all 9 offsets of each axis and both mirrorings come up about
    as often: within five standard deviations of a binomial.
    """
    image = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8)
    stats = statistics()
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
    mixing = RANDOM.normal(size=(3, 3)) * 40
    covariance = mixing @ mixing.T
    stats = statistics(mean=np.zeros((72, 72, 3), np.float32), covariance=covariance)
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
    image = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8)
    stats, whole = statistics(), replace(STILL, crop_size=72, scale=1 / 255)
    crop = augment(image, (0, 1, 0), whole, stats)
    np.testing.assert_allclose(crop, (image - stats.mean_image) / 255, rtol=1e-5, atol=1e-7)


def test_draws_depend_on_seed_epoch_and_image_alone():
    image, stats = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8), statistics()
    base = augment(image, (1, 2, 3), TINY, stats)
    np.testing.assert_array_equal(base, augment(image, (1, 2, 3), TINY, stats))
    for key in ((9, 2, 3), (1, 9, 3), (1, 2, 9)):
        assert not np.array_equal(base, augment(image, key, TINY, stats))


def test_each_epoch_visits_every_image_once_in_another_order():
    first, second = (epoch_order(500, 0, epoch) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == list(range(500))
    assert (first == second).mean() < 0.05
    np.testing.assert_array_equal(first, epoch_order(500, 0, 1))


# Test crops


def test_ten_crops_are_centre_corners_and_their_mirrors():
    """Oracle: slices written out by hand, section 4.1."""
    image, stats = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8), statistics()
    whole = image - stats.mean_image
    upright = [
        whole[4:68, 4:68],
        whole[:64, :64],
        whole[:64, 8:],
        whole[8:, :64],
        whole[8:, 8:],
    ]
    expected = upright + [crop[:, ::-1] for crop in upright]
    np.testing.assert_array_equal(Cropper(TINY, stats, ten=True)(image), expected)
    np.testing.assert_array_equal(Cropper(TINY, stats)(image), expected[:1])


# Threads


def test_results_come_in_order_and_errors_where_they_belong():
    def invert(x):
        return 1 / x

    assert list(map_in_order(range(1, 50), invert, threads=4, ahead=7)) == [
        1 / x for x in range(1, 50)
    ]
    results = map_in_order([2, 1, 0, 5], invert, threads=2, ahead=2)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


# What the released program does otherwise


def test_the_centre_of_the_mean_serves_every_crop():
    """Oracle: each window of the raw image minus one and the same mean."""
    recipe = replace(STILL, mean="center")
    image = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8)
    stats = statistics()
    mean = stats.mean_image[4:68, 4:68]
    windows = [
        image[top : top + 64, left : left + 64] - mean for top in range(9) for left in range(9)
    ]
    for index in range(5):
        crop = augment(image, (0, 1, index), recipe, stats)
        assert sum(np.array_equal(crop, window) for window in windows) == 1
    ten = Cropper(recipe, stats, ten=True)(image)
    np.testing.assert_array_equal(ten[4], image[8:, 8:] - mean)


def test_32_images_in_a_row_share_crop_and_reflection_but_not_colors():
    """Oracle: crops of one image at positions of the epoch, compared; 1 in 162 by chance."""
    recipe = replace(TINY, color_noise=0.0, shared_crop=32)
    image = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8)
    stats = statistics(covariance=100 * np.eye(3))
    crops = [augment(image, (0, 1, at, at), recipe, stats) for at in range(64)]
    assert all(np.array_equal(crop, crops[0]) for crop in crops[:32])
    assert all(np.array_equal(crop, crops[32]) for crop in crops[32:])
    assert not np.array_equal(crops[0], crops[32])
    colored = replace(recipe, color_noise=0.1)
    shifts = [augment(image, (0, 1, at, at), colored, stats) - crops[0] for at in range(3)]
    assert all(np.ptp(shift.reshape(-1, 3), axis=0).max() < 1e-3 for shift in shifts)
    assert not np.allclose(shifts[0], shifts[1])


def test_color_noise_and_its_divisor_end_late():
    """Oracle: epochs 1 and 2 of 3 are (crop + noise) ÷ 1.1, epoch 3 the crop itself."""
    recipe = replace(STILL, epochs=3, noise_until=2 / 3, noise_divisor=1.1, crop_size=72)
    image = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8)
    stats = statistics(covariance=100 * np.eye(3))
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


def test_scaled_crops_show_a_window_of_the_area_and_shape_that_was_drawn():
    """Oracle: an image whose colors are its coordinates tells where each corner of a crop was.

    Areas uniform in 0.35 to 1 have mean 0.675, less what does not fit in the image; by bounds.
    """
    size = TINY.resize_size
    place = np.linspace(0, 255, size)
    coordinates = np.stack([*np.meshgrid(place, place), np.zeros((size, size))], axis=-1)
    recipe = replace(STILL, crop_area=0.35, mean="none")
    augment, areas, shapes = Augmenter(recipe, statistics()), [], []
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


def test_scaled_crops_take_the_centre_of_the_mean_and_are_reflected_like_others():
    """Oracle: a uniform image minus the mean image's center, mirrored in about half of 60 draws."""
    found = statistics()
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
    augment = Augmenter(replace(STILL, jitter=amount, mean="none"), statistics())
    out = np.empty((64, 64, 3), np.float32)
    for number in range(draws):
        augment(pixels, (0, 1, number, number), out)
        yield out


def test_jitter_varies_brightness_contrast_and_saturation_each_by_its_own_factor():
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


def test_rotation_turns_about_the_centre_by_up_to_so_many_degrees_either_way():
    """Oracle: of a ramp the slopes along rows and columns are the cosine and sine of the angle.

    Angles uniform in ±20 have mean 0 and variance 400/3. A corner of the square lies 9.1 beyond the
    side when it is turned by 20 degrees: there is the mean's color, and nowhere near the center.
    """
    recipe = replace(STILL, rotation=20.0, mean="none", crop_size=72)
    found, out, angles = statistics(), np.empty((72, 72, 3), np.float32), []
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


# Cutmix


def test_so_many_images_have_a_window_of_another():
    """Oracle: of uniform area u and center, a window of side s = √u loses s²/4 of it at the edges.

    So its mean share is E[(s − s²/4)²] = 1/2 − 1/5 + 1/48.
    """
    augment = Augmenter(replace(STILL, cutmix=0.3), statistics())
    draws = [augment.foreign_window((0, 1, number)) for number in range(4000)]
    windows = [window for window in draws if window]
    areas = [np.ones((64, 64))[window].sum() / 64**2 for window in windows]
    assert len(windows) / len(draws) == pytest.approx(0.3, abs=0.03)
    assert np.mean(areas) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.02)
    middles = np.array([[(side.start + side.stop) / 2 for side in window] for window in windows])
    np.testing.assert_allclose(middles.mean(axis=0), 32, atol=2)


@pytest.mark.parametrize("bad", [False, True], ids=["whole", "one gone bad"])
def test_mixed_images_are_parts_of_two_and_so_are_their_targets(tmp_path, bad):
    """Oracle: both crops from the augmenter, pasted here; a target holds the areas.

    One gone bad counts for nothing, and lends nothing to its neighbor.
    """
    colors = [tmp_path / f"{number}.png" for number in range(4)]
    for path in colors:
        pixels = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    recipe = replace(TINY, cutmix=1.0)
    store = ImageStore(files_of(colors), recipe, tmp_path)
    if bad:
        colors[2].unlink()
    augment, y_true = Augmenter(recipe, statistics()), np.array([0, 1, 2, 0], np.int32)
    devices = choose_devices(0, "float32")
    batch_loader = BatchLoader(store, y_true, 3, augment, devices, seed=5, batch_size=4)
    ((images, targets, count),) = batch_loader.batches(epoch=2)
    order = epoch_order(4, seed=5, epoch=2)
    crops = np.zeros((4, 64, 64, 3), np.float32)
    for position, index in enumerate(map(int, order)):
        if (image := store.get(index)) is not None:
            augment(image, (5, 2, index, position), crops[position])
    for position, index in enumerate(map(int, order)):
        expected, other = crops[position].copy(), (position + 1) % 4
        target = np.eye(3)[y_true[index]] * crops[position].any()
        rows, columns = augment.foreign_window((5, 2, index))
        if crops[position].any() and crops[other].any():
            expected[rows, columns] = crops[other][rows, columns]
            share = (rows.stop - rows.start) * (columns.stop - columns.start) / 64**2
            target = (1 - share) * target + share * np.eye(3)[y_true[order[other]]]
        np.testing.assert_array_equal(images[position], expected)
        np.testing.assert_allclose(targets[position], target, atol=1e-6)
    assert count == 4
    assert np.sum(targets) == pytest.approx(4 - bad)
