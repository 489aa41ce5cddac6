"""Efficiency of a training step: its FLOP/s, divided by those of a matrix product on this machine.

    python -m benchmarks.step_efficiency

The paper's network with 1000 classes, fed from memory. Each rate is the best of several, and
products and steps alternate, so that other load on the machine affects neither alone. Then what
each layer takes by itself, forward and backward, and what is left of the step: the update of the
weights, mostly, less what it takes to call each layer.
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
from alexnet_cli.network.batch_layers import BatchRows, rows_of_batch  # noqa: E402
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
FIRST = ("conv1_edge", "conv1")  # no gradient of the images is needed


def flops_per_image(model: keras.Model) -> int:
    """Return 2 FLOP per multiply-add: forward, and backward to weights and inputs."""
    return sum(layer_flops(model).values())


def layer_flops(model: keras.Model) -> dict[str, int]:
    """Return the FLOP of each layer for an image, 0 for those without kernels.

    The first layer has no backward pass to its inputs, the images.
    """
    flops: dict[str, int] = {}
    for layer in model.layers:
        weights = sum(math.prod(v.shape) for v in layer.trainable_variables if len(v.shape) > 1)
        passes = 3 if any(flops.values()) else 2
        flops[layer.name] = 2 * passes * weights * math.prod(layer.output.shape[1:-1])
    return flops


def layer_seconds(layer: keras.layers.Layer, batch: int, backward_to_inputs: bool) -> float:
    """Return the least seconds of a layer's forward and backward pass on a random batch."""
    x = tf.cast(tf.random.normal((batch, *layer.input.shape[1:])), layer.compute_dtype)
    upstream = tf.cast(tf.random.normal((batch, *layer.output.shape[1:])), layer.compute_dtype)
    rows = BatchRows(tf.zeros(2, tf.int32), batch, tf.range(batch), tf.ones(batch, tf.bool))

    @tf.function
    def passes(x: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape, rows_of_batch(rows):
            tape.watch(x)
            y = layer(x, training=True)
        sources = [*layer.trainable_variables, *([x] if backward_to_inputs else [])]
        return tape.gradient(y, sources, output_gradients=upstream) or [y]

    return least_seconds(passes, x, upstream)


def least_seconds(function: Callable[..., tf.Tensor], *arguments: object) -> float:
    """Return the least seconds that `function` takes, after a warm-up."""
    seconds = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        result = function(*arguments)
        tf.test.experimental.sync_devices()  # to read the result could take as long as to compute it
        seconds.append(time.perf_counter() - began)
        del result
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
        rest = seconds
        for name, n_flops in layer_flops(model).items():
            layer = model.get_layer(name)
            if not isinstance(layer, keras.layers.InputLayer):
                alone = layer_seconds(layer, batch, backward_to_inputs=name not in FIRST)
                rest -= alone
                share = batch * n_flops / alone / peak if n_flops else None
                print_row(f"  {name}", f"{1000 * alone:.1f} ms, {alone / seconds:.0%}", share)
        print_row("  the rest", f"{1000 * rest:.1f} ms, {rest / seconds:.0%}")


if __name__ == "__main__":
    for precision in ("float32", "bfloat16"):
        bench(precision)
