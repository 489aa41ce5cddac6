"""Growth of memory, open files and threads over a long training.

    python -m benchmarks.endurance [--steps 20000]

A narrow network trains on 200 small images in batches of 4, with validation, diagnostics and a
checkpoint after each epoch. The slope of the memory is that of least squares after the first fifth
of the epochs, with its standard error.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

import alexnet_cli as alexnet
from alexnet_cli.runs.records import EpochRow
from benchmarks.common import FLOWERS, print_row
from benchmarks.kill_and_resume import NARROW


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Sampler(alexnet.Callback):
    """Records memory, open files and threads of this process after each epoch."""

    def __init__(self) -> None:
        """Begin without samples."""
        self.steps = 0
        self.samples: list[tuple[int, int, int, int]] = []  # steps, bytes, files, threads

    def on_batch_end(self, epoch: int, done: int, total: int) -> None:
        """Count the step."""
        self.steps += 1

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Take a sample."""
        gc.collect()  # garbage that Python has not collected yet is no leak
        n_files = len(os.listdir("/proc/self/fd"))
        n_threads = len(os.listdir("/proc/self/task"))
        self.samples.append((self.steps, resident(), n_files, n_threads))


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the slope of the line fitted by least squares, and its standard error."""
    away = x - x.mean()
    gain = float(away @ y / (away @ away))
    left = y - y.mean() - gain * away
    return gain, float(np.sqrt(left @ left / (len(x) - 2) / (away @ away)))


def main() -> None:
    """Train, and print the samples and the slope."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    steps_an_epoch = 45  # 180 training images in batches of 4
    n_steps = parser.parse_args().steps
    recipe = replace(NARROW, batch_size=4, learning_rate=1e-5, epochs=-(-n_steps // steps_an_epoch))
    recipe = replace(recipe, dense=tuple(replace(layer, units=64) for layer in recipe.dense))
    sampler = Sampler()
    with tempfile.TemporaryDirectory() as out:
        alexnet.train(FLOWERS, recipe=recipe, gpus=0, out=out, callback=sampler)
    samples = np.array(sampler.samples, float)
    warm = samples[len(samples) // 5 :]
    print_row("steps, epochs", f"{sampler.steps:,}, {len(samples)}")
    for name, column in (("open files", 2), ("threads", 3)):
        ends = samples[[0, len(samples) // 5, -1], column].astype(int)
        print_row(f"{name} after one epoch, a fifth, all", ", ".join(map(str, ends)))
    print_row("Python threads at the end", str(threading.active_count()))
    for epoch in np.linspace(0, len(samples) - 1, 9).astype(int):
        steps, n_bytes = samples[epoch, :2]
        print_row(f"resident memory after {steps:,.0f} steps", f"{n_bytes / 1e6:.1f} MB")
    gain, error = slope(warm[:, 0] / 1000, warm[:, 1])
    print_row("slope, bytes per 1000 steps", f"{gain:,.0f} ± {error:,.0f}")


if __name__ == "__main__":
    main()
