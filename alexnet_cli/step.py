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
    """Return step(images, targets, count, rates) → sums over all replicas: images, losses, hits.

    `targets` (images, classes) are each image's shares of the classes; a row of zeros counts for
    nothing. A hit is an image whose likeliest class is that with the largest share.
    `count` is the global number of images, by which the summed losses are divided, so that the
    update does not depend on how the batch was shared out. `rates` are the learning rates of the
    trainable variables. With `label_smoothing` ε the targets are mixed with ε of a uniform one
    (Szegedy et al. 2016, section 7). With `class_weights` (classes,) an image's loss is multiplied by
    that of its class before anything is learnt from it; the sums are without.
    """
    scale = FLOAT16_SCALE if model.get_layer("conv1").compute_dtype == "float16" else 1.0

    def replica(images: tf.Tensor, targets: tf.Tensor, count: tf.Tensor, rates: tf.Tensor) -> Any:
        counts = tf.reduce_sum(targets, axis=1)
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            # TensorFlow takes it that shares add up to 1: a row of zeros too would have a gradient.
            losses = counts * tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            if label_smoothing:
                over_all = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=1)
                losses += label_smoothing * (counts * over_all - losses)
            total = tf.reduce_sum(losses)
            learnt = total
            if class_weights is not None:
                learnt = tf.reduce_sum(losses * tf.linalg.matvec(targets, class_weights))
            scaled = learnt / count * scale
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
