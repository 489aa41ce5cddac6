"""Step time of two workers on this machine, against the formula of docs/performance.md.

    python -m benchmarks.cluster_scaling

Each worker has one thread. The formula adds two times, which are measured separately: a step of half
the batch in one process, and the all-reduce of the gradients over both.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.common import free_addresses, print_row

WORKER = """
import os, sys, time
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.training.cluster import Cluster
index, addresses, batch = int(sys.argv[1]), tuple(sys.argv[2].split(",")), int(sys.argv[3])
cluster = Cluster(addresses, index) if len(addresses) > 1 else None
tensorflow_startup.load_tensorflow()
import numpy as np
import tensorflow as tf
from alexnet_cli.training.devices import choose_devices
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.training.optimizer import PaperMomentum
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.training.batches import Batch
from alexnet_cli.training.step import compile_step

devices = choose_devices(0, "float32", cluster)
strategy = devices.strategy
with strategy.scope():
    model = build_alexnet(PAPER, 1000, seed=0)
    optimizer = PaperMomentum(model.trainable_variables, 0.9, 0.0005)
step = compile_step(model, optimizer, strategy, batch)
own = batch // len(addresses)

def spread(value):
    return strategy.experimental_distribute_values_from_function(lambda context: value)

images = spread(tf.random.normal((own, 224, 224, 3)))
targets = spread(tf.one_hot(tf.range(own) % 1000, 1000))
rates = tf.fill([len(model.trainable_variables)], 1e-4)
positions = spread(index * own + tf.range(own))
shared = Batch(images, targets, positions, tf.zeros(2, tf.int32))
gradients = [spread(tf.zeros(v.shape)) for v in model.trainable_variables]

@tf.function
def all_reduce(values):
    def replica(parts):
        context = tf.distribute.get_replica_context()
        return [tf.reduce_sum(x) for x in context.all_reduce("SUM", [tf.identity(x) for x in parts])]
    return strategy.run(replica, args=(values,))

def median_seconds(function, rounds=5):
    function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return sorted(times)[rounds // 2]

step_seconds = median_seconds(lambda: float(step(shared, rates)[0]))
reduce_seconds = median_seconds(lambda: [strategy.experimental_local_results(x)[0].numpy() for x in all_reduce(gradients)])
print(step_seconds, reduce_seconds)
"""
GRADIENT_BYTES = 4 * 60_965_224


def start_worker(addresses: list[str], index: int, batch: int) -> subprocess.Popen[str]:
    """Start one worker with one thread."""
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2"}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(index), ",".join(addresses), str(batch)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **one_thread},
    )


def slowest(processes: list[subprocess.Popen[str]]) -> tuple[float, float]:
    """Wait for all workers; returns the longest seconds of a step and of an all-reduce."""
    outputs = [map(float, process.communicate()[0].split()) for process in processes]
    step, reduction = (max(found) for found in zip(*outputs))
    return step, reduction


def main() -> None:
    """Compare formula and measurement for a small and a large batch."""
    for batch in (32, 128):
        # Two independent processes at once, as two workers share the memory bandwidth too.
        alone, _ = slowest([start_worker(["alone:1"], 0, batch // 2) for _ in range(2)])
        addresses = free_addresses(2)
        together, reduction = slowest([start_worker(addresses, rank, batch) for rank in range(2)])
        rate = GRADIENT_BYTES / reduction / 1e6
        formula = alone + reduction
        print_row(f"step of {batch // 2} images, one process", f"{alone:.2f} s")
        print_row("all-reduce of 244 MB", f"{reduction:.2f} s, {rate:.0f} MB/s")
        print_row(f"step of {batch} images, two workers: formula", f"{formula:.2f} s")
        print_row("  measured", f"{together:.2f} s", together / formula)


if __name__ == "__main__":
    main()
