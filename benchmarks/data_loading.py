"""Data loading: images per second of training from disk, against the same step fed from memory.

python -m benchmarks.data_loading [FOLDER]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.training.callbacks import Callback, TrainPlan
from benchmarks.common import batch_of, image_folder, print_row

tensorflow_startup.load_tensorflow()
import tensorflow as tf  # noqa: E402

from alexnet_cli.network.architecture import build_alexnet  # noqa: E402
from alexnet_cli.training import start_and_resume  # noqa: E402
from alexnet_cli.training.devices import Devices, choose_devices  # noqa: E402
from alexnet_cli.training.optimizer import PaperMomentum  # noqa: E402
from alexnet_cli.training.step import compile_step  # noqa: E402


class MemoryEpochs(Callback):
    """Follows each epoch from disk with one from memory, so that both meet the same other load."""

    def __init__(self, devices: Devices) -> None:
        """Prepare to run the second training step on the devices of the first."""
        self.devices = devices
        self.from_disk: list[float] = []  # images per second of each epoch
        self.from_memory: list[float] = []

    def on_train_begin(self, plan: TrainPlan) -> None:
        """Build a second network, and one batch for it."""
        recipe, n_classes = plan.config.recipe, len(plan.config.classes)
        self.n_images, self.batch_size = plan.n_images["train"], recipe.batch_size
        with self.devices.strategy.scope():
            model = build_alexnet(recipe, n_classes, seed=0, precision=self.devices.precision)
            variables = model.trainable_variables
            optimizer = PaperMomentum(variables, recipe.momentum, recipe.weight_decay)
        self.step = compile_step(model, optimizer, self.devices.strategy, recipe.batch_size)
        self.rates = tf.fill([len(variables)], 1e-4)
        size = recipe.crop_size
        self.images = tf.random.normal((self.batch_size, size, size, 3), stddev=60.0)
        self.targets = tf.one_hot(tf.range(self.batch_size) % n_classes, n_classes)

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Time the steps of one epoch on the batch in memory."""
        self.from_disk.append(row.images_per_second)
        began = time.perf_counter()
        for start in range(0, self.n_images, self.batch_size):
            n = min(self.batch_size, self.n_images - start)
            batch = batch_of(self.images[:n], self.targets[:n])
            float(self.step(batch, self.rates)[0])
        self.from_memory.append(self.n_images / (time.perf_counter() - began))


def main(epochs: int = 3) -> None:
    """Train `epochs` epochs after the first, which also decodes the images, and compare medians."""
    devices, recipe = choose_devices(), replace(PAPER, epochs=epochs + 1)
    callback = MemoryEpochs(devices)
    with tempfile.TemporaryDirectory() as folder:
        start_and_resume.train(
            image_folder(), recipe=recipe, devices=devices, out=Path(folder), callback=callback
        )
    disk, memory = (
        statistics.median(rates[1:]) for rates in (callback.from_disk, callback.from_memory)
    )
    print_row(f"step from memory, {devices.precision}", f"{memory:.1f} images/s")
    print_row("alexnet train, from disk", f"{disk:.1f} images/s", disk / memory, "0.9")


if __name__ == "__main__":
    main()
