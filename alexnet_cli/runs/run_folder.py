"""The run folder, which holds all that a training leaves behind, and how it is read back.

    config.json             classes, recipe with every hyperparameter, seed, precision, versions
    statistics.safetensors  mean image and RGB covariance of the training images
    manifest.jsonl          every image, its class, split and SHA-256
    best.safetensors        weights of the epoch with the lowest validation error
    last.safetensors        weights, velocities and state of the last checkpoint, for resuming
    history.csv             a row for each epoch
    metrics.json            final train and validation metrics of the best and the last epoch
    report.md               findings of the diagnostics; every hyperparameter beside the paper's
    curves.png              loss and accuracy by epoch
    fc7.safetensors         features of the training images, once neighbors have been asked for

Every file is written beside its place and moved there whole. A run from someone else is data, never
code: reading unpickles nothing and follows no link out of the folder; checksums come before
contents, and the sizes of the recipe before memory. Each array has its CRC-32 in its own file, so
that a kill can't part the two; the statistics file, written last at the start, keeps the SHA-256 of
config.json and of the manifest, which never change. Checksums show damage, not malice: whoever
changes a file on purpose can compute them anew.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.network.shapes import count_weights
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.checkpoint import CheckpointMeta
from alexnet_cli.runs.config import FORMAT, RunConfig, parse_config
from alexnet_cli.runs.records import EpochRow, FinalMetrics, Finding
from alexnet_cli.runs.weights_file import Arrays, load_arrays, read_notes, reason, save_arrays
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import (
    atomic_write,
    open_file,
    remove_leftovers,
    write_json,
)
from alexnet_cli.system.safe_names import markdown_safe

CONFIG, METRICS = "config.json", "metrics.json"
BEST, LAST = "best.safetensors", "last.safetensors"
STATISTICS, FC7 = "statistics.safetensors", "fc7.safetensors"
HISTORY, REPORT, CURVES = "history.csv", "report.md", "curves.png"
LATEST = "latest"
RUNS = Path("runs")


class RunFolder:
    """A run on disk. What never changes is read once; the last checkpoint is read every time."""

    def __init__(self, path: Path) -> None:
        """Point at a folder, which need not exist."""
        self.path = path

    @classmethod
    def create(
        cls, out: Path, config: RunConfig, statistics: Statistics, manifest: Manifest
    ) -> RunFolder:
        """Make `out`/DATE_TIME-RECIPE with configuration, statistics and manifest, or nothing.

        Raises `AlexNetError` if the folder can't be written.
        """
        latest = out / LATEST
        if latest.exists() and not latest.is_symlink():
            raise AlexNetError(
                f"{latest}: exists and is no link; move it away, as it must lead to the newest run"
            )
        try:
            run = cls(_new_folder(out, config.recipe.name))
            try:
                write_json(run.path / CONFIG, {"format": FORMAT, **asdict(config)})
                write_manifest(manifest, run.path / MANIFEST)
                sums = {name: run._sha256(name) for name in (CONFIG, MANIFEST)}
                save_arrays(run.path / STATISTICS, vars(statistics), {"sha256": sums})
            except BaseException:
                run.remove()
                raise
        except OSError as error:
            raise AlexNetError(f"{error.filename or out}: {error.strerror or error}") from error
        return run

    @classmethod
    def find(cls, path: Path | None, out: Path = RUNS, *, begun: bool = False) -> RunFolder:
        """Return the run at `path`, by default the newest in `out`.

        The run must have weights of a finished epoch; with `begun`, a checkpoint within its first
        epoch is enough. Raises `AlexNetError` that names what is missing.
        """
        if path is None:
            path = out / LATEST
            if not path.exists():
                raise AlexNetError(f"{out}/: holds no trained model. Train one with: alexnet train")
        if not path.is_dir():
            raise AlexNetError(f"{path}: no such run folder")
        if path.name in ("", ".."):  # `.`, which has no name that `latest` could lead to
            path = path.resolve()
        if path.is_symlink():  # name the run itself: `latest` may soon lead elsewhere
            target = path.readlink()
            if path.name == LATEST and len(target.parts) != 1:
                raise AlexNetError(f"{path}: leads out of {path.parent}/; name the run itself")
            path = path.parent / target
        run = cls(path)
        run._require_files(begun)
        return run

    def _require_files(self, begun: bool) -> None:
        needed = [CONFIG, STATISTICS, MANIFEST, LAST, BEST]
        for name in needed[:-1] if begun else needed:
            if (self.path / name).is_file():
                continue
            if name == CONFIG and (self.path / "model.json").is_file():
                raise AlexNetError(f"{self.path}: written by an older alexnet; train again")
            if name == CONFIG:
                raise AlexNetError(f"{self.path}: not a run folder, as it has no {CONFIG}")
            way_out = "resume it" if name == BEST else "train again"
            raise AlexNetError(f"{self.path}: incomplete run, {name} is missing; {way_out}")

    # What never changes

    @cached_property
    def config(self) -> RunConfig:
        """The checked contents of config.json; raises `AlexNetError` if they can't be used."""
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
        """The images of the run, in the classes of its configuration."""
        self._verify(MANIFEST)
        manifest = read_manifest(self.path / MANIFEST)
        if manifest.classes != self.config.classes:
            raise AlexNetError(f"{self.path / MANIFEST}: has other classes than {CONFIG}")
        return manifest

    @cached_property
    def statistics(self) -> Statistics:
        """The mean image and RGB covariance of the training images, in the sizes of the recipe."""
        path, size = self.path / STATISTICS, self.config.recipe.resize_size
        arrays = load_arrays(path, of=3 * size**2 + 18)
        shapes = {"mean_image": (size, size, 3), "covariance": (3, 3)}
        for name, shape in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype.kind != "f":
                raise AlexNetError(f"{path}: {name} is missing or not of shape {shape}")
            if not np.isfinite(array).all():
                raise AlexNetError(f"{path}: {name} holds values that are not finite")
        return Statistics(**{name: arrays[name] for name in shapes})

    def _verify(self, name: str) -> None:
        """Raise `AlexNetError` unless a file is as it was when the run began."""
        try:
            expected = read_notes(self.path / STATISTICS)["sha256"][name]
            found = self._sha256(name)
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(
                f"{self.path / STATISTICS}: its notes can't be read: {error}"
            ) from None
        except OSError as error:
            raise AlexNetError(f"{self.path / name}: can't be read: {reason(error)}") from None
        if found != expected:
            raise AlexNetError(f"{self.path / name}: damaged, or changed since the run began")

    def _sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with open_file(self.path / name, sys.maxsize) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    # Weights and checkpoints

    def weights(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Map the arrays of `BEST` or `LAST`, which can't be more than the network of the run needs."""
        n_weights = count_weights(self.config.recipe, len(self.config.classes))
        return load_arrays(self.path / name, of=n_weights * (2 if name == LAST else 1))

    def best_epoch(self) -> int:
        """Return the epoch that the best weights are from."""
        path = self.path / BEST
        try:
            return strict_json.parse(int, read_notes(path)["epoch"])
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(f"{path}: its notes can't be read: {error}") from None

    def checkpoint(self) -> CheckpointMeta:
        """Read the state of the last checkpoint, without its arrays."""
        path = self.path / LAST
        try:
            meta = strict_json.parse(CheckpointMeta, read_notes(path))
        except (ValueError, TypeError, KeyError) as error:
            raise AlexNetError(f"{path}: can't be read: {error}") from None
        return meta

    def recipe(self) -> Recipe:
        """Return the recipe, with the number of epochs that were asked for last."""
        return replace(self.config.recipe, epochs=self.checkpoint().planned_epochs)

    def save_best(self, arrays: Arrays, epoch: int) -> None:
        """Write the weights of the best epoch so far."""
        save_arrays(self.path / BEST, arrays, {"epoch": epoch})

    def save_checkpoint(self, arrays: Arrays, meta: CheckpointMeta) -> None:
        """Write what resuming needs; final metrics of fewer epochs go."""
        (self.path / METRICS).unlink(missing_ok=True)
        save_arrays(self.path / LAST, arrays, asdict(meta))

    # Records for people

    def write_records(self, meta: CheckpointMeta, recipe: Recipe) -> None:
        """Write history.csv and report.md from a checkpoint, and let `latest` lead to this run."""
        with atomic_write(self.path / HISTORY) as file:
            file.write(history_csv(meta.history).encode())
        with atomic_write(self.path / REPORT) as file:
            file.write(report_markdown(recipe, meta.findings).encode())
        _link_latest(self.path)

    def metrics(self) -> FinalMetrics:
        """Read metrics.json; raises `AlexNetError` if the training has not ended."""
        path = self.path / METRICS
        if not path.exists():
            raise AlexNetError(f"{path}: missing, as the training has not ended; resume it")
        try:
            with open_file(path, strict_json.MOST_BYTES) as file:
                metrics = strict_json.parse(FinalMetrics, file.read())
        except (ValueError, OSError) as error:
            raise AlexNetError(f"{path}: can't be read: {error}") from None
        return metrics

    @property
    def is_measured(self) -> bool:
        """Whether the final metrics, the last that a training writes, are there."""
        return (self.path / METRICS).exists()

    def remove_leftovers(self) -> None:
        """Remove what a killed training was writing; the caller must hold the lock of the run."""
        for name in (BEST, LAST, HISTORY, REPORT, CURVES, METRICS):
            remove_leftovers(self.path / name)

    def remove(self) -> None:
        """Delete a run that holds nothing yet."""
        shutil.rmtree(self.path, ignore_errors=True)


def report_markdown(recipe: Recipe, findings: Sequence[Finding]) -> str:
    """Return the report of a run: the problems in its training, and its recipe beside the paper's."""
    lines = [f"# {recipe.name}: {recipe.summary}", "", "## Does it learn?", ""]
    lines += [f"- {f.kind}, epoch {f.epoch}: {f.evidence}; {f.remedy}" for f in findings]
    if not findings:
        lines.append("The diagnostics found no problem.")
    lines += ["", "## Compared with the paper", "", "Differences are in bold."]
    text = "\n".join(map(markdown_safe, lines))
    return f"{text}\n\n{paper_comparison.as_markdown(recipe)}"


def _new_folder(out: Path, recipe: str) -> Path:
    """Make a folder in `out` that is named after the time and the recipe."""
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{recipe}"
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


def history_csv(rows: Sequence[EpochRow]) -> str:
    """Return the rows as CSV, with a header; None is an empty cell."""
    text = io.StringIO()
    names = [field.name for field in fields(EpochRow)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
