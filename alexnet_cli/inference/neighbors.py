"""The nearest training images, by Euclidean distance of the outputs of fc7 (section 6.1)."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from itertools import islice

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.manifest import MANIFEST
from alexnet_cli.data.store import BadImageBudget, load_image
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.inference.results import Neighbor
from alexnet_cli.network.classifier import Classifier
from alexnet_cli.network.crop_batches import group_crops
from alexnet_cli.runs.models import LoadedModel
from alexnet_cli.runs.run_folder import FC7
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays
from alexnet_cli.system.workers import Progress, map_in_order, skip_missing

Float16Array = npt.NDArray[np.float16]

MOST_IMAGES = 50_000  # training images in the index (0.4 GB of features); of more, a regular sample
BLOCK = 256  # images whose distances are computed at once, in arrays of 4 MB


class FeatureIndex:
    """The fc7 features of the training images of a run, stored in the run folder.

    `features` is float16 (images, units), whether computed or read, with infinity for an image that
    could not be read.
    """

    def __init__(self, model: LoadedModel, progress: Progress | None = None) -> None:
        """Read the features from the run folder, or compute and save them.

        Raises `UsageError` for a model without a list of its training images.
        """
        if model.run is None:
            reason = "has no training images to search"
            raise UsageError(reason, argument="model", value=str(model.path))
        train = model.run.images().of("train")
        if not train:
            raise AlexNetError(f"{model.path / MANIFEST}: lists no training images to search")
        self.files = train[:: -(-len(train) // MOST_IMAGES)]
        self._path = model.path / FC7
        self._notes = {"epoch": model.epoch, "n_images": len(self.files)}
        self._shape = len(self.files), model.recipe.dense[-1].units
        found = self._read() if self._path.exists() else None
        self.features = self._compute(model.network(), progress) if found is None else found

    def _read(self) -> Float16Array | None:
        """Return the saved features, mapped from their file, if they are of this model, else None."""
        if read_notes(self._path) != self._notes:
            return None
        of = math.prod(self._shape)
        features = load_arrays(self._path, only="features", of=of)["features"]
        if features.shape != self._shape or features.dtype != np.float16:
            return None
        return None if np.isnan(features.max(initial=0)) else features

    def _compute(self, network: Classifier, progress: Progress | None) -> Float16Array:
        crop, n, kept = Cropper(network.recipe, network.statistics), len(self.files), list[int]()

        def load(index: int) -> Float32Array:
            return crop(load_image(self.files[index], network.recipe))

        crops = skip_missing(
            kept, range(n), map_in_order(range(n), BadImageBudget(n).tolerate(load))
        )
        features = np.full(self._shape, np.inf, np.float16)  # skipped images are never near
        done = 0
        for batch in group_crops(crops, len):
            for (row,) in network.features(batch):
                features[kept[done]] = to_float16(row)
                done += 1
                if progress:
                    progress(done, n)
        with suppress(OSError):  # in a read-only run, they are computed every time
            save_arrays(self._path, {"features": features}, self._notes)
        return features

    def nearest(self, features: Float32Array, count: int) -> tuple[Neighbor, ...]:
        """Return the `count` training images nearest to `features` (units,), the nearest first.

        Images that could not be read and images whose file is missing are skipped.
        """
        distances = euclidean(to_float16(features), self.features)
        order = np.argsort(distances, kind="stable")[: np.isfinite(distances).sum()]
        existing = (index for index in order if os.path.exists(self.files[index].stored_in))
        nearest = islice(existing, min(count, len(order)))
        return tuple(Neighbor(self.files[index], float(distances[index])) for index in nearest)


def to_float16(features: npt.NDArray[np.floating]) -> Float16Array:
    """Return `features` rounded to float16; what it can't represent becomes its largest number."""
    most = np.finfo(np.float16).max
    return features.clip(-most, most).astype(np.float16)


def euclidean(one: Float16Array, many: Float16Array) -> Float32Array:
    """Return the Euclidean distances (n,) of `one` (units,) to each row of `many` (n, units).

    They are computed in float32, and in blocks, as a copy of all features would take gigabytes.
    """
    distances: Float32Array = np.empty(len(many), np.float32)
    for start in range(0, len(many), BLOCK):
        apart = many[start : start + BLOCK] - one.astype(np.float32)
        distances[start : start + BLOCK] = np.sqrt(np.einsum("ij,ij->i", apart, apart))
    return distances
