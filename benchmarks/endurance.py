"""Does a long training keep memory, open files and threads flat?

    python -m benchmarks.endurance [--steps 20000]

The training of `alexnet train`, with validation, doctor and saving each epoch, of a narrow network
on 200 tiny images in batches of 4. The slope is that of least squares after the first fifth, with
its standard error.
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

from alexnet_cli.runs.records import EpochRow
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.training.callbacks import Callback
from benchmarks.common import FLOWERS, line
from benchmarks.kills import NARROW

tensorflow_startup.load_tensorflow()

from alexnet_cli.training import start_and_resume  # noqa: E402
from alexnet_cli.training.devices import choose_devices  # noqa: E402


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Sampler(Callback):
    """Notes after each epoch what the process holds."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.steps = 0
        self.samples: list[tuple[int, int, int, int]] = []  # steps, bytes, files, threads

    def on_batch_end(self, epoch: int, done: int, total: int) -> None:
        """Count."""
        self.steps += 1

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Look."""
        gc.collect()  # what is left then is held
        n_files = len(os.listdir("/proc/self/fd"))
        n_threads = len(os.listdir("/proc/self/task"))
        self.samples.append((self.steps, resident(), n_files, n_threads))


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Fit a line by least squares; returns its slope and the slope's standard error."""
    away = x - x.mean()
    gain = float(away @ y / (away @ away))
    left = y - y.mean() - gain * away
    return gain, float(np.sqrt(left @ left / (len(x) - 2) / (away @ away)))


def main() -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    steps_an_epoch = 45  # 180 training images in batches of 4
    n_steps = parser.parse_args().steps
    recipe = replace(NARROW, batch_size=4, learning_rate=1e-5, epochs=-(-n_steps // steps_an_epoch))
    recipe = replace(recipe, dense=tuple(replace(layer, units=64) for layer in recipe.dense))
    sampler = Sampler()
    with tempfile.TemporaryDirectory() as out:
        start_and_resume.train(
            FLOWERS, recipe=recipe, devices=choose_devices(0), out=Path(out), callback=sampler
        )
    samples = np.array(sampler.samples, float)
    warm = samples[len(samples) // 5 :]
    line("steps, epochs", f"{sampler.steps:,}, {len(samples)}")
    for name, column in (("open files", 2), ("threads", 3)):
        ends = samples[[0, len(samples) // 5, -1], column].astype(int)
        line(f"{name}: first epoch, a fifth on, the end", ", ".join(map(str, ends)))
    line("threads of Python now", str(threading.active_count()))
    for epoch in np.linspace(0, len(samples) - 1, 9).astype(int):
        line(
            f"resident after {int(samples[epoch, 0]):,} steps", f"{samples[epoch, 1] / 1e6:.1f} MB"
        )
    gain, error = slope(warm[:, 0] / 1000, warm[:, 1])
    line("slope, bytes per 1000 steps", f"{gain:,.0f} ± {error:,.0f}")


if __name__ == "__main__":
    main()
