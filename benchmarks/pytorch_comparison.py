"""Training speed from disk, compared with PyTorch and with the original Keras notebook.

    python -m benchmarks.pytorch_comparison FOLDER [--steps 12] [--repeats 2] [--torch PYTHON]

FOLDER holds class folders of images. `--torch` is the path of a Python that has PyTorch and Pillow,
if this one has not. Each program trains in a process of its own on the same images, in batches of
128 (32 for the notebook), one after the other, `--repeats` times. The result is the best rate of
each after a warm-up, as other load on the machine only ever slows a program down. Compare rates of
the same precision only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import alexnet_cli as alexnet
from benchmarks.common import run_command

OURS = """
import sys, time
import alexnet_cli as alexnet

class Enough(Exception): pass

class Clock(alexnet.Callback):
    def on_train_begin(self, plan):
        self.batch_size = plan.config.recipe.batch_size
    def on_batch_end(self, epoch, done, total):
        if epoch == 1:  # this epoch also decodes every image
            return
        if done == self.batch_size:
            self.began = time.perf_counter()
        elif done > steps * self.batch_size or done == total:
            print((done - self.batch_size) / (time.perf_counter() - self.began))
            raise Enough

data, steps, precision, out = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
try:
    alexnet.train(data, recipe="paper", gpus=0, precision=precision, out=out, callback=Clock())
except Enough:
    pass
"""

TORCH = """
import sys, time
from pathlib import Path
import numpy as np, torch
from PIL import Image, ImageOps
from torch import nn

class Images(torch.utils.data.Dataset):
    def __init__(self, root):
        classes = sorted(p for p in Path(root).iterdir() if p.is_dir())
        self.files = [(f, i) for i, c in enumerate(classes) for f in sorted(c.iterdir())]
    def __len__(self):
        return len(self.files)
    def __getitem__(self, index):
        path, label = self.files[index]
        with Image.open(path) as image:
            image = ImageOps.fit(image.convert("RGB"), (256, 256), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, np.float32) - 118
        top, left = np.random.randint(0, 33, 2)
        pixels = pixels[top : top + 224, left : left + 224]
        if np.random.rand() < 0.5:
            pixels = pixels[:, ::-1]
        pixels = pixels + np.random.normal(0, 10, 3).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), label

def lrn():
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)

net = nn.Sequential(
    nn.ZeroPad2d((0, 3, 0, 3)),
    nn.Conv2d(3, 96, 11, 4), nn.ReLU(True), lrn(), nn.MaxPool2d(3, 2),
    nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(True), lrn(), nn.MaxPool2d(3, 2),
    nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(True),
    nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(True),
    nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
    nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(True), nn.Dropout(),
    nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 5),
)
data, steps, bfloat16 = Images(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "bfloat16"
loader = torch.utils.data.DataLoader(
    data, batch_size=128, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
)
rule = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)
done = 0
while done < steps + 2:
    for x, y in loader:
        if done == 2:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = nn.functional.cross_entropy(net(x), y)
        rule.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()
        done += 1
        if done == steps + 2:
            break
print(128 * steps / (time.perf_counter() - began))
"""

NOTEBOOK = """
import sys, time
from alexnet_cli.system import tensorflow_startup
tensorflow_startup.load_tensorflow()
import keras
from keras import layers
from keras.src.legacy.preprocessing.image import ImageDataGenerator

steps = 4 * int(sys.argv[2])
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
    layers.Dense(5, activation="softmax"),
])
net.compile(keras.optimizers.SGD(0.001), "categorical_crossentropy", metrics=["accuracy"])
net.fit(flow, steps_per_epoch=3, epochs=1, verbose=0)
began = time.perf_counter()
net.fit(flow, steps_per_epoch=steps, epochs=1, verbose=0)
print(32 * steps / (time.perf_counter() - began))
"""


def training_rate(python: str, program: str, *arguments: object) -> float:
    """Run one program, and return the images per second that it prints last."""
    return float(run_command([python, "-c", program, *map(str, arguments)]).split()[-1])


def main() -> None:
    """Time every program, and print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--torch", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder, "data"), Path(folder, "runs")
        alexnet.split(arguments.folder, out=data, link="symbolic")
        train, steps, here = data / "train", arguments.steps, sys.executable
        programs: dict[str, tuple[str, str, *tuple[object, ...]]] = {
            "alexnet, float32": (here, OURS, data, steps, "float32", out),
            "alexnet, bfloat16": (here, OURS, data, steps, "bfloat16", out),
            "PyTorch, float32": (arguments.torch, TORCH, train, steps, "float32"),
            "PyTorch, bfloat16": (arguments.torch, TORCH, train, steps, "bfloat16"),
            "the notebook, float32": (here, NOTEBOOK, train, steps),
        }
        best = dict.fromkeys(programs, 0.0)
        for _ in range(arguments.repeats):
            for name, program in programs.items():
                best[name] = max(best[name], training_rate(*program))
                print(f"{name:<22} {best[name]:6.1f} images/s", flush=True)
    print(
        "\n| program, precision | images/s | divided by PyTorch's, same precision |\n|---|---|---|"
    )
    for name, value in best.items():
        _, precision = name.split(", ")
        print(f"| {name} | {value:.1f} | {value / best[f'PyTorch, {precision}']:.2f} |")


if __name__ == "__main__":
    main()
