"""Train a network on a folder, or go on with a run."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet_cli.data import scan_cache, splitting
from alexnet_cli.data.manifest import MANIFEST, Manifest, files_of
from alexnet_cli.data.scanning import ScanOptions
from alexnet_cli.data.store import ImageStore, compute_statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.network.keras_network import Initial
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs import run_folder
from alexnet_cli.runs.checkpoint import read_state
from alexnet_cli.runs.run_folder import RunConfig, RunFolder
from alexnet_cli.training.callbacks import Callback, TrainReport
from alexnet_cli.training.devices import Devices
from alexnet_cli.training.trainer import Trainer


def train(
    data: Path,
    *,
    recipe: Recipe,
    devices: Devices,
    out: Path = Path("runs"),
    seed: int = 0,
    check: bool = True,
    initial: Initial | None = None,
    callback: Callback | None = None,
) -> TrainReport | None:
    """Train `recipe` on `data`, a split folder or one that is yet to be split.

    Without `check` images that are yet to be split are taken by their names, unread. The layers
    start as the recipe draws them, or from the weights `initial`, all but the last. The run folder
    appears in `out` when the first epoch begins, and goes again if nothing came to be saved in it.
    """
    callback = callback or Callback()
    reading = ScanOptions(check, scan_cache.beside(out), callback.on_read_progress)
    manifest = splitting.open_data(data, seed=seed, reading=reading)
    _require_same_data(manifest, devices)
    out.mkdir(parents=True, exist_ok=True)
    try:
        stores = _open_stores(manifest, recipe, out, callback)
        statistics = compute_statistics(
            stores["train"], callback.on_read_progress, devices.share, devices.total
        )
    except BaseException:
        with suppress(OSError):
            out.rmdir()  # unless there are other runs
        raise
    config = RunConfig(
        recipe=recipe,
        classes=manifest.classes,
        seed=seed,
        precision=devices.precision,
        data=str(manifest.root),
        versions=run_folder.versions(),
        weights=str(initial.path) if initial else None,
    )
    run = RunFolder(out)
    if devices.is_chief:  # who alone writes
        run = RunFolder.create(out, config, statistics, manifest)
        scan_cache.forget(out)
    try:
        training = Trainer(run, config, statistics, manifest, stores, devices, callback)
        if initial:
            training.transferred = initial.transfer(training.model, recipe.last_layer)
        return training.go()
    finally:
        if devices.is_chief and not (run.path / "last.npz").exists():
            run.remove()


def resume(
    path: Path, *, devices: Devices, epochs: int | None = None, callback: Callback | None = None
) -> TrainReport | None:
    """Continue the run at `path` where it stopped, to `epochs` in all (default: as last planned).

    In a cluster every worker must be able to read `path`, and the chief alone returns a report.
    """
    callback = callback or Callback()
    run = RunFolder.find(path, begun=True)
    config = run.config()
    arrays, notes = read_state(run, config)
    epochs = epochs or notes.planned
    config = replace(config, recipe=replace(config.recipe, epochs=epochs))
    manifest = run.manifest(config.classes)
    _require_same_data(manifest, devices)
    _require_same_split(run, manifest)
    stores = _open_stores(manifest, config.recipe, run.path, callback)
    devices = replace(devices, precision=config.precision)
    statistics = run.statistics(config.recipe)
    training = Trainer(run, config, statistics, manifest, stores, devices, callback)
    training.restore(arrays, notes)
    del arrays  # mapped, they would keep the room of a file that is soon replaced
    return training.go()


def _require_same_data(manifest: Manifest, devices: Devices) -> None:
    """Raise `AlexNetError` unless all workers see the same images in the same splits."""
    if devices.cluster is None:
        return
    seen = hashlib.sha256()
    for file in manifest.files:
        content = file.sha256 or file.path.relative_to(manifest.root).as_posix()
        seen.update(f"{file.split}{file.label}{content}".encode("utf-8", "surrogateescape"))
    own = float(int(seen.hexdigest()[:8], 16))
    n_workers = len(devices.cluster.workers)
    mean = devices.total(np.array([own]))[0] / n_workers
    spread = devices.total(np.array([abs(own - mean)]))[0]
    if spread:
        raise AlexNetError(
            f"{manifest.root}: the workers see different images; give all of them the same split"
        )


def _require_same_split(run: RunFolder, manifest: Manifest) -> None:
    """Raise `AlexNetError` if the data were divided anew since `run` began."""
    own, current = run.path / MANIFEST, manifest.root / MANIFEST
    if current.exists() and files_of(own) != files_of(current):
        raise AlexNetError(
            f"{manifest.root}: was divided anew since {run.path} began; "
            "split as it was then, or train anew"
        )


def _open_stores(
    manifest: Manifest, recipe: Recipe, scratch: Path, callback: Callback
) -> dict[str, ImageStore]:
    stores = {}
    for split in ("train", "val"):
        files = manifest.of(split)
        if not files:
            raise AlexNetError(f"{manifest.root}: no image in the {split} split")
        stores[split] = ImageStore(files, recipe, scratch, tell=callback.on_image_rejected)
    return stores
