"""The batches of an epoch: order of the images, augmentation, distribution over devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.data.augment import Augmenter
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.store import ImageStore
from alexnet_cli.system.random_streams import random_stream
from alexnet_cli.system.workers import map_in_order
from alexnet_cli.training.devices import Devices

# Batches prepared ahead, one per core, while the devices train.
PREFETCH_BATCHES = min(max(4, os.cpu_count() or 1), 16)


_Shard = tuple[tf.Tensor, ...]  # images, targets and positions of one replica


class Batch(NamedTuple):
    """A batch for one step. The first three are distributed over the replicas of this machine."""

    images: Any  # float32 (images, size, size, 3)
    targets: Any  # float32 probabilities (images, classes); a row of zeros for a skipped image
    positions: Any  # int32 (images,), in the batch of all replicas
    key: tf.Tensor  # int32 (2,), the seed of the dropout masks


def epoch_order(n_images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the order of the images in `epoch` (from 1), a permutation of their indices."""
    return random_stream(seed, "order", epoch).permutation(n_images)


@dataclass(frozen=True)
class BatchLoader:
    """Prepares batches of augmented crops of the images of a store."""

    store: ImageStore
    y_true: npt.NDArray[np.int32]  # class indices (images,)
    n_classes: int
    augment: Augmenter
    devices: Devices
    seed: int
    batch_size: int  # over all devices

    def epoch(self, epoch: int, n_done: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` (from 1) after the first `n_done` images."""
        order = epoch_order(len(self.store), self.seed, epoch)
        starts = range(n_done, len(order), self.batch_size)

        def prepare(start: int) -> tuple[list[_Shard], tf.Tensor]:
            chosen = order[start : start + self.batch_size]
            key = random_stream(self.seed, "dropout", epoch, start).integers(2**31, size=2)
            with tf.device("/cpu:0"):
                key = tf.constant(key, tf.int32)
            return self._shards(chosen, epoch, start), key

        for shards, key in map_in_order(starts, prepare, ahead=PREFETCH_BATCHES):
            images, targets, positions = map(self.devices.distribute, zip(*shards))
            yield Batch(images, targets, positions, key)

    def _shards(self, chosen: npt.NDArray[np.int64], epoch: int, start: int) -> list[_Shard]:
        """Return the part of each replica of this machine, on its device."""
        n_replicas = self.devices.strategy.num_replicas_in_sync
        parts = np.array_split(np.arange(len(chosen)), n_replicas)
        shards = []
        for number, device in zip(self.devices.replicas, self.devices.places):
            with tf.device(device):
                shard = self._shard(chosen, parts[number], epoch, start)
                shards.append(tuple(map(tf.constant, shard)))
        return shards

    def _shard(
        self,
        chosen: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        epoch: int,
        start: int,
    ) -> tuple[Float32Array, Float32Array, npt.NDArray[np.int32]]:
        """Return crops and targets for `positions` in the batch of the images `chosen`, and these.

        `start` is the position of the batch in the order of the epoch.
        """
        size, n = self.augment.recipe.crop_size, len(positions)
        if n and self.augment.recipe.cutmix:  # the last image may be mixed with the one after it
            positions = np.append(positions, (positions[-1] + 1) % len(chosen))
        n_rows = max(len(positions), 1)  # a replica without images gets one with a target of zeros
        images: Float32Array = np.zeros((n_rows, size, size, 3), np.float32)
        targets: Float32Array = np.zeros((n_rows, self.n_classes), np.float32)
        for image, target, position in zip(images, targets, map(int, positions)):
            index = int(chosen[position])
            if (pixels := self.store.get(index)) is not None:  # not skipped
                self.augment(pixels, (self.seed, epoch, index, start + position), out=image)
                target[self.y_true[index]] = 1
        for i in range(n):  # in this order the next image is not mixed yet
            window = self.augment.cutmix_window((self.seed, epoch, int(chosen[positions[i]])))
            if window and targets[i].any() and targets[i + 1].any():
                images[i][window] = images[i + 1][window]
                share = np.float32(images[i][window].size / images[i].size)
                targets[i] = (1 - share) * targets[i] + share * targets[i + 1]
        n = max(n, 1)
        return images[:n], targets[:n], np.resize(positions, n).astype(np.int32)
