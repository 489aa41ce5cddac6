"""One update of the weights, on however many devices."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.training.optimizer import PaperMomentum

# Below 6e-8 float16 knows only 0, which is where the gradients of a mean over 128 images may lie:
# the loss is multiplied by this, and the gradients, float32 by then, are divided by it.
FLOAT16_SCALE = 1024.0


def compile_step(
    model: keras.Model,
    optimizer: PaperMomentum,
    strategy: tf.distribute.Strategy,
    label_smoothing: float = 0.0,
    class_weights: npt.NDArray[np.float32] | None = None,
) -> Any:
    """Return step(images, targets, count, rates) → sums over all replicas: images, losses, hits.

    `targets` (images, classes) are each image's shares of the classes; a row of zeros counts for
    nothing. A hit is an image whose likeliest class is that with the largest share.
    `count` is the global number of images, by which the summed losses are divided, so that the
    update does not depend on how the batch was shared out. `rates` are the learning rates of the
    trainable variables. With `label_smoothing` ε the targets are mixed with ε of a uniform one
    (Szegedy et al. 2016, section 7). With `class_weights` (classes,) each share is multiplied by the
    weight of its class before anything is learned from it; the sums are without.
    """
    scale = FLOAT16_SCALE if model.get_layer("conv1").compute_dtype == "float16" else 1.0

    def replica(images: tf.Tensor, targets: tf.Tensor, count: tf.Tensor, rates: tf.Tensor) -> Any:
        counts = tf.reduce_sum(targets, axis=1)
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            log_p = tf.nn.log_softmax(logits)
            total = _cross_entropy(targets, log_p, label_smoothing)
            learned = total
            if class_weights is not None:
                learned = _cross_entropy(targets * class_weights, log_p, label_smoothing)
            scaled = learned / count * scale
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply([gradient / scale for gradient in gradients], rates)
        counted = counts > 0
        hits = counted & (tf.argmax(logits, axis=1) == tf.argmax(targets, axis=1))
        n, n_hits = (tf.reduce_sum(tf.cast(which, tf.int32)) for which in (counted, hits))
        return n, total, n_hits

    @tf.function
    def step(images: Any, targets: Any, count: tf.Tensor, rates: tf.Tensor) -> Any:
        results = strategy.run(replica, args=(images, targets, count, rates))
        return tuple(strategy.reduce("SUM", result, axis=None) for result in results)

    return step


def _cross_entropy(targets: tf.Tensor, log_p: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Sum −Σ q log p over the images; not by TensorFlow's own, for which rows must add up to 1.

    A row of zeros has no loss and no gradient.
    """
    evenly = tf.reduce_mean(targets, axis=1, keepdims=True)
    smoothed = (1 - label_smoothing) * targets + label_smoothing * evenly
    return -tf.reduce_sum(smoothed * log_p)
