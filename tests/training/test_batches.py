"""The batches of an epoch: order of the images, and images and targets mixed by CutMix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY
from noise import image_files, noise_image, noise_statistics
from PIL import Image

from alexnet_cli.data.augment import Augmenter
from alexnet_cli.data.store import ImageStore
from alexnet_cli.training.batches import BatchLoader, epoch_order
from alexnet_cli.training.devices import choose_devices


def test_each_epoch_has_every_image_once_in_a_new_order():
    first, second = (epoch_order(500, 0, epoch) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == list(range(500))
    assert (first == second).mean() < 0.05
    np.testing.assert_array_equal(first, epoch_order(500, 0, 1))


@pytest.mark.parametrize("bad", [False, True], ids=["all readable", "one unreadable"])
def test_cutmix_mixes_images_and_targets_alike(tmp_path, bad):
    """Oracle: both crops from the augmenter, pasted here; a target holds the areas.

    An unreadable image has no target, and its neighbor is not mixed with it.
    """
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for seed, path in enumerate(paths):
        Image.fromarray(noise_image(seed=seed)).save(path)
    recipe = replace(TINY, cutmix=1.0)
    store = ImageStore(image_files(paths), recipe, tmp_path)
    if bad:
        paths[2].unlink()
    augment, y_true = Augmenter(recipe, noise_statistics()), np.array([0, 1, 2, 0], np.int32)
    devices = choose_devices(0, "float32")
    batch_loader = BatchLoader(store, y_true, 3, augment, devices, seed=5, batch_size=4)
    (batch,) = batch_loader.epoch(2)
    order = epoch_order(4, seed=5, epoch=2)
    crops = np.zeros((4, 64, 64, 3), np.float32)
    for position, index in enumerate(map(int, order)):
        if (image := store.get(index)) is not None:
            augment(image, (5, 2, index, position), crops[position])
    for position, index in enumerate(map(int, order)):
        expected, other = crops[position].copy(), (position + 1) % 4
        target = np.eye(3)[y_true[index]] * crops[position].any()
        rows, columns = augment.cutmix_window((5, 2, index))
        if crops[position].any() and crops[other].any():
            expected[rows, columns] = crops[other][rows, columns]
            share = (rows.stop - rows.start) * (columns.stop - columns.start) / 64**2
            target = (1 - share) * target + share * np.eye(3)[y_true[order[other]]]
        np.testing.assert_array_equal(batch.images[position], expected)
        np.testing.assert_allclose(batch.targets[position], target, atol=1e-6)
    assert np.sum(batch.targets) == pytest.approx(4 - bad)


@pytest.mark.parametrize("n_images", [1, 2, 7])
def test_cutmix_does_not_depend_on_the_number_of_replicas(tmp_path, n_images):
    """Oracle: the whole batch on one replica, bit for bit; the third image is unreadable."""
    paths = [tmp_path / f"{number}.png" for number in range(n_images)]
    for seed, path in enumerate(paths):
        Image.fromarray(noise_image(seed=seed)).save(path)
    recipe = replace(TINY, cutmix=0.7)
    store = ImageStore(image_files(paths), recipe, tmp_path)
    for path in paths[2:3]:
        path.unlink()
    y_true = np.arange(n_images, dtype=np.int32) % 3
    augment, devices = Augmenter(recipe, noise_statistics()), choose_devices(0, "float32")
    loader = BatchLoader(store, y_true, 3, augment, devices, seed=5, batch_size=8)
    chosen = epoch_order(n_images, 5, 1)
    whole = loader._shard(chosen, np.arange(n_images), 1, 0)
    for n_replicas in (2, 3, 8):
        parts = np.array_split(np.arange(n_images), n_replicas)
        shards = [loader._shard(chosen, part, 1, 0) for part in parts]
        for part, (images, targets, positions) in zip(parts, shards, strict=True):
            if len(part):
                np.testing.assert_array_equal(images, whole[0][part])
                np.testing.assert_array_equal(targets, whole[1][part])
                np.testing.assert_array_equal(positions, part)
            else:
                assert not targets.any()
