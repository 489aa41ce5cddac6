"""Peak memory of training, and what it is made of.

    python -m benchmarks.memory [FOLDER] [BATCH]

The same training twice, with batches of BATCH (128) and of 1: the images' share is the difference.
"""

from __future__ import annotations

import sys
import tempfile

from benchmarks.common import folder_of_photographs, line, run

# Prints the resident memory after the import, the peak of a few steps, and the network's own sums.
TRAIN = """
import math, resource, sys
from dataclasses import replace
from pathlib import Path
from alexnet_cli.system import tensorflow_startup
tensorflow_startup.load_tensorflow()
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.devices import choose_devices
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.training.callbacks import Callback

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

class Enough(Exception): pass

class Few(Callback):
    steps = 0
    def on_batch_end(self, epoch, done, total):
        self.steps += 1
        if self.steps == 6 or done == total:
            raise Enough

devices, batch = choose_devices(0), int(sys.argv[2])
at_rest = resident()
try:
    recipe = replace(PAPER, batch_size=batch)
    out = Path(sys.argv[3])
    start_and_resume.train(Path(sys.argv[1]), recipe=recipe, devices=devices, out=out, callback=Few())
except Enough:
    pass
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model = build_alexnet(PAPER, 5)
outputs = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
print(at_rest, peak, model.count_params(), outputs, devices.precision)
"""


def main() -> None:
    """Measure and explain."""
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else 128
    data = str(folder_of_photographs())
    with tempfile.TemporaryDirectory() as out:
        n_images = sum(1 for _ in folder_of_photographs().rglob("*.jpg"))
        found = {
            n: run([sys.executable, "-c", TRAIN, data, str(n), out]).split() for n in (batch, 1)
        }
    at_rest, peak, n_parameters, outputs = map(int, found[batch][:4])
    least = int(found[1][1])
    width = 4 if found[batch][4] == "float32" else 2

    def print_line(what: str, n_bytes: int) -> None:
        line(what, f"{n_bytes / 1e6:.0f} MB")

    print_line(f"peak, batches of {batch}, {found[batch][4]}", peak)
    print_line("  Python, TensorFlow, its threads", at_rest)
    print_line("  weights, velocities, gradients, 4 bytes each", 3 * 4 * n_parameters)
    print_line("  decoded images", n_images * 256 * 256 * 3)
    print_line("  peak with batches of 1, the above included", least)
    print_line(f"  {batch - 1} images more", peak - least)
    print_line(f"    of it every layer's output once, {width} bytes", (batch - 1) * width * outputs)
    print_line("    of it the crops, 4 batches ahead", 5 * (batch - 1) * 224 * 224 * 3 * 4)


if __name__ == "__main__":
    main()
