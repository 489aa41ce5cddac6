"""How long `--help` and a prediction take, against imports; and that NumPy predicts as TensorFlow.

python -m benchmarks.starting [FOLDER]
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from benchmarks.common import alexnet, folder_of_photographs, line, run, seconds_of


def bench_help() -> None:
    """Compare `alexnet --help` with the imports of Typer and Rich."""
    imports = seconds_of([sys.executable, "-c", "import typer, rich"])
    ours = seconds_of(alexnet("--help"))
    line("import typer, rich", f"{imports:.3f} s")
    line("alexnet --help", f"{ours:.3f} s", ours / imports, "below 2")


def bench_predict(data: Path) -> None:
    """Compare the prediction of one photograph with the import of TensorFlow."""
    photograph = next(path for path in sorted(data.rglob("*.jpg")))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "runs")
        run(alexnet("train", data, "--epochs", 1, "--gpus", 0, "--out", out))
        model = ("--model", out / "latest")
        imports = seconds_of([sys.executable, "-c", "import tensorflow"])
        ours = seconds_of(alexnet("predict", photograph, *model))
        line("import tensorflow", f"{imports:.2f} s")
        line("alexnet predict", f"{ours:.2f} s", ours / imports, "at most 0.6 s")
        bench_agreement(data, out / "latest")


def twist(paths: list[Path], folder: Path) -> list[Path]:
    """Turn half of the photographs: by an orientation, into 16 bits of gray, or half transparent."""
    twisted = []
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
        twisted.append(copy if copy.exists() else path)
    return twisted


def bench_agreement(data: Path, model: Path) -> None:
    """Compare what NumPy makes of up to 300 photographs with what TensorFlow does."""
    from alexnet_cli.inference import prediction
    from alexnet_cli.inference.results import Prediction
    from alexnet_cli.runs import models

    paths = sorted(data.rglob("*.jpg"))
    paths = twist(random.Random(0).sample(paths, min(300, len(paths))), model.parent)
    found = []
    for models.FEW in (len(paths), 0):
        began = time.perf_counter()
        outcomes = list(prediction.predict(paths, models=[model], top=1000))
        seconds = time.perf_counter() - began
        found.append([o for o in outcomes if isinstance(o, Prediction)])
        name = "NumPy" if models.FEW else "TensorFlow, its import included"
        line(f"{len(paths)} photographs by {name}", f"{seconds:.2f} s")
    same = sum(a.classes == b.classes for a, b in zip(*found))
    apart = max(
        abs(p - q) for a, b in zip(*found) for p, q in zip(a.probabilities, b.probabilities)
    )
    line("the same classes in the same order", f"{same} of {len(paths)}")
    line("probabilities differ by at most", f"{apart:.1e}", goal="at most 1e-4")


if __name__ == "__main__":
    bench_help()
    bench_predict(folder_of_photographs())
