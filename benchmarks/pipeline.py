"""Does training wait for its data? Disk to weights, against the same step fed from memory.

python -m benchmarks.pipeline [FOLDER]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from alexnet_cli.system import tensorflow_startup
from benchmarks.common import folder_of_photographs


def bench_pipeline(data: Path, epochs: int = 3) -> None:
    """Compare training from disk with the same step fed from one tensor in memory.

    Epochs of both take turns, so that whatever else the machine does meets both alike.
    """
    tensorflow_startup.load_tensorflow()
    import tensorflow as tf

    from alexnet_cli.network.architecture import build_alexnet
    from alexnet_cli.recipes.presets import PAPER
    from alexnet_cli.training import start_and_resume
    from alexnet_cli.training.devices import choose_devices
    from alexnet_cli.training.optimizer import PaperMomentum
    from alexnet_cli.training.step import compile_step

    devices, batch = choose_devices(), PAPER.batch_size
    from_disk: list[float] = []
    from_memory: list[float] = []

    class Turns(start_and_resume.Callback):
        def on_train_begin(self, plan):
            self.n_images = plan.n_images["train"]
            with devices.strategy.scope():
                model = build_alexnet(PAPER, 5, seed=0, precision=devices.precision)
                rule = PaperMomentum(model.trainable_variables, PAPER.momentum, PAPER.weight_decay)
            self.step = compile_step(model, rule, devices.strategy)
            self.rates = tf.fill([len(model.trainable_variables)], 1e-4)
            self.images = tf.random.normal((batch, 224, 224, 3), stddev=60.0)
            self.targets = tf.one_hot(tf.range(batch) % 5, 5)

        def on_epoch_end(self, row, best):
            from_disk.append(row.images_per_second)
            began = time.perf_counter()
            for start in range(0, self.n_images, batch):
                n = min(batch, self.n_images - start)
                count, rates = tf.constant(float(n)), self.rates
                float(self.step(self.images[:n], self.targets[:n], count, rates)[0])
            from_memory.append(self.n_images / (time.perf_counter() - began))

    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(PAPER, epochs=epochs + 1)
        start_and_resume.train(
            data, recipe=recipe, devices=devices, out=Path(folder), callback=Turns()
        )
    disk, memory = (statistics.median(rates[1:]) for rates in (from_disk, from_memory))
    print(f"step from one tensor        {memory:6.1f} images/s in {devices.precision}")
    print(f"alexnet train, disk to step {disk:6.1f} images/s   {disk / memory:.3f} (goal: 0.9)")


if __name__ == "__main__":
    bench_pipeline(folder_of_photographs())
