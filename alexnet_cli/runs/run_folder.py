"""The run folder: its files, how they are written, and how they are read and checked.

    config.json             classes, recipe with every hyperparameter, seed, precision, versions
    statistics.safetensors  mean image and RGB covariance of the training images
    manifest.jsonl          every image, its class, split and SHA-256
    best.safetensors        weights of the latest epoch that validates as well as the best
    last.safetensors        weights, velocities and state of the last checkpoint, for resuming
    history.csv             a row for each epoch
    metrics.json            final train and validation metrics of the best and the last epoch
    report.md               findings of the diagnostics; hyperparameters compared with the paper
    curves.png              loss and accuracy by epoch
    fc7.safetensors         features of the training images, after neighbors were requested
    moved_data.json         where the images are now, after they were given anew
    .lock                   empty; exists while a process trains the run, or after a kill

Every file is written under a temporary name and then renamed, so it is complete or absent. A run
from someone else is data, never code: reading unpickles nothing and follows no link out of the folder.
Checksums are verified before contents are used, and sizes before memory is allocated. The CRC-32 of
each array is in the file of the array, so a kill can't separate the two; statistics.safetensors,
written last at the start, holds the SHA-256 of config.json and of the manifest, which never change.
Checksums detect damage, not manipulation: whoever edits a file can also update its checksum.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import AlexNetError, WrongPathError, describe_os_error
from alexnet_cli.network.weight_shapes import count_weights
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs import moved_data
from alexnet_cli.runs.checkpoint import CheckpointMeta
from alexnet_cli.runs.config import FORMAT, RunConfig, parse_config
from alexnet_cli.runs.records import FinalMetrics, history_csv, report_markdown
from alexnet_cli.runs.weights_file import Arrays, load_arrays, read_notes, reason, save_arrays
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import atomic_write, open_file, remove_leftovers, write_json

CONFIG, METRICS = "config.json", "metrics.json"
BEST, LAST = "best.safetensors", "last.safetensors"
STATISTICS, FC7 = "statistics.safetensors", "fc7.safetensors"
HISTORY, REPORT, CURVES = "history.csv", "report.md", "curves.png"
LATEST = "latest"
LOCK = ".lock"
RUNS = Path("runs")


class RunFolder:
    """A run on disk. Files that never change are read once, the last checkpoint at every access."""

    def __init__(self, path: Path) -> None:
        """Take the path of a folder, which need not exist."""
        self.path = path

    @classmethod
    def create(
        cls,
        out: Path,
        config: RunConfig,
        statistics: Statistics,
        manifest: Manifest,
        name: str | None = None,
    ) -> RunFolder:
        """Create a folder in `out` with configuration, statistics and manifest, or nothing.

        Its `name` is by default DATE_TIME-RECIPE.
        Raises `AlexNetError` if the folder can't be written.
        """
        latest = out / LATEST
        if latest.exists() and not latest.is_symlink():
            raise AlexNetError(
                f"{latest}: exists and is not a link. Move it; the link to the newest run needs its name"
            )
        try:
            run = cls(
                _new_folder(out, name or f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{config.recipe.name}")
            )
            try:
                write_json(run.path / CONFIG, {"format": FORMAT, **asdict(config)})
                write_manifest(manifest, run.path / MANIFEST)
                sums = {name: _sha256(run.path / name) for name in (CONFIG, MANIFEST)}
                save_arrays(run.path / STATISTICS, vars(statistics), {"sha256": sums})
            except BaseException:
                run.remove()
                raise
        except OSError as error:
            raise AlexNetError(describe_os_error(error, out)) from error
        return run

    @classmethod
    def find(cls, path: Path | None, out: Path = RUNS, *, begun: bool = False) -> RunFolder:
        """Return the run at `path`, by default the newest in `out`.

        The run must have the weights of a finished epoch; with `begun`, a checkpoint within the
        first epoch is enough. Raises `AlexNetError` with the name of a missing file.
        """
        if path is None:
            path = out / LATEST
        if path.name == LATEST and not path.exists():
            raise _without_latest(path, begun)
        if not path.is_dir():
            raise AlexNetError(
                f"{path}: no such run folder. Give that of a run, such as {RUNS / LATEST}"
            )
        if path.name in ("", ".."):  # `.` has no name for the target of `latest`
            path = path.resolve()
        if path.is_symlink():  # resolve now, as `latest` may soon point to another run
            target = path.readlink()
            if path.name == LATEST and len(target.parts) != 1:
                raise AlexNetError(
                    f"{path}: points out of {path.parent}/. Give the path of the run itself"
                )
            path = path.parent / target
        _require_files(path, begun)
        return cls(path)

    # Files that never change

    @cached_property
    def config(self) -> RunConfig:
        """The checked contents of config.json; raises `AlexNetError` if they are invalid."""
        path = self.path / CONFIG
        self._verify(CONFIG)
        try:
            with open_file(path, strict_json.MOST_BYTES) as file:
                return parse_config(file.read())
        except ValueError as error:
            raise AlexNetError(f"{path}: can't be read: {error}") from None
        except OSError as error:
            raise AlexNetError(f"{path}: can't be read: {reason(error)}") from None

    @cached_property
    def manifest(self) -> Manifest:
        """The images of the run, where they are now, with the classes of its configuration."""
        return self._read_manifest(moved_data.read_moved(self.path))

    def _read_manifest(self, root: Path | None) -> Manifest:
        self._verify(MANIFEST)
        manifest = read_manifest(self.path / MANIFEST, root)
        if manifest.classes != self.config.classes:
            raise AlexNetError(f"{self.path / MANIFEST}: has other classes than {CONFIG}")
        return manifest

    def images(self) -> Manifest:
        """Return `manifest`; raises `AlexNetError` if its images are no longer there."""
        moved_data.require_present(self.manifest, self.path)
        return self.manifest

    def move_data(self, root: Path, *, remember: bool = True) -> None:
        """Find the images in `root` from now on, and in later processes if `remember`.

        Raises `AlexNetError` unless the images of this run are there.
        """
        manifest = self._read_manifest(root.resolve())
        moved_data.require_same_images(manifest, self.config.recipe, self.path)
        if remember:
            with suppress(OSError):  # a run that is read-only, for which the folder is given anew
                moved_data.write_moved(self.path, manifest.root)
        self.manifest = manifest

    @cached_property
    def statistics(self) -> Statistics:
        """The mean image that is subtracted and the RGB covariance of the training images.

        The mean is that of the training images, or comes with the initial weights; of the size in
        the recipe.
        """
        path, size = self.path / STATISTICS, self.config.recipe.resize_size
        arrays = load_arrays(path, of=3 * size**2 + 18)
        shapes = {"mean_image": (size, size, 3), "covariance": (3, 3)}
        for name, shape in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype.kind != "f":
                raise AlexNetError(f"{path}: {name} is missing or not of shape {shape}")
            if not np.isfinite(array).all():
                raise AlexNetError(f"{path}: {name} contains NaN or infinite values")
        return Statistics(**{name: arrays[name] for name in shapes})

    def _verify(self, name: str) -> None:
        """Raise `AlexNetError` if a file has changed since the run began."""
        try:
            expected = read_notes(self.path / STATISTICS)["sha256"][name]
            found = _sha256(self.path / name)
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(
                f"{self.path / STATISTICS}: its notes can't be read: {error}"
            ) from None
        except OSError as error:
            raise AlexNetError(f"{self.path / name}: can't be read: {reason(error)}") from None
        if found != expected:
            raise AlexNetError(f"{self.path / name}: damaged, or changed since the run began")

    # Weights and checkpoints

    def weights(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Return the memory-mapped arrays of `BEST` or `LAST`, no more than the network needs."""
        n_weights = count_weights(self.config.recipe, len(self.config.classes))
        return load_arrays(self.path / name, of=n_weights * (2 if name == LAST else 1))

    @cached_property
    def temperature(self) -> float:
        """The temperature of the best weights: 1 without one, and until the training has ended."""
        if not (self.config.recipe.temperature_scaling and self.has_final_metrics):
            return 1.0
        metrics = self.metrics()
        # A resumed training writes later weights before it removes the metrics of the earlier ones.
        outdated = metrics.best.epoch != self.best_epoch()
        return 1.0 if outdated or not metrics.calibration else metrics.calibration.temperature

    def best_epoch(self) -> int:
        """Return the epoch of the best weights."""
        path = self.path / BEST
        try:
            return strict_json.parse(int, read_notes(path)["epoch"])
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(f"{path}: its notes can't be read: {error}") from None

    def checkpoint(self) -> CheckpointMeta:
        """Return the metadata of the last checkpoint."""
        path = self.path / LAST
        try:
            return strict_json.parse(CheckpointMeta, read_notes(path))
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(f"{path}: can't be read: {error}") from None

    def recipe(self) -> Recipe:
        """Return the recipe, with the number of epochs that was requested last."""
        return replace(self.config.recipe, epochs=self.checkpoint().planned_epochs)

    def save_best(self, arrays: Arrays, epoch: int) -> None:
        """Write the weights of the epoch that is kept, until a later one replaces them."""
        save_arrays(self.path / BEST, arrays, {"epoch": epoch})

    def save_checkpoint(self, arrays: Arrays, meta: CheckpointMeta) -> None:
        """Write a checkpoint, and remove the final metrics of an earlier epoch."""
        (self.path / METRICS).unlink(missing_ok=True)
        save_arrays(self.path / LAST, arrays, asdict(meta))

    # Records for the user

    def write_records(self, meta: CheckpointMeta, recipe: Recipe) -> None:
        """Write history.csv and report.md, and make the link `latest` point to this run."""
        with atomic_write(self.path / HISTORY) as file:
            file.write(history_csv(meta.history).encode())
        with atomic_write(self.path / REPORT) as file:
            file.write(report_markdown(recipe, meta.findings).encode())
        _link_latest(self.path)

    def metrics(self) -> FinalMetrics:
        """Return the contents of metrics.json; raises `AlexNetError` if training has not ended."""
        path = self.path / METRICS
        if not path.exists():
            raise AlexNetError(f"{path}: missing, as the training has not ended; resume it")
        try:
            with open_file(path, strict_json.MOST_BYTES) as file:
                return strict_json.parse(FinalMetrics, file.read())
        except (ValueError, OSError) as error:
            raise AlexNetError(f"{path}: can't be read: {error}") from None

    @property
    def has_final_metrics(self) -> bool:
        """Whether the final metrics exist, the last file that a training writes."""
        return (self.path / METRICS).exists()

    def remove_leftovers(self) -> None:
        """Remove temporary files of a killed training; the caller must hold the lock of the run."""
        for name in (BEST, LAST, HISTORY, REPORT, CURVES, METRICS):
            remove_leftovers(self.path / name)

    def remove(self) -> None:
        """Delete the run, which has no checkpoint yet."""
        shutil.rmtree(self.path, ignore_errors=True)


def _require_files(path: Path, begun: bool) -> None:
    needed = [CONFIG, STATISTICS, MANIFEST, LAST, BEST]
    for name in needed[:-1] if begun else needed:
        if (path / name).is_file():
            continue
        if name == CONFIG and (path / "model.json").is_file():
            raise AlexNetError(f"{path}: written by an older version of alexnet; train again")
        if name == CONFIG:
            raise AlexNetError(f"{path}: not a run folder, as it has no {CONFIG}")
        remedy = "resume it" if name == BEST else "train again"
        raise AlexNetError(f"{path}: incomplete run, {name} is missing; {remedy}")


def _without_latest(latest: Path, begun: bool) -> AlexNetError:
    """Return the error for a link `latest` that leads nowhere, with the newest run beside it."""
    out, problem = latest.parent, "is missing"
    if latest.is_symlink():
        problem = f"leads to the run {latest.readlink()}, which is gone"
    found = [path for path in out.iterdir() if _is_run(path, begun)] if out.is_dir() else []
    if found:
        newest = max(found, key=lambda path: ((path / LAST).stat().st_mtime, path.name))
        return WrongPathError(f"{latest}: {problem}. The newest run is {newest}", latest, newest)
    gone = f"{latest} {problem}. " if latest.is_symlink() else ""
    return AlexNetError(f"{out}/: holds no trained model. {gone}Train one with: alexnet train")


def _is_run(path: Path, begun: bool) -> bool:
    try:
        _require_files(path, begun)
    except (AlexNetError, OSError):
        return False
    return not path.is_symlink()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_file(path, sys.maxsize) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _new_folder(out: Path, stem: str) -> Path:
    """Make the folder `stem` in `out`, with a number behind its name where it is taken."""
    out.mkdir(parents=True, exist_ok=True)
    path, number = out / stem, 1
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:  # another run began within this second
            number += 1
            path = out / f"{stem}-{number}"


def _link_latest(path: Path) -> None:
    """Let `latest` beside a run folder lead to it."""
    link = path / f".{LATEST}"
    with suppress(OSError):  # a file system without links
        link.unlink(missing_ok=True)  # of a killed process
        link.symlink_to(path.name)
        os.replace(link, path.parent / LATEST)
