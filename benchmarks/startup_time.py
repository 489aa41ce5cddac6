"""Run time of `alexnet --help` and `alexnet predict`, and agreement of the NumPy and Keras networks.

    python -m benchmarks.startup_time [FOLDER]

`--help` is compared with the import of Typer and Rich, a prediction with the import of TensorFlow.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

import alexnet_cli as alexnet
from alexnet_cli.runs import models
from benchmarks.common import (
    alexnet_command,
    image_folder,
    median_seconds,
    print_row,
    run_command,
)


def bench_help() -> None:
    """Compare `alexnet --help` with the import of Typer and Rich."""
    imports = median_seconds([sys.executable, "-c", "import typer, rich"])
    ours = median_seconds(alexnet_command("--help"))
    print_row("import typer, rich", f"{imports:.3f} s")
    print_row("alexnet --help", f"{ours:.3f} s", ours / imports, "below 2")


def bench_predict(data: Path) -> None:
    """Compare the prediction of one image with the import of TensorFlow; then both networks."""
    image = next(path for path in sorted(data.rglob("*.jpg")))
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, so that this one has not imported TensorFlow yet.
        run_command(alexnet_command("train", data, "--epochs", 1, "--gpus", 0, "--out", folder))
        run = Path(folder, "latest")
        imports = median_seconds([sys.executable, "-c", "import tensorflow"])
        ours = median_seconds(alexnet_command("predict", image, "--model", run))
        print_row("import tensorflow", f"{imports:.2f} s")
        print_row("alexnet predict", f"{ours:.2f} s", ours / imports, "at most 0.6 s")
        bench_agreement(data, run)


def vary_formats(paths: list[Path], folder: Path) -> list[Path]:
    """Replace half of the images by PNG copies: rotated by EXIF, 16-bit gray or half transparent."""
    varied = []
    for number, path in enumerate(paths):
        copy = folder / f"{number}.png"
        with Image.open(path) as image:
            if number % 6 == 0:
                exif = Image.Exif()
                exif[ExifTags.Base.Orientation] = 2 + number // 6 % 7
                image.save(copy, exif=exif)
            elif number % 6 == 2:
                gray = np.asarray(image.convert("L")).astype(np.uint16) << 8
                Image.fromarray(gray).save(copy)
            elif number % 6 == 4:
                image.putalpha(image.convert("L"))
                image.save(copy)
        varied.append(copy if copy.exists() else path)
    return varied


def bench_agreement(data: Path, run: Path) -> None:
    """Compare the predictions of the NumPy and the Keras network on up to 300 images."""
    paths = sorted(data.rglob("*.jpg"))
    paths = vary_formats(random.Random(0).sample(paths, min(300, len(paths))), run.parent)
    found = []
    for name, few in (("NumPy", len(paths)), ("TensorFlow, import included", 0)):
        models.FEW_CROPS = few  # up to so many crops are computed in NumPy
        began = time.perf_counter()
        outcomes = list(alexnet.load(run).predict_files(paths, top=1000))
        seconds = time.perf_counter() - began
        found.append([o for o in outcomes if isinstance(o, alexnet.Prediction)])
        print_row(f"{len(paths)} images by {name}", f"{seconds:.2f} s")
    same = sum(a.classes == b.classes for a, b in zip(*found))
    difference = max(
        abs(p - q) for a, b in zip(*found) for p, q in zip(a.probabilities, b.probabilities)
    )
    print_row("images with the same order of classes", f"{same} of {len(paths)}")
    print_row("largest difference of a probability", f"{difference:.1e}", goal="at most 1e-4")


if __name__ == "__main__":
    bench_help()
    bench_predict(image_folder())
