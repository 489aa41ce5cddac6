"""Train, resume, and look at what a training left behind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_cli.errors import UsageError
from alexnet_cli.recipes.hyperparameters import Recipe, format_value
from alexnet_cli.recipes.presets import DEFAULT, find_recipe
from alexnet_cli.recipes.variants import build_recipe
from alexnet_cli.runs.config import RunConfig
from alexnet_cli.runs.models import load_model
from alexnet_cli.runs.records import EpochRow, FinalMetrics, Finding
from alexnet_cli.runs.run_folder import CURVES, RunFolder
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.system.workers import Progress

if TYPE_CHECKING:
    from alexnet_cli.api.models import Model
    from alexnet_cli.training.callbacks import Callback


class Run:
    """A training on disk: its configuration, history and metrics, and the model that it trained."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Open the run folder `path`, by default the newest in runs/.

        Raises `AlexNetError` if there is none, or if it holds no weights of a finished epoch.
        """
        self._folder = RunFolder.find(None if path is None else Path(path))

    def __repr__(self) -> str:
        """Return the call that opens this run."""
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def config(self) -> RunConfig:
        """The configuration: classes, recipe, seed, precision, versions."""
        return self._folder.config

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the number of epochs that were asked for last."""
        return self._folder.recipe()

    @property
    def history(self) -> tuple[EpochRow, ...]:
        """A row for each finished epoch: losses, accuracies, learning rate, speed."""
        return self._folder.checkpoint().history

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The problems that the diagnostics found while it trained."""
        return self._folder.checkpoint().findings

    @property
    def metrics(self) -> FinalMetrics:
        """The final train and validation scores of the best and the last epoch.

        Raises `AlexNetError` if the training has not ended.
        """
        return self._folder.metrics()

    def model(self) -> Model:
        """Return the model with the weights of the best epoch."""
        from alexnet_cli.api.models import load

        return load(self.path)

    def plot_curves(self, out: str | Path | None = None) -> Path:
        """Draw loss and accuracy by epoch as a PNG; returns its path, by default in the run folder."""
        path = self.path / CURVES if out is None else Path(out)
        draw_curves(self._folder, path)
        return path


def draw_curves(run: RunFolder, path: Path | None = None) -> None:
    """Draw loss and accuracy by epoch to `path`, by default in the run folder."""
    from alexnet_cli.reports import plots

    plots.draw_curves(run.checkpoint().history, path or run.path / CURVES)


def train(
    data: str | Path = "data",
    *,
    recipe: str | Recipe | None = None,
    variants: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    gpus: int | None = None,
    precision: str = "auto",
    weights: str | Path | None = None,
    hosts: Sequence[str] | None = None,
    rank: int | None = None,
    check: bool = True,
    seed: int = 0,
    out: str | Path = "runs",
    processes: bool = False,
    callback: Callback | None = None,
) -> Run | None:
    """Train AlexNet on a folder of images.

    Args:
        data: a folder that `split` wrote, or a folder of class folders, which is split in place.
        recipe: the name of a recipe, or a recipe; by default that of `weights`, or `modern`.
        variants: names of changes that the paper compared itself with, such as "no-lrn".
        overrides: hyperparameters by name: `{"cutmix": 0.0, "conv2.bias": 1}`.
        settings: the same as texts, `["cutmix=0", "conv2.bias=1"]`, as they are typed after --set.
        epochs, batch_size, learning_rate: shorthands for overrides; the batch size is that over all
            devices, the learning rate the highest of the run.
        gpus: the number of GPUs; 0 is the CPU, None all there are.
        precision: "float32", "bfloat16", "float16", or "auto", the fastest that the devices have.
        weights: a run folder or Caffe's .npy, whose weights all layers but the last start with.
        hosts, rank: the addresses (host:port) of all machines that train together, and which of
            them this process is; by default those of TF_CONFIG or Slurm.
        check: read images that are not split yet before training; else trust their names.
        seed: seeds initial weights, order, augmentation and dropout, and the split if there is none.
        out: the folder in which the run folder is made.
        processes: as for `split`.
        callback: receives what the training reports while it runs.

    Returns the run; on other machines than the first, None. Raises `AlexNetError` with one line that
    says what is wrong, what was saved and how to continue.
    """
    shorthands = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    values = {**(overrides or {}), **{k: v for k, v in shorthands.items() if v is not None}}
    settings = [*settings, *(f"{name}={_as_text(value)}" for name, value in values.items())]
    initial = load_model(Path(weights)) if weights else None
    base = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or DEFAULT)
    if initial and recipe is None:
        base = initial.recipe
    chosen = build_recipe(base, variants, settings)  # complains before the long wait
    devices = _start_devices(gpus, precision, hosts, rank)
    from alexnet_cli.training import start_and_resume

    run = start_and_resume.train(
        Path(data),
        recipe=chosen,
        devices=devices,
        out=Path(out),
        seed=seed,
        check=check,
        processes=processes,
        initial=initial,
        callback=callback,
        draw=draw_curves,
    )
    return Run(run.path) if run else None


def resume(
    path: str | Path,
    *,
    epochs: int | None = None,
    gpus: int | None = None,
    hosts: Sequence[str] | None = None,
    rank: int | None = None,
    callback: Callback | None = None,
) -> Run | None:
    """Continue the training in the run folder `path` from its last checkpoint.

    `epochs` is the number of epochs in all, by default as planned; the other arguments, the result
    and the errors are those of `train`.
    """
    devices = _start_devices(gpus, "auto", hosts, rank)
    from alexnet_cli.training import start_and_resume

    run = start_and_resume.resume(
        Path(path), devices=devices, epochs=epochs, callback=callback, draw=draw_curves
    )
    return Run(run.path) if run else None


def draw_figures(
    runs: Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw the figures of the paper from the first of `runs` (default: the newest run).

    Several are compared by their training errors. The pictures go to `out`, by default RUN/figures;
    `progress` tells how many training images have been looked at. Returns their paths.
    """
    from alexnet_cli.reports import paper_figures

    where = None if out is None else Path(out)
    return paper_figures.draw([Path(run) for run in runs] or None, where, progress)


def _start_devices(
    gpus: int | None, precision: str, hosts: Sequence[str] | None, rank: int | None
) -> Any:
    """Find the other machines, wait for them, and start TensorFlow on the devices of this one."""
    from alexnet_cli.training.cluster import find_cluster, wait_for_workers

    if isinstance(hosts, str):
        raise UsageError("must be a list of host:port", argument="hosts", value=hosts)
    cluster = find_cluster(hosts, rank, os.environ)
    if cluster:
        wait_for_workers(cluster)
    tensorflow_startup.load_tensorflow()
    from alexnet_cli.training.devices import choose_devices

    return choose_devices(gpus, precision, cluster)


def _as_text(value: Any) -> str:
    """Write a value as it is typed after `--set NAME=`."""
    if isinstance(value, list):
        value = tuple(value)
    return value if isinstance(value, str) else format_value(value)
