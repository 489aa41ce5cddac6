"""Efficiency of a training step: its FLOP/s, divided by those of a matrix product on this machine.

    python -m benchmarks.step_efficiency

The paper's network with 1000 classes, fed from memory. Each rate is the best of several, and products
and steps alternate, so that other load on the machine affects neither alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.system import tensorflow_startup
from benchmarks.common import batch_of, print_row

tensorflow_startup.load_tensorflow()
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from alexnet_cli.network.architecture import build_alexnet  # noqa: E402
from alexnet_cli.training.devices import choose_devices  # noqa: E402
from alexnet_cli.training.optimizer import PaperMomentum  # noqa: E402
from alexnet_cli.training.step import compile_step  # noqa: E402

GOALS = {
    ("float32", 128): 0.75,
    ("bfloat16", 128): 0.65,
    ("float32", 32): 0.65,
    ("bfloat16", 32): 0.5,
}
ROUNDS, SIDE = 3, 4096


def flops_per_image(model: keras.Model) -> int:
    """Return 2 FLOP per multiply-add: forward, and backward to weights and inputs.

    The first layer has no backward pass to its inputs, the images.
    """
    macs: list[int] = []
    for layer in model.layers:
        weights = sum(math.prod(v.shape) for v in layer.trainable_variables if len(v.shape) > 1)
        if weights:
            macs.append(weights * math.prod(layer.output.shape[1:-1]))
    return 2 * (3 * sum(macs) - macs[0])


def least_seconds(function: Callable[..., tf.Tensor], *arguments: object) -> float:
    """Return the least seconds that `function` takes, after a warm-up."""
    seconds = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        tf.nest.flatten(function(*arguments))[0].numpy()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def bench(precision: str) -> None:
    """Time matrix products and steps of two batch sizes in one precision."""
    devices = choose_devices(0, precision)
    a = tf.cast(tf.random.normal((SIDE, SIDE)), precision)
    product = tf.function(lambda a: tf.reduce_sum(tf.matmul(a, a)))
    with devices.strategy.scope():
        model = build_alexnet(PAPER, 1000, seed=0, precision=precision)
        optimizer = PaperMomentum(model.trainable_variables, PAPER.momentum, PAPER.weight_decay)
    flops = flops_per_image(model)
    for batch in (128, 32):
        images = tf.random.normal((batch, 224, 224, 3), stddev=60.0)
        targets = tf.one_hot(tf.range(batch) % 1000, 1000)
        step = compile_step(model, optimizer, devices.strategy, batch)
        rates = tf.fill([len(model.trainable_variables)], 1e-4)
        seconds = least_seconds(step, batch_of(images, targets), rates)
        peak = 2 * SIDE**3 / least_seconds(product, a)
        ours = batch * flops / seconds
        print_row(f"matrix product, {precision}", f"{peak / 1e9:.0f} GFLOP/s")
        rate = f"{batch / seconds:.1f} images/s, {ours / 1e9:.0f} GFLOP/s"
        print_row(f"step of {batch} images", rate, ours / peak, str(GOALS[precision, batch]))


if __name__ == "__main__":
    for precision in ("float32", "bfloat16"):
        bench(precision)
