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
    count: tf.Tensor  # float32, the number of images of all replicas, skipped ones included
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

        def prepare(start: int) -> tuple[list[_Shard], tf.Tensor, tf.Tensor]:
            chosen = order[start : start + self.batch_size]
            key = random_stream(self.seed, "dropout", epoch, start).integers(2**31, size=2)
            with tf.device("/cpu:0"):
                count, key = tf.constant(len(chosen), tf.float32), tf.constant(key, tf.int32)
            return self._shards(chosen, epoch, start), count, key

        for shards, count, key in map_in_order(starts, prepare, ahead=PREFETCH_BATCHES):
            images, targets, positions = map(self.devices.distribute, zip(*shards))
            yield Batch(images, targets, positions, count, key)

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
        size = self.augment.recipe.crop_size
        n = max(len(positions), 1)  # a replica without images gets one with a target of zeros
        images: Float32Array = np.zeros((n, size, size, 3), np.float32)
        targets: Float32Array = np.zeros((n, self.n_classes), np.float32)

        def augment(position: int, out: Float32Array) -> bool:
            index = int(chosen[position])
            if (image := self.store.get(index)) is None:  # skipped
                return False
            self.augment(image, (self.seed, epoch, index, start + position), out=out)
            return True

        for image, target, position in zip(images, targets, map(int, positions)):
            if not augment(position, image):
                continue
            index, neighbor = chosen[position], (position + 1) % len(chosen)
            target[self.y_true[index]] = 1
            window = self.augment.cutmix_window((self.seed, epoch, int(index)))
            if window and augment(neighbor, other := np.empty_like(image)):
                image[window] = other[window]
                share = np.float32(image[window].size / image.size)
                target[self.y_true[index]] -= share
                target[self.y_true[chosen[neighbor]]] += share
        return images, targets, np.resize(positions, n).astype(np.int32)
