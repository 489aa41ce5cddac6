"""The images of a training, opened: their files, their labels, and where they are kept decoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.manifest import MANIFEST, Manifest, file_lines
from alexnet_cli.data.statistics import Statistics, compute_statistics
from alexnet_cli.data.store import ImageStore, storage_room
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import Devices


@dataclass(frozen=True)
class TrainingData:
    """Training and validation images, with the statistics for the network's inputs."""

    manifest: Manifest
    train: ImageStore
    val: ImageStore
    statistics: Statistics

    @property
    def stores(self) -> dict[str, ImageStore]:
        """The stores by split."""
        return {"train": self.train, "val": self.val}

    @cached_property
    def y_true(self) -> dict[str, npt.NDArray[np.int32]]:
        """The class numbers (images,) of every split."""
        index = {name: number for number, name in enumerate(self.manifest.classes)}
        return {
            split: np.array([index[file.label] for file in store.files], np.int32)
            for split, store in self.stores.items()
        }

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """The number of training images of every class: (classes,)."""
        return np.bincount(self.y_true["train"], minlength=len(self.manifest.classes))


def open_training_data(
    manifest: Manifest,
    recipe: Recipe,
    devices: Devices,
    scratch: Path,
    callback: Callback,
    statistics: Statistics | None = None,
) -> TrainingData:
    """Reserve room for the images, and compute the statistics that are not given.

    Images that fit neither memory nor `scratch`, a folder, are decoded whenever they are needed.
    Raises `AlexNetError` for a split without images, and unless all workers see the same images.
    """
    _require_same_images(manifest, devices)
    memory_bytes, disk_bytes = storage_room(scratch, devices.n_processes)
    stores = {}
    for split in ("train", "val"):  # the split that is read most often has the first choice
        files = manifest.of(split)
        if not files:
            raise AlexNetError(f"{manifest.root}: the {split} split holds no image; split again")
        store = ImageStore(
            files, recipe, scratch, memory_bytes, disk_bytes, callback.on_image_rejected
        )
        memory_bytes -= store.n_bytes if store.location == "in memory" else 0
        disk_bytes -= store.n_bytes if store.location == "on disk" else 0
        stores[split] = store
    if statistics is None:
        statistics = compute_statistics(
            stores["train"], callback.on_read_progress, devices.share, devices.total
        )
    return TrainingData(manifest, stores["train"], stores["val"], statistics)


def _require_same_images(manifest: Manifest, devices: Devices) -> None:
    if devices.cluster is None:
        return
    seen = hashlib.sha256()
    for file in manifest.files:
        content = file.sha256 or file.path.relative_to(manifest.root).as_posix()
        seen.update(f"{file.split}{file.label}{content}".encode("utf-8", "surrogateescape"))
    own = float(int(seen.hexdigest()[:8], 16))
    mean = devices.total(np.array([own]))[0] / len(devices.cluster.workers)
    spread = devices.total(np.array([abs(own - mean)]))[0]
    if spread:
        raise AlexNetError(
            f"{manifest.root}: the workers see different images; give all of them the same split"
        )


def require_same_split(run: RunFolder) -> None:
    """Raise `AlexNetError` if the images of `run` were split anew since it began."""
    own, current = run.path / MANIFEST, run.manifest.data / MANIFEST
    if current.exists() and file_lines(own) != file_lines(current):
        raise AlexNetError(
            f"{run.manifest.root}: was split anew since {run.path} began; "
            "split it as before, or start a new training"
        )
