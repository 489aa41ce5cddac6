"""The formula of docs/scale.md held against two processes on this machine.

    python -m benchmarks.scale

Both workers have one thread each. Measured alone: a step of half the batch in one process, and the
sum of the gradients over two. The formula says that a step of both takes the one and the other.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from benchmarks.common import line

WORKER = """
import os, sys, time
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.training.cluster import Cluster, wait_for_workers
index, addresses, batch = int(sys.argv[1]), tuple(sys.argv[2].split(",")), int(sys.argv[3])
cluster = Cluster(addresses, index) if len(addresses) > 1 else None
if cluster:
    wait_for_workers(cluster)
tensorflow_startup.load_tensorflow()
import numpy as np
import tensorflow as tf
from alexnet_cli.training.devices import choose_devices
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.training.optimizer import PaperMomentum
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.training.step import compile_step

devices = choose_devices(0, "float32", cluster)
strategy = devices.strategy
with strategy.scope():
    model = build_alexnet(PAPER, 1000, seed=0)
    rule = PaperMomentum(model.trainable_variables, 0.9, 0.0005)
step = compile_step(model, rule, strategy)
own = batch // len(addresses)

def spread(value):
    return strategy.experimental_distribute_values_from_function(lambda context: value)

images = spread(tf.random.normal((own, 224, 224, 3)))
targets = spread(tf.one_hot(tf.range(own) % 1000, 1000))
rates, count = tf.fill([len(model.trainable_variables)], 1e-4), tf.constant(float(batch))
gradients = [spread(tf.zeros(v.shape)) for v in model.trainable_variables]

@tf.function
def add_up(values):
    def replica(parts):
        context = tf.distribute.get_replica_context()
        return [tf.reduce_sum(x) for x in context.all_reduce("SUM", [tf.identity(x) for x in parts])]
    return strategy.run(replica, args=(values,))

def seconds(function, rounds=5):
    function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return sorted(times)[rounds // 2]

whole = seconds(lambda: float(step(images, targets, count, rates)[0]))
wire = seconds(lambda: [strategy.experimental_local_results(x)[0].numpy() for x in add_up(gradients)])
print(whole, wire)
"""
BYTES = 4 * 60_965_224


def begin(addresses: list[str], index: int, batch: int) -> subprocess.Popen[str]:
    """Start one worker of one thread."""
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2"}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(index), ",".join(addresses), str(batch)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **one_thread},
    )


def slowest(processes: list[subprocess.Popen[str]]) -> tuple[float, float]:
    """Wait for all; returns the seconds of a step and of a sum."""
    outputs = [map(float, process.communicate()[0].split()) for process in processes]
    step, wire = (max(found) for found in zip(*outputs))
    return step, wire


def main() -> None:
    """Compare formula and measurement for a small and a large batch."""
    for batch in (32, 128):
        # Two at once here too: they share the memory's bandwidth as the workers will.
        alone, _ = slowest([begin(["alone:1"], 0, batch // 2) for _ in range(2)])
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
        for s in sockets:
            s.close()
        together, wire = slowest([begin(addresses, index, batch) for index in range(2)])
        line(f"a step of {batch // 2}, one process", f"{alone:.2f} s")
        line("the sum of 244 MB over two", f"{wire:.2f} s, {BYTES / wire / 1e6:.0f} MB/s")
        line(f"a step of {batch} by two: the formula", f"{alone + wire:.2f} s")
        line("measured", f"{together:.2f} s", together / (alone + wire))


if __name__ == "__main__":
    main()
