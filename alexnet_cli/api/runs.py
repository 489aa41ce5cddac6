"""Train, resume, and read the results of a training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_cli.api.arguments import (
    Count,
    Positive,
    Seed,
    as_folder,
    as_list,
    as_new_file,
    as_path,
    as_texts,
    check_argument,
    path_errors,
)
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.recipes.hyperparameters import Recipe, format_value
from alexnet_cli.recipes.presets import DEFAULT, find_recipe
from alexnet_cli.recipes.variants import FINETUNE, build_recipe
from alexnet_cli.runs.config import RunConfig
from alexnet_cli.runs.models import LoadedModel, load_model
from alexnet_cli.runs.records import EpochRow, FinalMetrics, Finding
from alexnet_cli.runs.run_folder import CURVES, RunFolder
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.system.workers import Progress

if TYPE_CHECKING:
    from alexnet_cli.api.models import Model
    from alexnet_cli.training.callbacks import Callback


class Run:
    """A run on disk: its configuration, history, metrics and trained model."""

    @path_errors()
    def __init__(self, path: str | Path | None = None) -> None:
        """Open the run folder `path`, by default the newest in runs/.

        Raises `AlexNetError` if there is none, or if no epoch is finished.
        """
        self._folder = RunFolder.find(None if path is None else as_path("path", path))

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
        """The recipe, with the number of epochs that was requested last."""
        return self._folder.recipe()

    @property
    def history(self) -> tuple[EpochRow, ...]:
        """A row for each finished epoch: losses, accuracies, learning rate, speed."""
        return self._folder.checkpoint().history

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The problems that the diagnostics found during training."""
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

    @path_errors()
    def plot_curves(self, out: str | Path | None = None) -> Path:
        """Draw loss and accuracy by epoch as a PNG; returns its path, by default in the run folder."""
        path = self.path / CURVES if out is None else as_new_file("out", out)
        draw_curves(self._folder, path)
        return path


def draw_curves(run: RunFolder, path: Path | None = None) -> None:
    """Draw loss and accuracy by epoch to `path`, by default in the run folder."""
    from alexnet_cli.reports import plots

    history = run.checkpoint().history
    if not history:
        raise AlexNetError(f"{run.path}: no epoch is finished, so there are no curves")
    name = run.config.recipe.name
    plots.draw_curves(history, run.best_epoch(), path or run.path / CURVES, name)


@path_errors()
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
        data: a folder that `split` wrote, or a folder of class folders or a list, as `split` takes
            them, which is split in place.
        recipe: the name of a recipe, or a recipe; by default `modern`, or with `weights` their own
            with the variant "finetune".
        variants: names of changes to the recipe, such as "half-size".
        overrides: hyperparameters by name: `{"cutmix": 0.0, "conv2.bias": 1}`.
        settings: the same as text, `["cutmix=0", "conv2.bias=1"]`, as after --set.
        epochs, batch_size, learning_rate: shorthands for overrides; the batch size is the total over
            all devices, the learning rate is the peak.
        gpus: the number of GPUs; 0 for the CPU, None for all GPUs.
        precision: "float32", "bfloat16", "float16", or "auto", the fastest natively supported.
        weights: a run folder or Caffe's .npy with the initial weights of all layers but the last, and
            the mean that is subtracted from the images.
        hosts, rank: the addresses (host:port) of all machines that train together, and which of
            them this process is; by default those of TF_CONFIG or Slurm.
        check: for unsplit data, read every image first; else select images by file extension.
        seed: seeds initialization, shuffling, augmentation, dropout, and the split of unsplit data.
        out: the folder in which the run folder is created.
        processes: as for `split`.
        callback: is notified of the progress of the training.

    Returns the run, or None on machines other than the first. Raises `AlexNetError` with one line:
    what is wrong, what was saved and how to continue.
    """
    check_argument("seed", seed, Seed)
    check_argument("gpus", gpus, Count | None)
    data, out = as_path("data", data), as_folder("out", out)
    shorthands = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    chosen, initial = choose_recipe(recipe, variants, overrides, settings, shorthands, weights)
    devices = _start_devices(gpus, precision, hosts, rank)
    from alexnet_cli.training import start_and_resume

    run = start_and_resume.train(
        data,
        recipe=chosen,
        devices=devices,
        out=out,
        seed=seed,
        check=check,
        processes=processes,
        initial=initial,
        callback=callback,
        draw=draw_curves,
    )
    return Run(run.path) if run else None


def choose_recipe(
    recipe: str | Recipe | None,
    variants: Iterable[str],
    overrides: Mapping[str, Any] | None,
    settings: Sequence[str],
    shorthands: Mapping[str, Any],
    weights: str | Path | None,
) -> tuple[Recipe, LoadedModel | None]:
    """Return the recipe that these arguments of `train` describe, and the model with `weights`."""
    variants, settings = as_texts("variants", variants), as_texts("settings", settings)
    if not isinstance(overrides, Mapping | None):
        raise UsageError("must be a dictionary", argument="overrides", value=overrides)
    values = {**(overrides or {}), **{k: v for k, v in shorthands.items() if v is not None}}
    texts = [*settings, *(f"{name}={_as_text(value)}" for name, value in values.items())]
    initial = load_model(as_path("weights", weights)) if weights else None
    if not isinstance(recipe, Recipe):
        check_argument("recipe", recipe, str | None)
    base = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or DEFAULT)
    if initial and recipe is None:
        base = initial.recipe
        if FINETUNE not in base.name.split("+"):  # the model may have started from others itself
            variants = [*variants, FINETUNE]
    elif not initial and FINETUNE in variants:
        reason = "needs weights to start from. Give weights, or leave it out"
        raise UsageError(reason, argument="variants", value=FINETUNE)
    try:
        chosen = build_recipe(base, variants, texts)  # an error comes before the long wait
    except UsageError as error:
        raise _in_terms_of_arguments(error, values, overrides or {}) from None
    return chosen, initial


@path_errors()
def resume(
    path: str | Path,
    *,
    epochs: int | None = None,
    gpus: int | None = None,
    hosts: Sequence[str] | None = None,
    rank: int | None = None,
    moved_data: str | Path | None = None,
    callback: Callback | None = None,
) -> Run | None:
    """Continue the training in the run folder `path` from its last checkpoint.

    `epochs` is the total number of epochs, by default as planned. `moved_data` is the folder in which
    the images are now, if they have moved since; it is checked, and remembered in the run. On several
    machines each may have its own, and that of the first is remembered. The other arguments, the
    result and the errors are those of `train`.
    """
    path = as_path("path", path)
    moved = None if moved_data is None else as_path("moved_data", moved_data)
    check_argument("epochs", epochs, Positive | None)
    check_argument("gpus", gpus, Count | None)
    devices = _start_devices(gpus, "auto", hosts, rank)
    from alexnet_cli.training import start_and_resume

    run = start_and_resume.resume(
        path,
        devices=devices,
        epochs=epochs,
        moved_data=moved,
        callback=callback,
        draw=draw_curves,
    )
    return Run(run.path) if run else None


@path_errors()
def draw_figures(
    runs: Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    moved_data: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw the figures of the paper from the first of `runs` (default: the newest run).

    Several runs are compared by their training errors. The figures are written to `out`, by default
    RUN/figures. `moved_data` is where the images of the first run are now, as for `load`. `progress`
    is called with (done, total) training images. Returns the paths.
    """
    folders = [as_path("runs", run) for run in as_list("runs", runs)]
    where = None if out is None else as_folder("out", out)
    moved = None if moved_data is None else as_path("moved_data", moved_data)
    from alexnet_cli.reports import paper_figures

    return paper_figures.draw(folders or None, where, progress, moved)


def _start_devices(
    gpus: int | None, precision: str, hosts: Sequence[str] | None, rank: int | None
) -> Any:
    """Connect to the other machines, if any, and start TensorFlow on this machine."""
    from alexnet_cli.training.cluster import find_cluster

    if isinstance(hosts, str):
        raise UsageError("must be a list of host:port", argument="hosts", value=hosts)
    cluster = find_cluster(hosts, rank, os.environ)
    tensorflow_startup.load_tensorflow()
    from alexnet_cli.training.devices import choose_devices

    return choose_devices(gpus, precision, cluster)


def _in_terms_of_arguments(
    error: UsageError, values: Mapping[str, Any], overrides: Mapping[str, Any]
) -> UsageError:
    """Return the error of a hyperparameter with the argument of `train` that set it."""
    name = str(error.value).partition("=")[0] if error.argument == "settings" else ""
    if name not in values:
        return error
    if name in overrides:
        return UsageError(error.reason, argument="overrides", value={name: overrides[name]})
    return UsageError(error.reason, argument=name, value=values[name])


def _as_text(value: Any) -> str:
    """Return a value as text for `--set NAME=`."""
    if isinstance(value, list):
        value = tuple(value)
    return value if isinstance(value, str) else format_value(value)
