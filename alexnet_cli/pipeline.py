"""From files to the arrays that the network sees: decoded store, statistics, crops, batches.

All of it is NumPy, and all randomness is keyed by (seed, epoch, image): the same batch comes out
whatever the number of threads, devices or interruptions.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet_cli import images, shards
from alexnet_cli.errors import AlexNetError, ImageError
from alexnet_cli.manifest import ImageFile
from alexnet_cli.parallel import in_order
from alexnet_cli.recipes import Recipe

Float32Array = npt.NDArray[np.float32]

# Of the machine's memory, what decoded images may take before they go to disk; of what is free there,
# what they may take before each is decoded anew whenever it is needed.
MEMORY_SHARE = 0.4
DISK_SHARE = 0.4

SAMPLE = 20_000  # images whose mean and covariance stand for those of more


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
    ) -> None:
        """Reserve the room; images are decoded when first asked for."""
        self.files, self.recipe = files, recipe
        shape = (len(files), recipe.stored_size, recipe.stored_size, 3)
        n_bytes = math.prod(shape)
        if memory_bytes is None:
            memory_bytes = int(MEMORY_SHARE * _physical_memory())
        if disk_bytes is None:
            disk_bytes = int(DISK_SHARE * shutil.disk_usage(scratch).free)
        self.kept: str | None = None  # where
        self._pixels: images.UInt8Array | None = None
        if n_bytes <= memory_bytes:
            self.kept, self._pixels = "in memory", np.empty(shape, np.uint8)
        elif n_bytes <= disk_bytes:
            with tempfile.TemporaryFile(dir=scratch) as file:
                file.truncate(n_bytes)
                self.kept, self._pixels = "on disk", np.memmap(file, np.uint8, "r+", shape=shape)
        self._decoded = np.zeros(len(files), bool)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.files)

    def __getitem__(self, index: int) -> images.UInt8Array:
        """Return image `index`; raises `AlexNetError` that names a file that has gone bad."""
        if self._pixels is None:
            return load_image(self.files[index], self.recipe)
        if not self._decoded[index]:
            # Two threads may both come here; they write the same pixels.
            self._pixels[index] = load_image(self.files[index], self.recipe)
            self._decoded[index] = True
        image: images.UInt8Array = self._pixels[index]
        return image


def load_image(file: ImageFile, recipe: Recipe) -> images.UInt8Array:
    """Decode and resize one image as `recipe` stores it; raises `AlexNetError` with its name."""
    source: Path | BytesIO = file.path
    try:
        if file.record:
            if recipe.squash or recipe.stored_size > shards.SIZE:
                raise ImageError(
                    f"is a prepared square of {shards.SIZE} pixels, but the recipe {recipe.name} "
                    "takes more of a photograph: split without --prepare"
                )
            source = BytesIO(shards.read(file.record))
        return images.load(source, recipe.stored_size, squash=recipe.squash)
    except ImageError as error:
        raise AlexNetError(f"{file.path}: {error}") from None
    except OSError as error:
        raise AlexNetError(f"{file.path}: {error.strerror or error}") from None


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True)
class Statistics:
    """What the training images have in common, on the 0–255 scale."""

    mean_image: Float32Array  # (size, size, 3): the mean of each pixel
    covariance: npt.NDArray[np.float64]  # (3, 3): of R, G and B over all pixels

    def mean(self, recipe: Recipe) -> Float32Array:
        """Return what `recipe` subtracts, as an image of shape (size, size, 3)."""
        if recipe.subtract == "channel":
            channels = self.mean_image.mean(axis=(0, 1), dtype=np.float64)
            return np.broadcast_to(channels.astype(np.float32), self.mean_image.shape)
        if recipe.subtract in ("image", "centre"):
            return self.mean_image
        return np.zeros_like(self.mean_image)

    def colour_axes(self) -> npt.NDArray[np.float64]:
        """Return the (3, 3) matrix whose columns are p_i · √λ_i, the principal components."""
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        axes: npt.NDArray[np.float64] = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0))
        return axes


def measure(
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
    size = store.recipe.stored_size
    sums: npt.NDArray[np.float64] = np.zeros(size * size * 3 + 9)
    shape = (size, size, 3)
    total, products = sums[:-9].reshape(shape), sums[-9:].reshape(3, 3)
    for done, (image, product) in enumerate(in_order(own, _moments(store)), start=1):
        total += image
        products += product
        if progress:
            progress(done, len(own))
    sums = add_up(sums)
    total, products = sums[:-9].reshape(shape), sums[-9:].reshape(3, 3)
    mean_image = total / len(sample)
    n_pixels = len(sample) * total.size // 3
    mean = mean_image.mean(axis=(0, 1))
    covariance = products / n_pixels - np.outer(mean, mean)
    return Statistics(mean_image.astype(np.float32), covariance)


def _moments(
    store: ImageStore,
) -> Callable[[int], tuple[images.UInt8Array, npt.NDArray[np.float64]]]:
    def moments(index: int) -> tuple[images.UInt8Array, npt.NDArray[np.float64]]:
        pixels = store[index].reshape(-1, 3).astype(np.float64)
        return store[index], pixels.T @ pixels

    return moments


def epoch_order(n_images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the permutation in which epoch `epoch` (from 1) visits the images."""
    return np.random.default_rng([seed, epoch]).permutation(n_images)


class _Cutter:
    """Cuts windows out of stored images and subtracts the mean."""

    def __init__(self, recipe: Recipe, statistics: Statistics) -> None:
        """Prepare what all images share."""
        self.recipe, self.mean = recipe, statistics.mean(recipe)
        self.room = recipe.stored_size - recipe.crop_size

    def cut(self, image: images.UInt8Array, top: int, left: int, out: Float32Array) -> None:
        """Write to `out` (crop_size, crop_size, 3) the window at `top`, `left`, minus its mean."""
        window = self._window(top, left)
        centred = self.recipe.subtract == "centre"
        mean = self.mean[self._window(self.room // 2, self.room // 2) if centred else window]
        np.subtract(image[window], mean, out=out)

    def _window(self, top: int, left: int) -> tuple[slice, slice]:
        size = self.recipe.crop_size
        return slice(top, top + size), slice(left, left + size)


def _mirror(crops: Float32Array, out: Float32Array) -> None:
    """Write to `out` the crops (…, height, width, 3) reflected, three times as fast as by a slice."""
    np.take(crops, np.arange(crops.shape[-2])[::-1], axis=-2, out=out, mode="clip")


class Augmenter(_Cutter):
    """Random crop, horizontal flip and colour noise (section 4.1), then mean and scale."""

    def __init__(self, recipe: Recipe, statistics: Statistics) -> None:
        """Prepare what all images share."""
        super().__init__(recipe, statistics)
        self.colour_axes = statistics.colour_axes()

    def __call__(
        self, image: images.UInt8Array, key: tuple[int, int, int, int], out: Float32Array
    ) -> None:
        """Write one augmented crop of `image` to `out`, drawn by `key`.

        `image`: uint8 (stored_size, stored_size, 3); `out`: float32 (crop_size, crop_size, 3).
        `key`: (seed, epoch, number of the image, its position in the epoch's order); the position
        tells which images share their crop, if the recipe wants that.
        """
        recipe, (seed, epoch, index, position) = self.recipe, key
        random = where = np.random.default_rng((seed, epoch, index))
        if recipe.shared_crop > 1:
            where = np.random.default_rng((seed, epoch, position // recipe.shared_crop, 1))
        top, left = where.integers(0, self.room + 1, size=2)
        if recipe.flip and where.random() < 0.5:
            crop = np.empty_like(out)
            self.cut(image, top, left, crop)
            _mirror(crop, out)
        else:
            self.cut(image, top, left, out)
        if recipe.colour_noise and not recipe.reached(recipe.noise_until, epoch):
            shift = self.colour_shift(random).astype(np.float32)
            rows = out.reshape(len(out), -1)
            rows += np.tile(shift, len(out))  # NumPy crawls where the innermost loop is three long
            if recipe.noise_divisor != 1:
                out /= np.float32(recipe.noise_divisor)
        if recipe.scale != 1:
            out *= np.float32(recipe.scale)

    def colour_shift(self, random: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw what is added to every pixel's R, G and B: Σ p_i · α_i · √λ_i."""
        return self.colour_axes @ random.normal(0, self.recipe.colour_noise, size=3)


class Cropper(_Cutter):
    """The centre crop, or the ten crops of section 4.1, without randomness."""

    def __init__(self, recipe: Recipe, statistics: Statistics, *, ten: bool = False) -> None:
        """Prepare the windows: the centre alone, or centre, corners and their reflections."""
        super().__init__(recipe, statistics)
        middle, end = self.room // 2, self.room
        self.corners = [(middle, middle)]
        if ten:
            self.corners += [(0, 0), (0, end), (end, 0), (end, end)]
        self.mirror = ten

    def __call__(self, image: images.UInt8Array) -> Float32Array:
        """Return float32 of shape (1 or 10, crop_size, crop_size, 3); the centre comes first."""
        size, n = self.recipe.crop_size, len(self.corners)
        crops: Float32Array = np.empty((n * (1 + self.mirror), size, size, 3), np.float32)
        for (top, left), out in zip(self.corners, crops):
            self.cut(image, top, left, out)
        if self.mirror:
            _mirror(crops[:n], crops[n:])
        crops *= np.float32(self.recipe.scale)
        return crops
