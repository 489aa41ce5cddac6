"""Layers that Keras does not have."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class LocalResponseNormalization(keras.layers.Layer):
    """Normalize each activation by the activations of adjacent channels (section 3.3).

        b_i = a_i / (k + α · Σ a_j²)^β,   j from i − n/2 to i + n/2, within the channels

    α multiplies the sum, as in the paper; Caffe, PyTorch and the released code divide α by n.
    Input and output: (batch, height, width, channels). The computation is in float32 for every
    dtype, as squares of activations in the hundreds need its precision. `n` must be odd.
    """

    def __init__(self, k: float, n: int, alpha: float, beta: float, **kwargs: Any) -> None:
        """Store the constants under their names in the paper."""
        super().__init__(**kwargs)
        if n < 1 or n % 2 == 0:
            raise ValueError(f"`n` must be odd and positive. Received: n={n}")
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta
        self.fused = True  # by XLA, which only TensorFlow has; unfused, the last bits may differ

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the normalized activations."""
        constants = (self.k, self.n, self.alpha, self.beta)
        if not self.fused:
            return _plain_lrn(inputs, *constants)

        # XLA fuses the forward pass into one loop and the backward pass into another. With
        # TensorFlow's kernels, a training step on a CPU takes 20 % longer (benchmarks/LOG.md).
        @tf.custom_gradient
        def normalize(a: tf.Tensor) -> Any:
            return _lrn(a, *constants), lambda upstream: _lrn_gradient(a, upstream, *constants)

        return normalize(inputs)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        ours = {"k": self.k, "n": self.n, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **ours}


def _plain_lrn(a: tf.Tensor, k: float, n: int, alpha: float, beta: float) -> tf.Tensor:
    wide = tf.cast(a, tf.float32)
    scale = k + alpha * _window_sum(wide * wide, n)
    return tf.cast(wide * _power(scale, -beta), a.dtype)


_lrn = tf.function(_plain_lrn, jit_compile=True, autograph=False)


@tf.function(jit_compile=True, autograph=False)
def _lrn_gradient(
    a: tf.Tensor, upstream: tf.Tensor, k: float, n: int, alpha: float, beta: float
) -> tf.Tensor:
    """Return u_i · s_i^−β − 2αβ · a_i · Σ u_j · a_j · s_j^(−β−1), where s is the scale."""
    wide, upstream = tf.cast(a, tf.float32), tf.cast(upstream, tf.float32)
    scale = k + alpha * _window_sum(wide * wide, n)
    direct = upstream * _power(scale, -beta)
    through_neighbors = wide * _window_sum(direct * wide / scale, n)
    return tf.cast(direct - 2 * alpha * beta * through_neighbors, a.dtype)


def _power(x: tf.Tensor, exponent: float) -> tf.Tensor:
    return tf.exp(exponent * tf.math.log(x))  # exp and log are vectorized, XLA's pow is not


def _window_sum(x: tf.Tensor, n: int) -> tf.Tensor:
    """Return the sum of each channel and (n − 1)/2 channels on both sides, padded with 0."""
    channels = x.shape[-1]
    padded = tf.pad(x, ((0, 0), (0, 0), (0, 0), (n // 2, n // 2)))
    return tf.add_n([padded[..., i : i + channels] for i in range(n)])


class Center(keras.layers.Layer):
    """Subtract a mean image (height, width, channels), then scale: the first layer of an export."""

    def __init__(self, mean: Any, scale: float, **kwargs: Any) -> None:
        """Store the mean as a weight that is not trained, which other programs can read."""
        super().__init__(trainable=False, **kwargs)
        self.scale = scale
        self.mean = self.add_weight(shape=mean.shape, name="mean", trainable=False)
        self.mean.assign(mean)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return (inputs − mean) · scale."""
        return (inputs - self.mean) * self.scale


class TowerConv2D(keras.layers.Layer):
    """A convolution in independent towers (section 3.5, Figure 2).

    The channels are split into `towers` equal parts. Each is convolved with its own
    `filters / towers` kernels, and the results are concatenated: (batch, h, w, channels) →
    (batch, h, w, filters). On a CPU four times as fast as the equivalent `Conv2D(groups=towers)`.
    """

    def __init__(self, filters: int, kernel_size: int, towers: int, **kwargs: Any) -> None:
        """Create one `Conv2D` per tower, with an element of `kernel_initializers` each."""
        initializers = kwargs.pop("kernel_initializers")
        bias_initializer = kwargs.pop("bias_initializer")
        super().__init__(**kwargs)
        if filters % towers:
            raise ValueError(
                f"`filters` must be divisible by `towers`. Received: {filters} by {towers}"
            )
        self.towers = [
            keras.layers.Conv2D(
                filters // towers,
                kernel_size,
                padding="same",
                kernel_initializer=initializer,
                bias_initializer=bias_initializer,
                dtype=self.dtype_policy,
                name=f"tower{number}",
            )
            for number, initializer in enumerate(initializers, start=1)
        ]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the concatenated convolutions of the towers."""
        parts = tf.split(inputs, len(self.towers), axis=-1)
        return tf.concat([tower(part) for tower, part in zip(self.towers, parts)], axis=-1)
