"""Peak memory of training, and its parts.

    python -m benchmarks.peak_memory [FOLDER] [BATCH]

The same training runs twice, with batches of BATCH (128) images and of 1: the difference is the
memory of the other images of a batch.
"""

from __future__ import annotations

import sys
import tempfile

from benchmarks.common import image_folder, print_row, run_command

# Prints resident memory before training and the peak after a few steps, in bytes; then the number
# of parameters, of layer outputs for an image, and of batches in memory; then the precision.
TRAIN = """
import math, resource, sys
from pathlib import Path
import alexnet_cli as alexnet
from alexnet_cli.system import tensorflow_startup
tensorflow_startup.load_tensorflow()
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.training.batches import PREFETCH_BATCHES
from alexnet_cli.training.devices import choose_devices

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

class Enough(Exception): pass

class FewSteps(alexnet.Callback):
    steps = 0
    def on_batch_end(self, epoch, done, total):
        self.steps += 1
        if self.steps == 6 or done == total:
            raise Enough

data, batch_size, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
precision = choose_devices(0).precision
at_rest = resident()
try:
    alexnet.train(
        data, recipe="paper", batch_size=batch_size, gpus=0, out=out, callback=FewSteps()
    )
except Enough:
    pass
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model = build_alexnet(PAPER, 5)
outputs = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
print(at_rest, peak, model.count_params(), outputs, PREFETCH_BATCHES + 1, precision)
"""


def print_megabytes(what: str, n_bytes: int) -> None:
    """Print a row with a number of bytes."""
    print_row(what, f"{n_bytes / 1e6:.0f} MB")


def main() -> None:
    """Measure both trainings, and print the peak and its parts."""
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else 128
    data = image_folder()
    n_images = sum(1 for _ in data.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as out:
        many, one = (
            run_command([sys.executable, "-c", TRAIN, str(data), str(n), out]).split()
            for n in (batch, 1)
        )
    precision = many.pop()
    at_rest, peak, n_parameters, outputs, n_batches = map(int, many)
    least, width = int(one[1]), 4 if precision == "float32" else 2
    print_megabytes(f"peak, batches of {batch}, {precision}", peak)
    print_megabytes("  Python, TensorFlow and its threads", at_rest)
    print_megabytes("  weights, velocities, gradients in float32", 3 * 4 * n_parameters)
    print_megabytes("  decoded images", n_images * 256 * 256 * 3)
    print_megabytes("  peak with batches of 1, all above included", least)
    print_megabytes(f"  {batch - 1} more images in a batch", peak - least)
    print_megabytes(f"    outputs of all layers, {width} bytes", (batch - 1) * width * outputs)
    print_megabytes(f"    crops, {n_batches} batches", n_batches * (batch - 1) * 224 * 224 * 3 * 4)


if __name__ == "__main__":
    main()
