"""One training step: an update of the weights on one or several devices."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.network.batch_layers import BatchRows, rows_of_batch
from alexnet_cli.training.batches import Batch
from alexnet_cli.training.optimizer import PaperMomentum

# Loss scaling: gradients of a mean over 128 images may be below 6e-8, which float16 rounds to 0. So
# the loss is multiplied by this factor, and the float32 gradients are divided by it.
FLOAT16_SCALE = 1024.0


def compile_step(
    model: keras.Model,
    optimizer: PaperMomentum,
    strategy: tf.distribute.Strategy,
    batch_size: int,
    label_smoothing: float = 0.0,
    class_weights: npt.NDArray[np.float32] | None = None,
) -> Any:
    """Return step(batch, rates) → sums over all replicas: images, losses, hits.

    An image whose row of targets is 0 is ignored. A hit is an image whose most likely class has the
    largest target. The summed losses are divided by `batch_size`, so the update does not depend on
    how the batch was divided among the replicas, and an image counts as much in the last batch of
    an epoch, which may be a single image, as in any other.
    `batch_size`: the number of images of all replicas in a full batch.
    `rates`: the learning rate of each trainable variable.
    `label_smoothing`: the weight ε of the uniform distribution that is mixed into the targets
    (Szegedy et al. 2016, section 7).
    `class_weights` (classes,): factors of the targets in the loss that is minimized; the returned
    sums do not include them.
    """
    scale = FLOAT16_SCALE if model.get_layer("conv1").compute_dtype == "float16" else 1.0

    def replica(batch: Batch, rates: tf.Tensor) -> Any:
        targets = batch.targets
        counted = tf.reduce_sum(targets, axis=1) > 0
        rows = BatchRows(batch.key, batch_size, batch.positions, counted)
        with tf.GradientTape() as tape, rows_of_batch(rows):
            logits = model(batch.images, training=True)
            log_p = tf.nn.log_softmax(logits)
            total = _cross_entropy(targets, log_p, label_smoothing)
            minimized = total
            if class_weights is not None:
                minimized = _cross_entropy(targets * class_weights, log_p, label_smoothing)
            scaled = minimized / batch_size * scale
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply([gradient / scale for gradient in gradients], rates)
        hits = counted & (tf.argmax(logits, axis=1) == tf.argmax(targets, axis=1))
        n, n_hits = (tf.reduce_sum(tf.cast(which, tf.int32)) for which in (counted, hits))
        return n, total, n_hits

    @tf.function
    def step(batch: Batch, rates: tf.Tensor) -> Any:
        results = strategy.run(replica, args=(batch, rates))
        return tuple(strategy.reduce("SUM", result, axis=None) for result in results)

    return step


def balancing_weights(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return loss weights with which all classes count equally; their mean over images is 1.

    `counts`: the number of training images of each class.
    """
    weights: npt.NDArray[np.floating] = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return weights.astype(np.float32)


def _cross_entropy(targets: tf.Tensor, log_p: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Return −Σ q log p, summed over the images. A row of zeros has no loss and no gradient.

    TensorFlow's own cross-entropy requires rows that sum to 1.
    """
    uniform = tf.reduce_mean(targets, axis=1, keepdims=True)
    smoothed = (1 - label_smoothing) * targets + label_smoothing * uniform
    return -tf.reduce_sum(smoothed * log_p)
