"""Evaluation and prediction from files, against the same forward pass on crops in memory.

python -m benchmarks.inference [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet_cli.inference import evaluation
from alexnet_cli.network.crop_batches import BATCH_CROPS
from alexnet_cli.runs.models import LoadedModel, load_model
from benchmarks.common import alexnet_command, image_folder, link_images, print_row, run_command

# Runs in a process of its own, so that its peak memory is that of prediction alone.
PREDICT = """
import resource, sys, time
from pathlib import Path
import alexnet_cli as alexnet
images, n_images = sorted(Path(sys.argv[1]).rglob("*.jpg")), int(sys.argv[3])
paths = (images * -(-n_images // len(images)))[:n_images]
outcomes = alexnet.load(sys.argv[2]).predict_files(paths)
next(outcomes)  # the network is compiled, and the first batch computed
began, n_first = time.perf_counter(), 128
n = sum(1 for _ in outcomes) - n_first
print(n / (time.perf_counter() - began), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def forward_rate(model: LoadedModel, n_batches: int = 4) -> float:
    """Return the crops per second of the forward pass, from memory; the first pass compiles."""
    network, size = model.keras_network, model.recipe.crop_size
    crops = [np.zeros((1, size, size, 3), np.float32)] * BATCH_CROPS

    def rate() -> float:
        began = time.perf_counter()
        for _ in range(n_batches):
            network.probabilities(crops)
        return n_batches * BATCH_CROPS / (time.perf_counter() - began)

    rate()
    return max(rate(), rate())


def evaluation_rate(model: LoadedModel, *, ten_crop: bool) -> float:
    """Return the images per second of an evaluation, after its first batch."""
    times: list[float] = []
    evaluation.evaluate([model], split="train", ten_crop=ten_crop, progress=note_times(times))
    batch = BATCH_CROPS // 10 if ten_crop else BATCH_CROPS
    return (len(times) - batch) / (times[-1] - times[batch - 1])


def note_times(times: list[float]) -> Callable[[int, int], None]:
    """Return a progress function that appends the time of each call to `times`."""
    return lambda done, total: times.append(time.perf_counter())


def bench(data: Path) -> None:
    """Train one epoch, then measure the forward pass, evaluation and prediction."""
    with tempfile.TemporaryDirectory() as folder:
        # With two batches the start and the end would be most of the time.
        many = link_images(data, Path(folder, "data"), at_least=6 * BATCH_CROPS)
        run_command(alexnet_command("train", many, "--epochs", 1, "--gpus", 0, "--out", folder))
        model = load_model(Path(folder, "latest"))
        memory = forward_rate(model)
        one = evaluation_rate(model, ten_crop=False)
        ten = 10 * evaluation_rate(model, ten_crop=True)
        print_row("forward pass from memory", f"{memory:.1f} crops/s")
        print_row("alexnet evaluate", f"{one:.1f} images/s", one / memory, "0.9")
        print_row("alexnet evaluate --ten-crop", f"{ten:.1f} crops/s", ten / memory, "0.9")
        command = [sys.executable, "-c", PREDICT, str(data), str(model.path)]
        (_, few_gb), (rate, many_gb) = (
            map(float, run_command([*command, str(n)]).split()) for n in (500, 1500)
        )
        print_row("alexnet predict, 1500 images", f"{rate:.1f} images/s", rate / one, "0.8")
        print_row("  peak memory, 500 images", f"{few_gb:.2f} GB")
        print_row("  peak memory, 1500 images", f"{many_gb:.2f} GB", many_gb / few_gb, "1")


if __name__ == "__main__":
    bench(image_folder())
