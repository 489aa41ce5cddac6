"""Dropout and batch normalization of the whole batch, however many replicas share it.

In a training step each replica says which images of the batch it has (`BatchRows`). Then every image
gets the same dropout mask on one device as on several, and batch normalization averages over the
images of all replicas, but not over those that only fill a replica's batch up. Elsewhere, as in
`model.fit`, both layers do what those of Keras do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from zlib import crc32

import keras
import tensorflow as tf


@dataclass(frozen=True)
class BatchRows:
    """The images of a replica, as rows of a batch that all replicas share.

    `key`: int32 (2,), the seed of this step's dropout, the same on all replicas.
    `positions`: int32 (images,), the rows; below `batch_size`, which may exceed the number of images.
    `counted`: bool (images,), False for an image that only fills up the batch of its replica.
    """

    key: tf.Tensor
    batch_size: int
    positions: tf.Tensor
    counted: tf.Tensor


# MirroredStrategy traces every replica in a thread of its own, which has a context of its own.
_rows: ContextVar[BatchRows | None] = ContextVar("rows", default=None)


@contextmanager
def rows_of_batch(rows: BatchRows) -> Iterator[None]:
    """Tell the layers that are called within the block, in this thread, which images they get."""
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)


class BatchDropout(keras.layers.Dropout):
    """Dropout whose mask depends on the row of an image in the batch, not on its replica."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return `inputs` (images, units), in training with a share of 0s and the others scaled."""
        rows = _rows.get()
        if rows is None or not training or not self.rate:
            return super().call(inputs, training=training)
        # Each replica draws the masks of the whole batch, as one draw is cheaper than one per image.
        key = tf.random.experimental.stateless_fold_in(rows.key, crc32(self.name.encode()) >> 1)
        shape = (rows.batch_size, inputs.shape[-1])
        drawn = tf.random.stateless_uniform(shape, key, alg="philox")
        kept = tf.gather(drawn >= self.rate, rows.positions)
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros_like(inputs))


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization by the mean and variance of the images of all replicas that count."""

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return `inputs` (images, height, width, channels), normalized for each channel."""
        rows = _rows.get()
        if rows is None or not training:
            return super().call(inputs, training=training, mask=mask)
        x = tf.cast(inputs, tf.float32)
        weights = tf.cast(rows.counted, tf.float32)[:, None, None, None]
        n_pixels = tf.cast(tf.size(x[0, :, :, 0]), tf.float32)
        total = _sum_over_replicas(tf.reduce_sum(weights) * n_pixels)
        n = tf.maximum(total, 1.0)
        mean = _sum_over_replicas(tf.reduce_sum(x * weights, (0, 1, 2))) / n
        squares = tf.reduce_sum(tf.square(x - mean) * weights, (0, 1, 2))
        variance = _sum_over_replicas(squares) / n
        new = tf.where(total > 0, 1 - self.momentum, 0.0)  # the batch may hold no readable image
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving + new * (value - moving))
        normalized = tf.nn.batch_normalization(
            x, mean, variance, self.beta, self.gamma, self.epsilon
        )
        return tf.cast(normalized, self.compute_dtype)


def _sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
