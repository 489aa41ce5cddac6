"""Data loading: images per second of training from disk, against the same step fed from memory.

    python -m benchmarks.data_loading [FOLDER] [--recipe modern] [--variant NAME] [--epochs 3]

FOLDER holds class folders of images, by default examples/flowers. Epochs from disk and from memory
take turns, so that other load on the machine meets both. Then what each augmentation of the recipe
costs: the processor time of an image with it less that without it, beside that of the bare step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet_cli.data.augment import Augmenter
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import DEFAULT, find_recipe
from alexnet_cli.recipes.variants import build_recipe
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.training.callbacks import Callback, TrainPlan
from benchmarks.common import FLOWERS, batch_of, print_row

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
        self.step_seconds: list[float] = []  # processor time of the step, for an image

    def on_train_begin(self, plan: TrainPlan) -> None:
        """Build a second network, and one batch for it."""
        recipe, n_classes = plan.config.recipe, len(plan.config.classes)
        self.n_images, self.batch_size = plan.n_images["train"], recipe.batch_size
        with self.devices.strategy.scope():
            model = build_alexnet(recipe, n_classes, seed=0, precision=self.devices.precision)
            variables = model.trainable_variables
            optimizer = PaperMomentum(variables, recipe.momentum, recipe.weight_decay)
        self.step = compile_step(
            model, optimizer, self.devices.strategy, recipe.batch_size, recipe.label_smoothing
        )
        self.rates = tf.fill([len(variables)], 1e-4)
        size = recipe.crop_size
        self.images = tf.random.normal((self.batch_size, size, size, 3), stddev=60.0)
        self.targets = tf.one_hot(tf.range(self.batch_size) % n_classes, n_classes)

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Time the steps of one epoch on the batch in memory."""
        self.from_disk.append(row.images_per_second)
        began, processor = time.perf_counter(), time.process_time()
        for start in range(0, self.n_images, self.batch_size):
            n = min(self.batch_size, self.n_images - start)
            batch = batch_of(self.images[:n], self.targets[:n])
            float(self.step(batch, self.rates)[0])
        self.from_memory.append(self.n_images / (time.perf_counter() - began))
        self.step_seconds.append((time.process_time() - processor) / self.n_images)


# How to switch off what a recipe may do to an image.
OFF = {
    "crop_area": {"crop_area": None},
    "jitter": {"jitter": 0.0},
    "trivial_augment": {"trivial_augment": False},
    "rotation": {"rotation": 0.0},
    "flip": {"flip": False},
    "color_noise": {"color_noise": 0.0},
}


def augmentation_seconds(recipe: Recipe, rounds: int = 5, n_images: int = 100) -> dict[str, float]:
    """Return the processor time of each augmentation of `recipe`, in seconds for an image."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, recipe.resize_size, recipe.resize_size, 3), np.uint8)
    mean = images[0].astype(np.float32)
    colors = Statistics(mean, np.eye(3))
    out = np.empty((recipe.crop_size, recipe.crop_size, 3), np.float32)

    def seconds(recipe: Recipe) -> float:
        augment = Augmenter(recipe, colors)
        began = time.process_time()
        for index in range(n_images):
            augment(images[index % len(images)], (0, 1, index, index), out)
        return (time.process_time() - began) / n_images

    without = {name: replace(recipe, **off) for name, off in OFF.items()}  # type: ignore[arg-type]
    without = {name: changed for name, changed in without.items() if changed != recipe}
    found: dict[str, list[float]] = {name: [] for name in without}
    for _ in range(rounds):
        for name, changed in without.items():
            found[name].append(seconds(recipe) - seconds(changed))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Train epochs after the first, which also decodes the images, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FLOWERS)
    parser.add_argument("--recipe", default=DEFAULT)
    parser.add_argument("--variant", action="append", default=[])
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    epochs = f"epochs={arguments.epochs + 1}"
    recipe = build_recipe(find_recipe(arguments.recipe), arguments.variant, [epochs])
    devices = choose_devices()
    callback = MemoryEpochs(devices)
    with tempfile.TemporaryDirectory() as folder:
        start_and_resume.train(
            arguments.folder, recipe=recipe, devices=devices, out=Path(folder), callback=callback
        )
    disk, memory, step = (
        statistics.median(values[1:])
        for values in (callback.from_disk, callback.from_memory, callback.step_seconds)
    )
    ratio = statistics.median(
        a / b for a, b in zip(callback.from_disk[1:], callback.from_memory[1:])
    )
    print_row(f"{recipe.name}: step from memory, {devices.precision}", f"{memory:.1f} images/s")
    print_row("alexnet train, from disk", f"{disk:.1f} images/s", ratio, "0.92")
    for name, seconds in augmentation_seconds(recipe).items():
        share = seconds / step
        print_row(f"  {name}, processor time of an image", f"{1000 * seconds:.2f} ms, {share:.1%}")


if __name__ == "__main__":
    main()
