"""From files to decoded images: the store, what the images have in common, and their order.

`crops` cuts from them what the network sees.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from alexnet_cli.data import images, tfrecords
from alexnet_cli.data.manifest import ImageFile, Rejected
from alexnet_cli.errors import AlexNetError, BadFile, ImageError
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.system import memory
from alexnet_cli.system.workers import map_in_order

T = TypeVar("T")
R = TypeVar("R")
Float32Array = npt.NDArray[np.float32]

# Of the machine's memory, what decoded images may take before they go to disk; of what is free there,
# what they may take before each is decoded anew whenever it is needed.
MEMORY_SHARE = 0.4
DISK_SHARE = 0.4

SAMPLE = 20_000  # images whose mean and covariance stand for those of more

# Of the images of a split, how many may have gone bad since; at least one may, unless it is the only.
BAD_SHARE = 0.05


class BadImageBudget:
    """The files of a data set that have gone bad since it was divided: none, or a few."""

    def __init__(
        self, n_files: int, tell: Callable[[Rejected], object] = lambda rejected: None
    ) -> None:
        """Begin with none; `tell` hears of each once."""
        self.n_files, self.tell = n_files, tell
        self._found: dict[Path, Rejected] = {}

    def __iter__(self) -> Iterator[Rejected]:
        """Name them."""
        return iter(tuple(self._found.values()))

    def spare(self, load: Callable[[T], R]) -> Callable[[T], R | None]:
        """Return `load` with None in place of a `BadFile`, whose file is left out."""

        def spared(item: T) -> R | None:
            try:
                return load(item)
            except BadFile as error:
                self.add(error)
                return None

        return spared

    def add(self, bad: BadFile) -> None:
        """Leave out one more; raises `AlexNetError` if they are more than `BAD_SHARE` by now."""
        rejected = Rejected(bad.path, bad.reason)
        if self._found.setdefault(bad.path, rejected) is not rejected:
            return
        self.tell(rejected)
        n = len(self._found)
        if n == self.n_files or n > max(1, BAD_SHARE * self.n_files):
            raise AlexNetError(
                f"{bad}; with it {n} of {self.n_files:,} images have gone bad since the split, more "
                f"than {BAD_SHARE:.0%}: put them back, or split again"
            )


class ImageStore:
    """The images of a data set, each decoded once if there is room: uint8 of shape (size, size, 3).

    They are kept in memory when they fit in `MEMORY_SHARE` of it, else in a file in `scratch`
    that has no name, so that it vanishes with the process however that ends; or not at all.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        recipe: Recipe,
        scratch: Path,
        memory_bytes: int | None = None,
        disk_bytes: int | None = None,
        tell: Callable[[Rejected], object] = lambda rejected: None,
    ) -> None:
        """Reserve the room; images are decoded when first asked for. `tell` hears of bad ones."""
        self.files, self.recipe = files, recipe
        self.left_out = BadImageBudget(len(files), tell)
        shape = (len(files), recipe.resize_size, recipe.resize_size, 3)
        n_bytes = math.prod(shape)
        if memory_bytes is None:
            memory_bytes = int(MEMORY_SHARE * memory.total())
        if disk_bytes is None:
            disk_bytes = int(DISK_SHARE * shutil.disk_usage(scratch).free)
        self.kept: str | None = None  # where
        self._pixels: images.UInt8Array | None = None
        if n_bytes <= memory_bytes:
            self.kept, self._pixels = "in memory", np.empty(shape, np.uint8)
        elif n_bytes <= disk_bytes:
            with suppress(OSError, AttributeError), tempfile.TemporaryFile(dir=scratch) as file:
                # Not a hole: if the disk filled later, a write to the mapping would kill us.
                os.posix_fallocate(file.fileno(), 0, n_bytes)
                self.kept, self._pixels = "on disk", np.memmap(file, np.uint8, "r+", shape=shape)
        self._decoded = np.zeros(len(files), bool)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.files)

    def get(self, index: int) -> images.UInt8Array | None:
        """Return image `index`, or None if its file has gone bad and is left out.

        Raises `AlexNetError` if that happens to too many.
        """
        try:
            if self._pixels is None:
                return load_image(self.files[index], self.recipe)
            if not self._decoded[index]:
                # Two threads may both come here; they write the same pixels.
                self._pixels[index] = load_image(self.files[index], self.recipe)
                self._decoded[index] = True
        except BadFile as error:
            self.left_out.add(error)
            return None
        image: images.UInt8Array = self._pixels[index]
        return image


def load_image(file: ImageFile, recipe: Recipe) -> images.UInt8Array:
    """Decode and resize one image as `recipe` stores it; raises `BadFile`.

    A file whose content is known must still have it.
    """
    try:
        return images.load(_open(file, recipe), recipe.resize_size, stretch=recipe.stretch)
    except ImageError as error:
        raise BadFile(file.path, str(error)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadFile(file.path, f"{reason}: {file.holder}" if file.record else reason) from None


def _open(file: ImageFile, recipe: Recipe) -> Path | BytesIO:
    if file.record:
        if recipe.stretch or recipe.resize_size > tfrecords.SIZE:
            raise AlexNetError(
                f"{file.path}: is a prepared square of {tfrecords.SIZE} pixels, but the recipe "
                f"{recipe.name} takes more of a photograph: split without --prepare, or train with "
                "--recipe paper"
            )
        return BytesIO(tfrecords.read(file.record))
    if not file.sha256:
        return file.path
    content = images.read(file.path)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ImageError("is not what it was when the data was divided")
    return BytesIO(content)


@dataclass(frozen=True)
class Statistics:
    """What the training images have in common, on the 0–255 scale."""

    mean_image: Float32Array  # (size, size, 3): the mean of each pixel
    covariance: npt.NDArray[np.float64]  # (3, 3): of R, G and B over all pixels

    def mean(self, recipe: Recipe) -> Float32Array:
        """Return what `recipe` subtracts, as an image of shape (size, size, 3)."""
        if recipe.mean == "channel":
            channels = self.mean_image.mean(axis=(0, 1), dtype=np.float64)
            return np.broadcast_to(channels.astype(np.float32), self.mean_image.shape)
        if recipe.mean in ("image", "center"):
            return self.mean_image
        return np.zeros_like(self.mean_image)

    def color_axes(self) -> npt.NDArray[np.float64]:
        """Return the (3, 3) matrix whose columns are p_i · √λ_i, the principal components."""
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        axes: npt.NDArray[np.float64] = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0))
        return axes


def compute_statistics(
    store: ImageStore,
    progress: Callable[[int, int], None] | None = None,
    share: Callable[[int], range] = range,
    add_up: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] = lambda sums: sums,
) -> Statistics:
    """Compute the mean image and the RGB covariance of all images of `store`.

    Of more than `SAMPLE` every so many are looked at. With several workers each looks at its
    `share` and `add_up` sums over them: whole numbers, so that the result is the same to the last
    bit.
    """
    sample = range(0, len(store), -(-len(store) // SAMPLE))
    own = [sample[number] for number in share(len(sample))]
    size = store.recipe.resize_size
    sums: npt.NDArray[np.float64] = np.zeros(size * size * 3 + 9 + 1)
    shape = (size, size, 3)
    total, products = sums[:-10].reshape(shape), sums[-10:-1].reshape(3, 3)

    def look(index: int) -> tuple[images.UInt8Array, npt.NDArray[np.float64]] | None:
        if (image := store.get(index)) is None:
            return None
        pixels = image.reshape(-1, 3).astype(np.float64)
        return image, pixels.T @ pixels

    for done, seen in enumerate(map_in_order(own, look), start=1):
        if seen:
            total += seen[0]
            products += seen[1]
            sums[-1] += 1
        if progress:
            progress(done, len(own))
    sums = add_up(sums)
    total, products, n = sums[:-10].reshape(shape), sums[-10:-1].reshape(3, 3), sums[-1]
    mean_image = total / n
    mean = mean_image.mean(axis=(0, 1))
    covariance = products / (n * size * size) - np.outer(mean, mean)
    return Statistics(mean_image.astype(np.float32), covariance)


def epoch_order(n_images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the permutation in which epoch `epoch` (from 1) visits the images."""
    return np.random.default_rng([seed, epoch]).permutation(n_images)
