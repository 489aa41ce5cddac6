"""Check that two versions of the program give the same results, bit by bit.

    python -m benchmarks.equivalence OLD [NEW]

OLD and NEW are commits, or folders that hold a checkout; NEW is by default the working tree. Both
versions run in this environment, one after the other, with the same seeds on the same images: a tiny
network for two epochs in float32, and the recipe `modern` for one epoch in the fastest precision of
this machine. The comparison covers all arrays of the run folders (weights, velocities, state of the
dropout, mean image), the rows of the history, and the predictions of NumPy (few images) and of
TensorFlow (many); names of files and arrays may differ. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import FLOWERS

ROOT = Path(__file__).parent.parent

# Hyperparameters of the tiny network by name; several names are those of different versions, the
# newest first.
_SIZES: dict[tuple[str, ...], int] = {
    ("resize_size", "stored_size"): 72,
    ("crop_size",): 64,
    **{(f"conv{number}.filters",): width for number, width in enumerate((8, 12, 8, 8, 8), 1)},
    **{(f"fc{number}.units",): 16 for number in (6, 7)},
}
_SAME = ("--gpus", "0", "--seed", "3")
_TRAININGS = {
    "tiny": ("--recipe", "paper", "--epochs", "2", "--batch-size", "8", "--precision", "float32"),
    "modern": ("--recipe", "modern", "--epochs", "1"),
}


@dataclass(frozen=True)
class Results:
    """The results of one training by one version, without the names of files and arrays."""

    arrays: Counter[str]  # by content
    names: dict[str, str]  # content → FILE:ARRAY, for messages
    history: list[list[float]]
    predictions: dict[str, list[tuple[str, float]]]  # by engine


class Version:
    """A checkout of the program, run in this environment."""

    def __init__(self, name: str, scratch: Path) -> None:
        """Use the folder `name` as it is, or unpack the commit `name` into `scratch`."""
        self.name, self.root = name, Path(name).resolve()
        if not self.root.is_dir():
            self.root = scratch / "checkout"
            self.root.mkdir()
            archive = subprocess.run(["git", "archive", name], cwd=ROOT, capture_output=True)
            if archive.returncode:
                raise SystemExit(f"{name}: neither a folder nor a commit of this repository")
            subprocess.run(["tar", "-x", "-C", self.root], input=archive.stdout, check=True)
        self.runs = scratch / "runs"
        known = self.run("recipes", "paper").split()
        self.sizes = [
            word
            for names, value in _SIZES.items()
            for word in ("--set", f"{next(name for name in names if name in known)}={value}")
        ]

    def run(self, *arguments: object) -> str:
        """Run a command of this version and return its output; exit if it fails."""
        command = [sys.executable, "-m", "alexnet_cli", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        done = subprocess.run(
            command, cwd=self.root.parent, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{self.name}: {' '.join(command)}\n{done.stderr}")
        return done.stdout

    def train(self, name: str) -> Results:
        """Run one of `_TRAININGS`, and predict with the trained model."""
        out = self.runs / name
        sizes = self.sizes if name == "tiny" else ()
        self.run("train", FLOWERS, *_TRAININGS[name], *_SAME, *sizes, "--out", out)
        (run,) = (path for path in out.iterdir() if not path.is_symlink())
        arrays = {f"{file}:{key}": array for file, key, array in _arrays(run)}
        contents = {key: _content(array) for key, array in arrays.items()}
        few, many = FLOWERS / "roses", FLOWERS
        return Results(
            arrays=Counter(contents.values()),
            names={content: key for key, content in contents.items()},
            history=_history(run),
            predictions={
                "NumPy": _predictions(self.run("predict", few, "--model", run, "--json")),
                "TensorFlow": _predictions(
                    self.run("predict", many, "--model", run, "--ten-crop", "--json")
                ),
            },
        )


def _arrays(run: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield file name, array name and array for every array in a run folder, except notes."""
    for path in sorted(run.iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as archive:
                yield from ((path.name, k, archive[k]) for k in archive.files if k != "notes")
        elif path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            yield from ((path.name, key, array) for key, array in load_file(path).items())


def _content(array: np.ndarray) -> str:
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _history(run: Path) -> list[list[float]]:
    """Return the rows of history.csv, without times and rates."""
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [[float(v or "nan") for k, v in row.items() if "second" not in k] for row in rows]


def _predictions(text: str) -> list[tuple[str, float]]:
    """Return the (class, probability) pairs of a JSON text in its order, at any depth."""

    def collect(value: Any) -> Iterator[tuple[str, float]]:
        if isinstance(value, dict) and value.keys() >= {"class", "probability"}:
            yield value["class"], value["probability"]
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from collect(inner)

    return list(collect(json.loads(text)))


def differences(one: Results, two: Results) -> list[str]:
    """Return a line for each kind of results that differs."""
    found = []
    for mine, theirs, whose in ((one, two, "OLD"), (two, one, "NEW")):
        for content in mine.arrays - theirs.arrays:
            found.append(f"only {whose} has the array {mine.names[content]}")
    if not np.array_equal(one.history, two.history, equal_nan=True):
        found.append(f"history: {one.history} against {two.history}")
    for engine, old in one.predictions.items():
        new = two.predictions[engine]
        if old != new:
            n = sum(a != b for a, b in zip(old, new))
            found.append(f"predictions by {engine}: {n} of {len(old)} ({len(new)}) differ")
    return found


def main() -> None:
    """Train both versions and compare them."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    names = (sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else str(ROOT))
    differ = False
    with tempfile.TemporaryDirectory() as scratch:
        versions = []
        for number, name in enumerate(names):
            (place := Path(scratch, str(number))).mkdir()
            versions.append(Version(name, place))
        for training in _TRAININGS:
            one, two = (version.train(training) for version in versions)
            found = differences(one, two)
            differ |= bool(found)
            n_predictions = sum(map(len, one.predictions.values()))
            print(
                f"{training}: {one.arrays.total()} arrays, {len(one.history)} epochs, "
                f"{n_predictions} probabilities: {'DIFFERENT' if found else 'equal'}",
                *found,
                sep="\n  ",
                flush=True,
            )
    raise SystemExit(differ)


if __name__ == "__main__":
    main()
