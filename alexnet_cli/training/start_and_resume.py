"""Start a training, or resume one: from folders to a finished run, and errors as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from alexnet_cli.data import scan_cache, split_folders
from alexnet_cli.data.manifest import Manifest, Rejected
from alexnet_cli.data.scanning import ScanOptions
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.config import RunConfig, changed_versions, current_versions
from alexnet_cli.runs.models import LoadedModel
from alexnet_cli.runs.records import FinalMetrics, FinalScore
from alexnet_cli.runs.run_folder import BEST, LAST, LOCK, METRICS, RUNS, RunFolder
from alexnet_cli.system.atomic_files import write_json
from alexnet_cli.system.locks import own_lock_file
from alexnet_cli.system.signals import Interrupted, catch_signals
from alexnet_cli.training import scoring
from alexnet_cli.training.callbacks import Callback, TrainPlan
from alexnet_cli.training.cluster import WorkerLost
from alexnet_cli.training.devices import Devices
from alexnet_cli.training.step_memory import out_of_memory, require_memory
from alexnet_cli.training.trainer import Trainer
from alexnet_cli.training.training_data import open_training_data, require_same_split

# What TensorFlow raises when a worker has died.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)

Draw = Callable[[RunFolder], object]  # draws pictures of a run whose epochs are all on disk


def _draw_nothing(run: RunFolder) -> None:
    pass


def train(
    data: Path | Manifest,
    *,
    recipe: Recipe,
    devices: Devices,
    out: Path = RUNS,
    seed: int = 0,
    check: bool = True,
    processes: bool = True,
    initial: LoadedModel | None = None,
    callback: Callback | None = None,
    draw: Draw = _draw_nothing,
    name: str | None = None,
) -> RunFolder | None:
    """Train `recipe` on `data`, a split, a folder of class folders or a list, in a new run folder in `out`.

    `name` is that of the run folder, by default DATE_TIME-RECIPE.
    `seed` seeds initial weights, order, augmentation and dropout, and the split if `data` is not
    split yet. Without `check`, images that are not split yet are selected by their names and not
    read. All layers but the last start with the weights of `initial`, if given, and its mean is
    subtracted from the images. `draw` is called when
    all epochs are on disk, before metrics.json says that the run is complete. A run folder in which
    nothing was saved is removed again.

    Returns the run, with its final metrics; other workers of a cluster than the chief return None. Raises
    `AlexNetError` with one line about what was saved, if the training can't start or go on.
    """
    callback = callback or Callback()
    options = ScanOptions(check, scan_cache.cache_path(out), callback.on_read_progress, processes)
    manifest = (
        data
        if isinstance(data, Manifest)
        else split_folders.open_data(data, seed=seed, options=options)
    )
    out.mkdir(parents=True, exist_ok=True)
    try:
        opened = open_training_data(manifest, recipe, devices, out, callback)
    except BaseException:
        with suppress(OSError):
            out.rmdir()  # unless it holds other runs
        raise
    if initial:  # its weights were trained on images less this mean
        statistics = opened.statistics.with_mean(initial.statistics)
        opened = replace(opened, statistics=statistics)
    config = RunConfig(
        recipe=recipe,
        classes=manifest.classes,
        seed=seed,
        precision=devices.precision,
        data=str(manifest.data),
        versions=current_versions(),
        initial_weights=str(initial.path) if initial else None,
    )
    run = RunFolder(out)
    if devices.is_chief:  # the only worker that writes
        run = RunFolder.create(out, config, opened.statistics, manifest, name)
        scan_cache.delete_cache(out)
    try:
        trainer = Trainer(run, config, opened, devices, callback)
        if initial:
            trainer.transfer(initial)
        return _train_and_score(trainer, draw)
    finally:
        if devices.is_chief and not (run.path / LAST).exists():
            run.remove()


def resume(
    path: Path,
    *,
    devices: Devices,
    epochs: int | None = None,
    moved_data: Path | None = None,
    callback: Callback | None = None,
    draw: Draw = _draw_nothing,
) -> RunFolder | None:
    """Continue the run at `path` from its last checkpoint, to `epochs` in all.

    `epochs` is by default what was planned last, `moved_data` where the images are now. In a cluster
    every worker must be able to read `path`, and the first remembers its `moved_data`. Returns and
    raises as `train` does.
    """
    callback = callback or Callback()
    run = RunFolder.find(path, begun=True)
    if moved_data:
        run.move_data(moved_data, remember=devices.is_chief)
    images = run.images()
    arrays, meta = run.weights(LAST), run.checkpoint()
    recipe = replace(run.config.recipe, epochs=epochs or meta.planned_epochs)
    config = replace(run.config, recipe=recipe)
    require_same_split(run)
    data = open_training_data(images, recipe, devices, path, callback, run.statistics)
    devices = replace(devices, precision=config.precision)
    trainer = Trainer(run, config, data, devices, callback)
    trainer.restore(arrays, meta)
    del arrays  # they would keep the disk space of a file that is soon replaced
    return _train_and_score(trainer, draw)


def _train_and_score(trainer: Trainer, draw: Draw) -> RunFolder | None:
    """Train the epochs that are left and score the result, while no other process can disturb it."""
    run, meta, epochs = trainer.run, trainer.meta, trainer.config.recipe.epochs
    any_left = meta.epoch < epochs
    if meta.progress.n_done and not any_left:
        reason = f"must be at least {meta.epoch + 1}: {run.path} stopped inside that epoch"
        raise UsageError(reason, argument="epochs", value=epochs)
    if not any_left and run.has_final_metrics:
        reason = f"{run.path} is already trained to epoch {meta.epoch}; ask for more to continue"
        raise UsageError(reason, argument="epochs")
    with ExitStack() as held:
        held.enter_context(_one_line_errors(trainer))
        if trainer.devices.is_chief:
            complaint = f"{run.path}: another alexnet is training this run; wait until it has ended"
            held.enter_context(own_lock_file(run.path / LOCK, complaint))
            run.remove_leftovers()
        root = trainer.data.manifest.root
        reading = split_folders.lock_split(root, "its split is being replaced", shared=True)
        held.enter_context(reading)
        trainer.stop = held.enter_context(catch_signals())
        if any_left:
            trainer.callback.on_train_begin(_plan(trainer))
        require_memory(trainer)
        trainer.fit()
        _score(trainer, draw)
        trainer.devices.total(np.zeros(1))  # no worker leaves before all have finished
        return run if trainer.devices.is_chief else None


def _plan(trainer: Trainer) -> TrainPlan:
    data, meta, cluster = trainer.data, trainer.meta, trainer.devices.cluster
    return TrainPlan(
        run=trainer.run.path,
        config=trainer.config,
        n_images={split: len(store) for split, store in data.stores.items()},
        n_parameters=trainer.model.count_params(),
        devices=trainer.devices.names,
        workers=cluster.workers if cluster else (),
        rank=cluster.index if cluster else 0,
        first_epoch=meta.epoch + 1,
        n_done=meta.progress.n_done,
        transferred=trainer.transferred,
        decoded_in=data.train.location,
        rejected=_rejected_now(data.manifest) if not meta.epoch else (),
        changed=changed_versions(trainer.config.versions),
    )


def _rejected_now(manifest: Manifest) -> tuple[Rejected, ...]:
    """Return the files that were skipped when a training split the images itself."""
    return manifest.rejected if manifest.in_place else ()


@contextmanager
def _one_line_errors(trainer: Trainer) -> Iterator[None]:
    """Turn what can end a training into one line that says what was saved and how to go on."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise AlexNetError(f"{out_of_memory(trainer)}. {trainer.saved()}") from error
    except _LOST as error:
        if trainer.devices.cluster is None:
            raise
        if trainer.stop.code:  # the other worker reacted to the signal first
            raise Interrupted(trainer.saved(), trainer.stop.code) from None
        raise WorkerLost(
            f"a worker died or froze in epoch {trainer.meta.epoch + 1}; start all workers again. "
            f"{trainer.saved()}"
        ) from error
    except KeyboardInterrupt:
        raise Interrupted(trainer.saved(), trainer.stop.code or 130) from None
    except OSError as error:  # a full disk, a folder that is gone
        what = f"{error.filename or trainer.run.path}: {error.strerror or error}"
        raise AlexNetError(f"{what}. {trainer.saved()}") from error


def _score(trainer: Trainer, draw: Draw) -> None:
    """Score the best and the last weights on every image, and write metrics.json last of all.

    All workers score their share; only the chief has the files of the run.
    """
    run, meta, data, devices = trainer.run, trainer.meta, trainer.data, trainer.devices
    if devices.is_chief:
        # A kill may have come before they were written.
        run.write_records(meta, trainer.config.recipe)
    finals: dict[str, FinalScore] = {}
    calibration = None
    own = run.best_epoch() if devices.is_chief else 0
    best_epoch = int(devices.from_chief(np.array([own], np.float64))[0])
    for name, file, epoch in (("best", BEST, best_epoch), ("last", LAST, meta.epoch)):
        if name == "last" and epoch == best_epoch:
            finals[name] = finals["best"]
            continue
        progress = trainer.until_stopped(trainer.callback.on_score_progress)
        network = trainer.saved_network(file)
        scores = scoring.score_all(network, data, devices, progress)
        finals[name] = FinalScore(epoch, scores["train"], scores["val"])
        if name == "best":
            calibration = scoring.calibrate(network, data, devices, scores["val"])
    if not devices.is_chief:
        return
    skipped = (*data.train.bad_images, *data.val.bad_images)
    metrics = FinalMetrics(
        best=finals["best"],
        last=finals["last"],
        calibration=calibration,
        seconds=sum(row.seconds for row in meta.history),
        findings=meta.findings,
        skipped={str(rejected.path): rejected.reason for rejected in skipped},
    )
    draw(run)
    write_json(run.path / METRICS, asdict(metrics))
