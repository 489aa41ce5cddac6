"""How long `--help` and a prediction take, against the imports they can't do without.

python -m benchmarks.starting [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

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
    line("alexnet predict", f"{ours:.2f} s", ours / imports)
    line("alexnet predict, beyond the import", f"{ours - imports:.2f} s", goal="at most 1.0 s")


if __name__ == "__main__":
    bench_help()
    bench_predict(folder_of_photographs())
