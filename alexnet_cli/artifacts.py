"""The run folder: what training leaves behind, and how it is read back.

    model.json        classes, recipe with every constant, seed, precision, versions
    statistics.npz    mean image and RGB covariance of the training images
    manifest.jsonl    every image, its class, split and SHA-256
    best.npz          weights of the epoch with the lowest validation error
    last.npz          weights, velocities and counters of the last epoch: what resuming needs
    history.csv       a row per epoch
    metrics.json      final train and validation metrics of the best and the last epoch
    report.md         every constant beside the paper's, and what the doctor found
    curves.png        loss and accuracy by epoch

Every file is written beside its place and moved there whole. Reading never unpickles.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli import __version__
from alexnet_cli.doctor import Finding
from alexnet_cli.errors import AlexNetError
from alexnet_cli.files import atomic_write, sweep, write_json
from alexnet_cli.manifest import MANIFEST, Manifest, write_manifest
from alexnet_cli.metrics import EpochRow
from alexnet_cli.pipeline import Statistics
from alexnet_cli.recipes import Recipe

Arrays = Mapping[str, npt.NDArray[Any]]
FORMAT = 1
LATEST = "latest"


@dataclass(frozen=True)
class Card:
    """What a model is, apart from its weights."""

    recipe: Recipe
    classes: tuple[str, ...]
    seed: int
    precision: str
    data: str  # the folder it was trained on
    versions: dict[str, str]
    weights: str | None  # the model it started from


class RunFolder:
    """A run on disk."""

    def __init__(self, path: Path) -> None:
        """Point at a folder, which need not exist."""
        self.path = path

    @classmethod
    def create(cls, out: Path, card: Card, statistics: Statistics, manifest: Manifest) -> RunFolder:
        """Make `out`/DATE_TIME-RECIPE with card, statistics and manifest in it, or nothing at all.

        Raises `AlexNetError` if that can't be written.
        """
        latest = out / LATEST
        if latest.exists() and not latest.is_symlink():
            raise AlexNetError(f"{latest}: must be ours, to lead to the newest run; move it away")
        try:
            run = cls(cls._new_folder(out, card))
            try:
                write_json(run.path / "model.json", {"format": FORMAT, **asdict(card)})
                save_arrays(run.path / "statistics.npz", vars(statistics))
                write_manifest(manifest, run.path / MANIFEST)
            except BaseException:
                run.remove()
                raise
        except OSError as error:
            raise AlexNetError(f"{error.filename or out}: {error.strerror or error}") from error
        return run

    @staticmethod
    def _new_folder(out: Path, card: Card) -> Path:
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{card.recipe.name}"
        out.mkdir(parents=True, exist_ok=True)
        path, number = out / stem, 1
        while True:
            try:
                path.mkdir()
                return path
            except FileExistsError:  # another run began within this second
                number += 1
                path = out / f"{stem}-{number}"

    @classmethod
    def find(cls, path: Path | None, out: Path = Path("runs"), *, begun: bool = False) -> RunFolder:
        """Return the run at `path`, by default the newest in `out`.

        It must hold the weights of an epoch, or have `begun` one at least.
        """
        if path is None:
            path = out / LATEST
            if not path.exists():
                raise AlexNetError(f"no trained model in {out}/: `alexnet train` makes one")
        if not path.is_dir():
            raise AlexNetError(f"{path}: no such run folder")
        # Speak of the run, not of `latest`, which may soon lead elsewhere.
        run = cls(path.parent / path.readlink() if path.is_symlink() else path)
        needed = ["model.json", "statistics.npz", MANIFEST, "last.npz", "best.npz"]
        for name in needed[:-1] if begun else needed:
            if not (path / name).is_file():
                way_out = "resume it" if name == "best.npz" else "train again"
                raise AlexNetError(f"{path}: the run is incomplete, {name} is missing; {way_out}")
        return run

    def card(self) -> Card:
        """Read model.json."""
        path = self.path / "model.json"
        try:
            data = json.loads(path.read_bytes())
            if data.pop("format") != FORMAT:
                raise ValueError("it is of another version of alexnet; train again")
            data["recipe"] = Recipe.from_json(data["recipe"])
            return Card(**{**data, "classes": tuple(data["classes"])})
        except (AlexNetError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise AlexNetError(f"{path}: can't be read: {error}") from None
        except RecursionError:
            raise AlexNetError(f"{path}: can't be read: nested without end") from None

    def statistics(self) -> Statistics:
        """Read statistics.npz."""
        arrays = load_arrays(self.path / "statistics.npz")
        try:
            return Statistics(arrays["mean_image"], arrays["covariance"])
        except KeyError as error:
            raise AlexNetError(f"{self.path / 'statistics.npz'}: {error} is missing") from None

    def best_epoch(self) -> int:
        """Tell which epoch the best weights are from."""
        return int(self._notes("best")["epoch"])

    def _notes(self, weights: str) -> dict[str, Any]:
        path = self.path / f"{weights}.npz"
        try:
            notes: dict[str, Any] = load_notes(load_arrays(path, only="notes"))
            return {**notes, "epoch": int(notes["epoch"])}
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(f"{path}: its notes can't be read: {error}") from None

    def findings(self) -> tuple[Finding, ...]:
        """Read what the doctor found, as the last epoch's notes have it."""
        return tuple(Finding(**finding) for finding in self._notes("last")["findings"])

    def write_history(self, rows: Sequence[EpochRow]) -> None:
        """Write history.csv."""
        text = io.StringIO()
        names = [field.name for field in fields(EpochRow)]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        with atomic_write(self.path / "history.csv") as file:
            file.write(text.getvalue().encode())

    def write_report(self, text: str) -> None:
        """Write report.md."""
        with atomic_write(self.path / "report.md") as file:
            file.write(text.encode())

    def become_latest(self) -> None:
        """Let `latest` beside the run lead to it."""
        link = self.path / f".{LATEST}"
        link.unlink(missing_ok=True)  # of a killed process
        link.symlink_to(self.path.name)
        os.replace(link, self.path.parent / LATEST)

    @property
    def metrics(self) -> Path:
        """What training writes last of all."""
        return self.path / "metrics.json"

    def sweep(self) -> None:
        """Remove what a killed training was writing; the run must be held."""
        written = "best.npz last.npz history.csv report.md curves.png metrics.json"
        for name in written.split():
            sweep(self.path / name)

    def remove(self) -> None:
        """Delete a run that holds nothing yet."""
        shutil.rmtree(self.path, ignore_errors=True)


def save_arrays(path: Path, arrays: Arrays, notes: Mapping[str, Any] | None = None) -> None:
    """Write arrays, and JSON `notes`, as one .npz file, whose format keeps a CRC of each."""
    packed = dict(arrays)
    if notes is not None:
        packed["notes"] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **packed)


def load_arrays(path: Path, only: str | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an .npz file, or one; raises `AlexNetError` if it is damaged."""
    try:
        # Opened here, as np.load forgets to close a file that is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            file.seek(-12, os.SEEK_END)  # the count that ends the archive, as savez writes it
            if int.from_bytes(file.read(2), "little") != len(archive.files):
                raise ValueError("arrays are missing")
            arrays = {name: archive[name] for name in ([only] if only else archive.files)}
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("a member is no array")
            return arrays
    except Exception as error:  # zipfile and NumPy raise anything when a file lies
        raise AlexNetError(f"{path}: damaged or not an array file: {error}") from None


def load_notes(arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Take the JSON notes out of what `load_arrays` returned."""
    return json.loads(arrays.pop("notes").tobytes())


def changes(before: Mapping[str, str]) -> tuple[str, ...]:
    """Name what is another now than in these `versions`."""
    now = versions()
    return tuple(
        f"{name} {before.get(name, '?')}, now {now[name]}"
        for name in now
        if before.get(name) != now[name]
    )


def _n_processors() -> int | None:
    """Count those that this process may use, which are as many as TensorFlow's threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def versions() -> dict[str, str]:
    """Name what the bits of a run depend on: software, machine and number of threads."""
    packages = ("tensorflow", "keras", "numpy", "pillow")
    return {
        "alexnet": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "platform": f"{sys.platform} {platform.machine()}",
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS") or str(_n_processors()),
    }
