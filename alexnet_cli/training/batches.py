"""The batches of an epoch: which images, cut how, on which device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.data.augment import Augmenter
from alexnet_cli.data.store import Float32Array, ImageStore, epoch_order
from alexnet_cli.network.architecture import PREFETCH_BATCHES
from alexnet_cli.system.workers import map_in_order
from alexnet_cli.training.devices import Devices

_Shard = tuple[tf.Tensor, tf.Tensor]  # images and targets of one replica


@dataclass(frozen=True)
class BatchLoader:
    """Cuts the images of a store into augmented batches, ahead of the devices that learn from them."""

    store: ImageStore
    y_true: npt.NDArray[np.int32]
    n_classes: int
    augment: Augmenter
    devices: Devices
    seed: int
    batch_size: int  # over all devices

    def batches(self, epoch: int, done: int = 0) -> Iterator[tuple[Any, Any, int]]:
        """Yield images and targets, distributed over the replicas here, and the global count.

        The first `done` images of the epoch are left out.
        """
        order = epoch_order(len(self.store), self.seed, epoch)
        starts = range(done, len(order), self.batch_size)

        def prepare(start: int) -> tuple[list[_Shard], int]:
            chosen = order[start : start + self.batch_size]
            return self._shards(chosen, epoch, start), len(chosen)

        for shards, count in map_in_order(starts, prepare, ahead=PREFETCH_BATCHES):
            images, targets = (self._distribute(part) for part in zip(*shards))
            yield images, targets, count

    def _shards(self, chosen: npt.NDArray[np.int64], epoch: int, start: int) -> list[_Shard]:
        parts = np.array_split(np.arange(len(chosen)), self.devices.strategy.num_replicas_in_sync)
        return [self._shard(chosen, parts[n], epoch, start) for n in self.devices.replicas]

    def _shard(
        self,
        chosen: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        epoch: int,
        start: int,
    ) -> _Shard:
        size = self.augment.recipe.crop_size
        n = max(len(positions), 1)  # no replica may go without: an image that counts for nothing
        images: Float32Array = np.zeros((n, size, size, 3), np.float32)
        targets: Float32Array = np.zeros((n, self.n_classes), np.float32)

        def augment(position: int, out: Float32Array) -> bool:
            index = int(chosen[position])
            if (image := self.store.get(index)) is None:  # left out
                return False
            self.augment(image, (self.seed, epoch, index, start + position), out=out)
            return True

        for image, target, position in zip(images, targets, map(int, positions)):
            if not augment(position, image):
                continue
            index, neighbor = chosen[position], (position + 1) % len(chosen)
            target[self.y_true[index]] = 1
            window = self.augment.foreign_window((self.seed, epoch, int(index)))
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
