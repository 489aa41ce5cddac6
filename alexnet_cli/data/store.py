"""The image store: decoded images, kept in memory or on disk, and the budget of unreadable ones."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np

from alexnet_cli.data import images
from alexnet_cli.data.images import UInt8Array
from alexnet_cli.data.manifest import ImageFile, Rejected
from alexnet_cli.data.shard_records import RECORD_SIZE, read_record
from alexnet_cli.errors import AlexNetError, ImageError
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.system import memory

T = TypeVar("T")
R = TypeVar("R")

# For all decoded images of the processes on a machine together.
MEMORY_SHARE = 0.4  # of the available memory; images that do not fit are kept on disk
DISK_SHARE = 0.4  # of the free disk space; images that do not fit are decoded whenever needed
BAD_SHARE = 0.05  # of the images of a split; at least one may be bad, but never all


class BadImageBudget:
    """The images of a data set that have become unreadable since it was split; a few are skipped."""

    def __init__(
        self, n_files: int, on_bad_image: Callable[[Rejected], object] = lambda rejected: None
    ) -> None:
        """Start without bad images; `on_bad_image` is called once for each, when it is found."""
        self.n_files, self.on_bad_image = n_files, on_bad_image
        self._found: dict[Path, Rejected] = {}

    def __iter__(self) -> Iterator[Rejected]:
        """Yield the bad images found so far."""
        return iter(tuple(self._found.values()))

    def tolerate(self, load: Callable[[T], R]) -> Callable[[T], R | None]:
        """Return `load` changed so that it returns None for a bad image, within the budget."""

        def load_or_skip(item: T) -> R | None:
            try:
                return load(item)
            except ImageError as error:
                self.add(error)
                return None

        return load_or_skip

    def add(self, error: ImageError) -> None:
        """Count the bad image of `error`, unless it is known.

        Raises `AlexNetError` if more than `BAD_SHARE` of the images are bad.
        """
        assert error.path is not None  # which `load_image` sets
        rejected = Rejected(error.path, error.reason)
        if self._found.setdefault(rejected.path, rejected) is not rejected:
            return
        self.on_bad_image(rejected)
        n = len(self._found)
        if n == self.n_files or n > max(1, BAD_SHARE * self.n_files):
            raise AlexNetError(
                f"{error}. {n} of {self.n_files:,} images have become unreadable since the split, "
                f"more than {BAD_SHARE:.0%}. Restore them, or create the split again"
            )


def storage_room(scratch: Path, n_processes: int = 1) -> tuple[int, int]:
    """Return how many bytes of memory and of disk all stores of this process may take.

    `scratch` is a folder on the disk; `n_processes` alike share this machine.
    """
    memory_bytes = MEMORY_SHARE * memory.available() / n_processes
    disk_bytes = DISK_SHARE * shutil.disk_usage(scratch).free / n_processes
    return int(memory_bytes), int(disk_bytes)


class ImageStore:
    """The images of a data set as uint8 arrays (resize_size, resize_size, 3), values 0 to 255.

    Each is decoded once and kept in memory if it has room for all, else in an unnamed file in
    `scratch`, which vanishes however the process ends. If neither has room, images are decoded
    whenever they are asked for. `location` is "in memory", "on disk" or None, `n_bytes` the room
    that all images take there.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        recipe: Recipe,
        scratch: Path,
        memory_bytes: int | None = None,
        disk_bytes: int | None = None,
        on_bad_image: Callable[[Rejected], object] = lambda rejected: None,
    ) -> None:
        """Reserve memory or disk space for `files`; nothing is decoded yet.

        `memory_bytes` and `disk_bytes` are the most to use, by default those of `storage_room`.
        """
        self.files, self.recipe = files, recipe
        self.bad_images = BadImageBudget(len(files), on_bad_image)
        shape = (len(files), recipe.resize_size, recipe.resize_size, 3)
        self.n_bytes = n_bytes = math.prod(shape)
        if memory_bytes is None or disk_bytes is None:
            memory_bytes, disk_bytes = storage_room(scratch)
        self.location: str | None = None
        self._pixels: UInt8Array | None = None
        if n_bytes <= memory_bytes:
            self.location, self._pixels = "in memory", np.empty(shape, np.uint8)
        elif n_bytes <= disk_bytes:
            with suppress(OSError, AttributeError), tempfile.TemporaryFile(dir=scratch) as file:
                # A sparse file would end this process by SIGBUS once the disk is full.
                os.posix_fallocate(file.fileno(), 0, n_bytes)
                self.location, self._pixels = (
                    "on disk",
                    np.memmap(file, np.uint8, "r+", shape=shape),
                )
        self._decoded = np.zeros(len(files), bool)

    def __len__(self) -> int:
        """Return the number of images, bad ones included."""
        return len(self.files)

    @property
    def unfilled_bytes(self) -> int:
        """The bytes of memory that this store will take in addition once all images are decoded."""
        if self.location != "in memory":
            return 0
        return self.n_bytes // len(self) * int(np.count_nonzero(~self._decoded))

    def get(self, index: int) -> UInt8Array | None:
        """Return image `index`, or None if it can't be read any more. Safe to call from threads.

        Raises `AlexNetError` if too many images can't be read.
        """
        try:
            if self._pixels is None:
                return load_image(self.files[index], self.recipe)
            if not self._decoded[index]:
                # Two threads may decode the same image; both write the same pixels.
                self._pixels[index] = load_image(self.files[index], self.recipe)
                self._decoded[index] = True
        except ImageError as error:
            self.bad_images.add(error)
            return None
        image: UInt8Array = self._pixels[index]
        return image


def load_image(file: ImageFile, recipe: Recipe) -> UInt8Array:
    """Decode and resize one image: uint8 of shape (resize_size, resize_size, 3), values 0 to 255.

    Raises `ImageError` with the path if the file can't be read or decoded, or has another SHA-256
    than `file`; `AlexNetError` if `recipe` needs more pixels than a prepared image has.
    """
    try:
        return images.load(_open(file, recipe), recipe.resize_size, stretch=recipe.stretch)
    except ImageError as error:
        raise ImageError(error.reason, file.path) from None
    except OSError as error:
        reason = error.strerror or str(error)
        reason = f"{reason}: {file.stored_in}" if file.record else reason
        raise ImageError(reason, file.path) from None


def _open(file: ImageFile, recipe: Recipe) -> Path | BytesIO:
    if file.record:
        if recipe.stretch or recipe.resize_size > RECORD_SIZE:
            raise AlexNetError(
                f"{file.path}: is a prepared image of {RECORD_SIZE}x{RECORD_SIZE} pixels, but the "
                f"recipe {recipe.name} needs the original. Split without --prepare, or train with "
                "--recipe paper"
            )
        return BytesIO(read_record(file.record))
    if not file.sha256:
        return file.path
    content = images.read(file.path)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ImageError("has changed since the data was split")
    return BytesIO(content)
