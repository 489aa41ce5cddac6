"""The run folder: what training leaves behind, and how it is read back.

    config.json        classes, recipe with every constant, seed, precision, versions
    statistics.npz    mean image and RGB covariance of the training images
    manifest.jsonl    every image, its class, split and SHA-256
    best.npz          weights of the epoch with the lowest validation error
    last.npz          weights, velocities and counters of the last epoch: what resuming needs
    history.csv       a row per epoch
    metrics.json      final train and validation metrics of the best and the last epoch
    report.md         every constant beside the paper's, and what the doctor found
    curves.png        loss and accuracy by epoch

Every file is written beside its place and moved there whole. A run from someone else is data, never
code: reading unpickles nothing and leaves the folder by no link; checksums come before contents, and
the recipe's sizes before memory. Each array has its CRC-32 in its .npz file, so that the two can't be
parted by a kill; statistics.npz, written last at the start, keeps the SHA-256 of config.json and the
manifest, which never change. Checksums tell damage; whoever means harm can make them anew.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from alexnet_cli.data.store import Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.network import shapes
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.records import EpochRow, Finding
from alexnet_cli.runs.weights_file import load_arrays, load_notes, reason, save_arrays
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import atomic_write, open_file, remove_leftovers, write_json
from alexnet_cli.version import __version__

FORMAT = 1
PRECISIONS = ("float32", "bfloat16", "float16")
LATEST = "latest"


@dataclass(frozen=True)
class RunConfig:
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
    def create(
        cls, out: Path, config: RunConfig, statistics: Statistics, manifest: Manifest
    ) -> RunFolder:
        """Make `out`/DATE_TIME-RECIPE with config, statistics and manifest in it, or nothing at all.

        Raises `AlexNetError` if that can't be written.
        """
        latest = out / LATEST
        if latest.exists() and not latest.is_symlink():
            raise AlexNetError(f"{latest}: must be ours, to lead to the newest run; move it away")
        try:
            run = cls(cls._new_folder(out, config))
            try:
                write_json(run.path / "config.json", {"format": FORMAT, **asdict(config)})
                write_manifest(manifest, run.path / MANIFEST)
                sums = {name: run._sha256(name) for name in ("config.json", MANIFEST)}
                save_arrays(run.path / "statistics.npz", vars(statistics), {"sha256": sums})
            except BaseException:
                run.remove()
                raise
        except OSError as error:
            raise AlexNetError(f"{error.filename or out}: {error.strerror or error}") from error
        return run

    @staticmethod
    def _new_folder(out: Path, config: RunConfig) -> Path:
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{config.recipe.name}"
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
        if path.name in ("", ".."):  # `.`, which has no name that `latest` could lead to
            path = path.resolve()
        if path.is_symlink():  # speak of the run, not of `latest`, which may soon lead elsewhere
            target = path.readlink()
            if path.name == LATEST and len(target.parts) != 1:
                raise AlexNetError(f"{path}: leads out of {path.parent}/; name the run itself")
            path = path.parent / target
        run = cls(path)
        needed = ["config.json", "statistics.npz", MANIFEST, "last.npz", "best.npz"]
        for name in needed[:-1] if begun else needed:
            if not (path / name).is_file():
                if name == "config.json":
                    raise AlexNetError(f"{path}: is no run folder: config.json is missing")
                way_out = "resume it" if name == "best.npz" else "train again"
                raise AlexNetError(f"{path}: the run is incomplete, {name} is missing; {way_out}")
        return run

    def config(self) -> RunConfig:
        """Read config.json."""
        path = self.path / "config.json"
        self._verify("config.json")
        try:
            with open_file(path, strict_json.MOST_BYTES) as file:
                data = strict_json.loads(file.read())
            if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
                raise ValueError("it is of another version of alexnet; train again")
            config: RunConfig = strict_json.as_type(RunConfig, data)
            config.recipe.require_sound()
            if config.precision not in PRECISIONS:
                raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")
            if (
                not config.classes
                or len(set(config.classes)) < len(config.classes)
                or config.seed < 0
            ):
                raise ValueError("classes must be different names, and the seed not negative")
            shapes.count_weights(config.recipe, len(config.classes))
            return config
        except (AlexNetError, ValueError) as error:
            raise AlexNetError(f"{path}: can't be read: {error}") from None
        except OSError as error:
            raise AlexNetError(f"{path}: can't be read: {reason(error)}") from None

    def recipe(self) -> Recipe:
        """Read the recipe, for as many epochs as were last asked for."""
        return replace(self.config().recipe, epochs=self._note("last.npz", "planned", int))

    def manifest(self, classes: tuple[str, ...]) -> Manifest:
        """Read the manifest, which must have the model's `classes`."""
        self._verify(MANIFEST)
        manifest = read_manifest(self.path / MANIFEST)
        if manifest.classes != classes:
            raise AlexNetError(f"{self.path / MANIFEST}: has other classes than config.json")
        return manifest

    def statistics(self, recipe: Recipe) -> Statistics:
        """Read statistics.npz, which must fit `recipe`."""
        path = self.path / "statistics.npz"
        arrays = load_arrays(path, of=recipe.resize_size**2 * 3)
        shapes = {"mean_image": (recipe.resize_size, recipe.resize_size, 3), "covariance": (3, 3)}
        for name, shape in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype.kind != "f":
                raise AlexNetError(f"{path}: {name} is missing or not of shape {shape}")
            if not np.isfinite(array).all():
                raise AlexNetError(f"{path}: {name} holds values that are not finite")
        return Statistics(arrays["mean_image"], arrays["covariance"])

    def weights(self, name: str, config: RunConfig) -> dict[str, npt.NDArray[Any]]:
        """Read `best.npz` or `last.npz`, which can't be larger than the network of `config` needs."""
        n_weights = shapes.count_weights(config.recipe, len(config.classes))
        return load_arrays(self.path / name, of=n_weights * (2 if name == "last.npz" else 1))

    def best_epoch(self) -> int:
        """Tell which epoch the best weights are from."""
        return self._note("best.npz", "epoch", int)  # type: ignore[no-any-return]

    def findings(self) -> tuple[Finding, ...]:
        """Read what the doctor found, as the last epoch's notes have it."""
        return self._note("last.npz", "findings", tuple[Finding, ...])  # type: ignore[no-any-return]

    def _note(self, name: str, note: str, hint: Any) -> Any:
        path = self.path / name
        try:
            return strict_json.as_type(hint, load_notes(load_arrays(path, only="notes"))[note])
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(f"{path}: its notes can't be read: {error}") from None

    def _verify(self, name: str) -> None:
        """Raise `AlexNetError` if a file is not as it was when the run began."""
        path = self.path / "statistics.npz"
        try:
            arrays = load_arrays(path)
            if "notes" not in arrays:  # a run of before there were checksums
                return
            expected, found = load_notes(arrays)["sha256"][name], self._sha256(name)
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(f"{path}: its notes can't be read: {error}") from None
        except OSError as error:
            raise AlexNetError(f"{self.path / name}: can't be read: {reason(error)}") from None
        if found != expected:
            raise AlexNetError(f"{self.path / name}: is damaged or was changed since the run began")

    def _sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with open_file(self.path / name, sys.maxsize) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def write_history(self, rows: Sequence[EpochRow]) -> None:
        """Write history.csv."""
        text = io.StringIO()
        names = [field.name for field in fields(EpochRow)]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        with atomic_write(self.path / "history.csv") as file:
            file.write(text.getvalue().encode())

    def history(self) -> tuple[EpochRow, ...]:
        """Read the rows of all finished epochs."""
        return self._note("last.npz", "history", tuple[EpochRow, ...])  # type: ignore[no-any-return]

    def write_report(self, text: str) -> None:
        """Write report.md."""
        with atomic_write(self.path / "report.md") as file:
            file.write(text.encode())

    def become_latest(self) -> None:
        """Let `latest` beside the run lead to it."""
        link = self.path / f".{LATEST}"
        with suppress(OSError):  # a file system without links
            link.unlink(missing_ok=True)  # of a killed process
            link.symlink_to(self.path.name)
            os.replace(link, self.path.parent / LATEST)

    @property
    def metrics(self) -> Path:
        """What training writes last of all."""
        return self.path / "metrics.json"

    def remove_leftovers(self) -> None:
        """Remove what a killed training was writing; the run must be held."""
        written = "best.npz last.npz history.csv report.md curves.png metrics.json"
        for name in written.split():
            remove_leftovers(self.path / name)

    def remove(self) -> None:
        """Delete a run that holds nothing yet."""
        shutil.rmtree(self.path, ignore_errors=True)


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
