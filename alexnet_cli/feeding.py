"""The batches of an epoch: which images, cut how, on which device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.devices import Devices
from alexnet_cli.model import AHEAD
from alexnet_cli.parallel import in_order
from alexnet_cli.pipeline import Augmenter, Float32Array, ImageStore, epoch_order

_Shard = tuple[tf.Tensor, tf.Tensor]  # images and labels of one replica


@dataclass(frozen=True)
class Feeder:
    """Cuts the images of a store into augmented batches, ahead of the devices that learn from them."""

    store: ImageStore
    y_true: npt.NDArray[np.int32]
    augment: Augmenter
    devices: Devices
    seed: int
    batch_size: int  # over all devices

    def batches(self, epoch: int, done: int = 0) -> Iterator[tuple[Any, Any, int]]:
        """Yield images and labels, distributed over the replicas here, and the global count.

        The first `done` images of the epoch are left out.
        """
        order = epoch_order(len(self.store), self.seed, epoch)
        starts = range(done, len(order), self.batch_size)

        def prepare(start: int) -> tuple[list[_Shard], int]:
            chosen = order[start : start + self.batch_size]
            return self._shards(chosen, epoch, start), len(chosen)

        for shards, count in in_order(starts, prepare, ahead=AHEAD):
            images, labels = (self._distribute(part) for part in zip(*shards))
            yield images, labels, count

    def _shards(self, chosen: npt.NDArray[np.int64], epoch: int, start: int) -> list[_Shard]:
        parts = np.array_split(np.arange(len(chosen)), self.devices.strategy.num_replicas_in_sync)
        shards = []
        for positions in (parts[replica] for replica in self.devices.replicas):
            y_true = self.y_true[chosen[positions]]
            if not len(positions):  # no replica may go without: an image that counts for nothing
                positions, y_true = np.array([0]), np.array([-1], np.int32)
            size = self.augment.recipe.crop_size
            images: Float32Array = np.empty((len(positions), size, size, 3), np.float32)
            for number, position in enumerate(positions):
                index = int(chosen[position])
                if (image := self.store.get(index)) is None:  # left out
                    images[number], y_true[number] = 0, -1
                    continue
                key = (self.seed, epoch, index, start + int(position))
                self.augment(image, key, out=images[number])
            shards.append((tf.constant(images), tf.constant(y_true)))
        return shards

    def _distribute(self, parts: tuple[tf.Tensor, ...]) -> Any:
        first = self.devices.replicas[0]
        return self.devices.strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group - first]
        )
