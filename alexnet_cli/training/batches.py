"""The batches of an epoch: order of the images, augmentation, distribution over devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.data.augment import Augmenter
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.store import ImageStore
from alexnet_cli.system.workers import map_in_order
from alexnet_cli.training.devices import Devices

# Batches prepared ahead, one per core, while the devices train.
PREFETCH_BATCHES = min(max(4, os.cpu_count() or 1), 16)

_Shard = tuple[tf.Tensor, tf.Tensor]  # images and targets of one replica


def epoch_order(n_images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the order of the images in `epoch` (from 1), a permutation of their indices."""
    return np.random.default_rng([seed, epoch]).permutation(n_images)


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

    def epoch(self, epoch: int, n_done: int = 0) -> Iterator[tuple[Any, Any, int]]:
        """Yield the batches of `epoch` (from 1) after the first `n_done` images.

        A batch is (images, targets, count). Images are float32 (images, size, size, 3), targets are
        float32 probabilities (images, classes), with a row of zeros for a skipped image; both are
        distributed over the replicas of this machine. The count is the global number of images.
        """
        order = epoch_order(len(self.store), self.seed, epoch)
        starts = range(n_done, len(order), self.batch_size)

        def prepare(start: int) -> tuple[list[_Shard], int]:
            chosen = order[start : start + self.batch_size]
            return self._shards(chosen, epoch, start), len(chosen)

        for shards, count in map_in_order(starts, prepare, ahead=PREFETCH_BATCHES):
            images, targets = (self._distribute(part) for part in zip(*shards))
            yield images, targets, count

    def _shards(self, chosen: npt.NDArray[np.int64], epoch: int, start: int) -> list[_Shard]:
        n_replicas = self.devices.strategy.num_replicas_in_sync
        parts = np.array_split(np.arange(len(chosen)), n_replicas)
        return [self._shard(chosen, parts[n], epoch, start) for n in self.devices.replicas]

    def _shard(
        self,
        chosen: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        epoch: int,
        start: int,
    ) -> _Shard:
        """Return crops and targets for `positions` in the batch of the images `chosen`.

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
        return tf.constant(images), tf.constant(targets)

    def _distribute(self, parts: tuple[tf.Tensor, ...]) -> Any:
        first = self.devices.replicas[0]
        return self.devices.strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group - first]
        )
