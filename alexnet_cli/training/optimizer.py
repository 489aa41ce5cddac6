"""The update rule of the paper: momentum with weight decay inside the velocity."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


class PaperMomentum:
    """Momentum with weight decay, exactly as in section 5.

        v ← 0.9 · v − 0.0005 · ε · w − ε · ∂L/∂w
        w ← w + v

    This is v ← v − (0.0005 · ε / 0.9) · w, then v ← 0.9 · v − ε · ∂L/∂w: two fused operations that
    change velocity and weight where they are. At small batches a step waits for memory most, and a
    sum of gradient and decay would be written and read again. Only kernels decay, not biases or
    batch normalization. (`SGD(weight_decay=…)` of Keras is a different rule: it decays outside the
    velocity.)

    Create it within the scope of the strategy, so that velocities are mirrored like the weights.
    """

    def __init__(
        self, variables: Sequence[keras.Variable], momentum: float, weight_decay: float
    ) -> None:
        """Start with velocity 0 for each of the trainable `variables`."""
        self.momentum, self.weight_decay = momentum, weight_decay
        self.names = [variable.path for variable in variables]
        self.weights = [variable.value for variable in variables]
        self.velocities = [tf.Variable(tf.zeros_like(w), trainable=False) for w in self.weights]

    def named_velocities(self) -> dict[str, tf.Variable]:
        """Return the velocities by name: `velocity/fc8/kernel`, …"""
        return {f"velocity/{name}": v for name, v in zip(self.names, self.velocities)}

    def apply(self, gradients: Sequence[tf.Tensor], learning_rates: tf.Tensor) -> None:
        """Sum the `gradients` of all replicas and take one step; call it within a replica.

        `learning_rates`: float32 (variables,), ε of each.
        """
        replica = tf.distribute.get_replica_context()
        summed = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
        replica.merge_call(self._update, args=(summed, learning_rates))

    def _update(
        self,
        strategy: tf.distribute.Strategy,
        gradients: Sequence[tf.Tensor],
        learning_rates: tf.Tensor,
    ) -> None:
        rates = tf.unstack(learning_rates, len(self.weights))
        for weight, *rest in zip(self.weights, self.velocities, gradients, rates):
            strategy.extended.update(weight, self._step, args=tuple(rest), group=False)

    def _step(
        self, weight: tf.Variable, velocity: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor
    ) -> None:
        decay = self.weight_decay if len(weight.shape) > 1 else 0.0
        if decay and self.momentum:
            alpha = rate * (decay / self.momentum)
            tf.raw_ops.ResourceApplyGradientDescent(var=velocity.handle, alpha=alpha, delta=weight)
        elif decay:
            gradient += decay * weight
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=weight.handle, accum=velocity.handle, lr=rate, grad=gradient, momentum=self.momentum
        )
