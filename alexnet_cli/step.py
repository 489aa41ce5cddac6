"""One update of the weights, on however many devices."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.momentum import PaperMomentum

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
    """Return step(images, labels, count, rates) → sums over all replicas: images, losses, hits.

    `count` is the global number of images, by which the summed losses are divided, so that the
    update does not depend on how the batch was shared out. `rates` are the learning rates of the
    trainable variables. Images whose label is -1 count for nothing.
    With `label_smoothing` ε the target is 1 − ε for the true class and ε spread over all
    (Szegedy et al. 2016, section 7). With `class_weights` (classes,) an image's loss is multiplied by
    that of its class before anything is learnt from it; the sums are without.
    """
    scale = FLOAT16_SCALE if model.get_layer("conv1").compute_dtype == "float16" else 1.0

    def replica(images: tf.Tensor, labels: tf.Tensor, count: tf.Tensor, rates: tf.Tensor) -> Any:
        counts = tf.cast(labels >= 0, tf.float32)
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
            if label_smoothing:
                over_all = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=1)
                losses += label_smoothing * (over_all - losses)
            total = tf.reduce_sum(losses * counts)
            learnt = total
            if class_weights is not None:
                weights = tf.gather(class_weights, tf.maximum(labels, 0))
                learnt = tf.reduce_sum(losses * counts * weights)
            scaled = learnt / count * scale
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply([gradient / scale for gradient in gradients], rates)
        hits = tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == labels, tf.int32)
        return tf.reduce_sum(counts), total, tf.reduce_sum(hits)

    @tf.function
    def step(images: Any, labels: Any, count: tf.Tensor, rates: tf.Tensor) -> Any:
        results = strategy.run(replica, args=(images, labels, count, rates))
        return tuple(strategy.reduce("SUM", result, axis=None) for result in results)

    return step
