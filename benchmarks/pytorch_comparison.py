"""Training speed from disk, compared with PyTorch's and with the original Keras notebook's.

    python -m benchmarks.pytorch_comparison [FOLDER] [--torch PYTHON] [--batch-size 128] [--steps 2]
                                            [--rounds 5]

FOLDER holds class folders of images, by default examples/flowers. `--torch` is the path of a Python
that has PyTorch and Pillow, if this one has not.

The paper's network is written in PyTorch in several ways (`VARIANTS`), and the fastest of them counts.
Both libraries use all cores and keep decoded images in memory; the notebook decodes them anew, as its
author wrote it. All programs of one precision run at the same time and take turns: in every round each
trains on `--steps` batches while the others wait, so that other load on the machine meets all alike.
A first round, in which they compile, does not count. Rates are medians over the rounds, and a ratio is
the median of the ratios of every round. Float32 is compared with float32, and bfloat16 with bfloat16,
if the processor computes it natively.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.common import FLOWERS, link_images, run_command

NATIVE_PRECISION = """
from alexnet_cli.system import tensorflow_startup
tensorflow_startup.load_tensorflow()
from alexnet_cli.training.devices import choose_devices
print(choose_devices(0).precision)
"""

# For each line on standard input a program trains on some batches and prints how many seconds it took.

OURS = """
import sys, time
import alexnet_cli as alexnet

class TakeTurns(alexnet.Callback):
    def on_train_begin(self, plan):
        self.wait()
    def wait(self):
        if not sys.stdin.readline():
            raise SystemExit
        self.left, self.began = steps, time.perf_counter()
    def on_batch_end(self, epoch, done, total):
        self.left -= 1
        if not self.left:
            print(time.perf_counter() - self.began, flush=True)
            self.wait()

data, batch_size, steps, precision, out = sys.argv[1:]
steps = int(steps)
alexnet.train(
    data, recipe="paper", gpus=0, batch_size=int(batch_size), precision=precision, check=False,
    out=out, callback=TakeTurns(),
)
"""

TORCH = """
import itertools, os, sys, time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, torch
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional as F

class TwoConvolutions(nn.Conv2d):
    def forward(self, x):
        parts = zip(x.chunk(2, 1), self.weight.chunk(2), self.bias.chunk(2))
        return torch.cat([F.conv2d(*part, padding=self.padding) for part in parts], 1)

class PointwiseLRN(nn.Module):
    def forward(self, x):
        squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
        total = sum(squares[:, i : i + x.shape[1]] for i in range(5))
        root = torch.rsqrt(2 + 1e-4 * total)
        return x * root * root.sqrt()  # the power of -0.75

def network(options):
    conv2 = TwoConvolutions if "two-convolutions" in options else nn.Conv2d
    def lrn():
        if "pointwise-lrn" in options:
            return PointwiseLRN()
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(True), lrn(), nn.MaxPool2d(3, 2),
        conv2(96, 256, 5, padding=2, groups=2), nn.ReLU(True), lrn(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(True),
        conv2(384, 384, 3, padding=1, groups=2), nn.ReLU(True),
        conv2(384, 256, 3, padding=1, groups=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(True), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, n_classes),
    )

def batches(channels_last):
    def prepare(number):
        random = np.random.default_rng(number)
        crops = np.empty((batch_size, 224, 224, 3), np.float32)
        chosen = random.integers(len(pixels), size=batch_size)
        for crop, index in zip(crops, chosen):
            top, left = random.integers(33, size=2)
            image = pixels[index, top : top + 224, left : left + 224]
            if random.random() < 0.5:
                image = image[:, ::-1]
            np.add(image, random.normal(-118, 10, 3).astype(np.float32), out=crop)
        x = torch.from_numpy(crops).permute(0, 3, 1, 2)
        return x if channels_last else x.contiguous(), torch.from_numpy(labels[chosen])
    with ThreadPoolExecutor(2) as pool:
        ahead = deque(pool.submit(prepare, n) for n in range(4))
        for number in itertools.count(4):
            yield ahead.popleft().result()
            ahead.append(pool.submit(prepare, number))

def trainer(options):
    net, channels_last = network(options), "channels-last" in options
    if channels_last:
        net.to(memory_format=torch.channels_last)
    rule = torch.optim.SGD(
        net.parameters(), 1e-4, 0.9, weight_decay=5e-4, fused="fused-sgd" in options or None
    )
    forward = torch.compile(net) if "compile" in options else net
    feed = batches(channels_last)
    def train():
        x, y = next(feed)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(forward(x), y)
        rule.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()
        assert np.isfinite(loss.item())
    return train

data, batch_size, steps, precision = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(len(os.sched_getaffinity(0)))
files = sorted(data.glob("*/*"))
classes = sorted({file.parent.name for file in files})
labels = np.array([classes.index(file.parent.name) for file in files])
n_classes = len(classes)
pixels = np.empty((len(files), 256, 256, 3), np.uint8)
for square, file in zip(pixels, files):
    with Image.open(file) as image:
        square[:] = ImageOps.fit(image.convert("RGB"), (256, 256), Image.Resampling.BILINEAR)
trainers = {}
for line in sys.stdin:
    if line not in trainers:
        trainers[line] = trainer(line.split())
    began = time.perf_counter()
    for _ in range(steps):
        trainers[line]()
    print(time.perf_counter() - began, flush=True)
"""

VARIANTS = {
    "PyTorch, eager": "",
    "PyTorch, eager, towers": "fused-sgd two-convolutions pointwise-lrn",
    "PyTorch, eager, towers, channels last": "fused-sgd two-convolutions pointwise-lrn channels-last",
    "PyTorch, compiled": "compile fused-sgd pointwise-lrn",
    "PyTorch, compiled, channels last": "compile fused-sgd pointwise-lrn channels-last",
    "PyTorch, compiled, towers": "compile fused-sgd two-convolutions pointwise-lrn",
    "PyTorch, compiled, towers, channels last": (
        "compile fused-sgd two-convolutions pointwise-lrn channels-last"
    ),
}

NOTEBOOK = """
import sys, time
from alexnet_cli.system import tensorflow_startup
tensorflow_startup.load_tensorflow()
import keras
from keras import layers
from keras.src.legacy.preprocessing.image import ImageDataGenerator

flow = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
    sys.argv[1], target_size=(227, 227), batch_size=32, class_mode="categorical"
)
net = keras.Sequential([
    layers.Input((227, 227, 3)),
    layers.Conv2D(96, 11, 4, activation="relu"), layers.BatchNormalization(),
    layers.MaxPooling2D(3, 2),
    layers.Conv2D(256, 5, padding="same", activation="relu"), layers.BatchNormalization(),
    layers.MaxPooling2D(3, 2),
    layers.Conv2D(384, 3, padding="same", activation="relu"),
    layers.Conv2D(384, 3, padding="same", activation="relu"),
    layers.Conv2D(256, 3, padding="same", activation="relu"), layers.MaxPooling2D(3, 2),
    layers.Flatten(), layers.Dense(4096, activation="relu"), layers.Dropout(0.5),
    layers.Dense(4096, activation="relu"), layers.Dropout(0.5),
    layers.Dense(flow.num_classes, activation="softmax"),
])
net.compile(keras.optimizers.SGD(0.001), "categorical_crossentropy", metrics=["accuracy"])
for line in sys.stdin:
    began = time.perf_counter()
    net.fit(flow, steps_per_epoch=int(sys.argv[2]) // 32, epochs=1, verbose=0)
    print(time.perf_counter() - began, flush=True)
"""


class Program:
    """A process that trains on some batches whenever it is its turn."""

    def __init__(self, python: str, code: str, *arguments: object) -> None:
        """Start the process; it waits for its first turn."""
        pipe = subprocess.PIPE
        command = [python, "-c", code, *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def take_turn(self, options: str = "") -> float:
        """Let it train, with the options of a variant, and return the seconds that took."""
        assert self._process.stdin
        assert self._process.stdout
        print(options, file=self._process.stdin, flush=True)
        while answer := self._process.stdout.readline():
            try:
                return float(answer)
            except ValueError:  # a message of a library
                continue
        raise SystemExit(f"a program ended with exit code {self._process.wait()}; see above")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def measure(
    data: Path, out: Path, precision: str, arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the images per second of every program in each round."""
    size, n_images = arguments.batch_size, arguments.batch_size * arguments.steps
    common = (size, arguments.steps, precision)
    with ExitStack() as stack:

        def start(*command: object) -> Program:
            program = Program(*map(str, command))
            stack.callback(program.close)
            return program

        turns = {"alexnet": (start(sys.executable, OURS, data, *common, out), "")}
        torch = start(arguments.torch, TORCH, data / "train", *common)
        turns |= {name: (torch, options) for name, options in VARIANTS.items()}
        if precision == "float32":
            notebook = start(sys.executable, NOTEBOOK, data / "train", n_images)
            turns["the notebook"] = (notebook, "")
        for name, (program, options) in turns.items():
            print(f"{precision}, first turn: {name}", flush=True)
            program.take_turn(options)
        rates: dict[str, list[float]] = {name: [] for name in turns}
        for number in range(arguments.rounds):
            for name, (program, options) in turns.items():
                rates[name].append(n_images / program.take_turn(options))
                print(f"{precision}, {number + 1}: {name} {rates[name][-1]:.1f}", flush=True)
    return rates


def comparison(rates: Mapping[str, Sequence[float]], precision: str) -> list[str]:
    """Return a table of rates, and the ratio of alexnet to its fastest rival in PyTorch.

    `rates`: images per second of every program, one for each round; the first is alexnet.
    """
    ours, *others = rates
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates[ours], rates[name])) for name in others
    }
    lines = [
        "",
        f"| {precision} | images/s, median | range | alexnet is … times as fast |",
        "|---|---|---|---|",
    ]
    for name, values in rates.items():
        cells = (
            name,
            f"{statistics.median(values):.1f}",
            f"{min(values):.1f} to {max(values):.1f}",
            f"{ratios[name]:.2f}" if name in ratios else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    rival = min((name for name in others if name in VARIANTS), key=lambda name: ratios[name])
    versus = f"as fast as the fastest in PyTorch ({rival}), both {precision}"
    return [*lines, "", f"{ours} is {ratios[rival]:.2f} times {versus}"]


def main() -> None:
    """Let all programs take turns in every precision that the processor has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FLOWERS)
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    native = run_command([sys.executable, "-c", NATIVE_PRECISION]).strip()
    # All in one epoch, as an epoch ends with a validation.
    n_images = arguments.batch_size * (arguments.steps * (arguments.rounds + 1) + 1)
    found: list[str] = []
    for precision in dict.fromkeys(("float32", native)):
        with tempfile.TemporaryDirectory() as folder:
            data = link_images(arguments.folder, Path(folder, "data"), n_images)
            rates = measure(data, Path(folder, "runs"), precision, arguments)
        found += comparison(rates, precision)
    print("\n".join(found))


if __name__ == "__main__":
    main()
