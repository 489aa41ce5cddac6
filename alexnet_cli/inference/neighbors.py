"""The nearest training images, by Euclidean distance of the outputs of fc7 (section 6.1)."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.store import BadImageBudget, load_image
from alexnet_cli.errors import UsageError
from alexnet_cli.inference.results import Neighbor
from alexnet_cli.network.classifier import Classifier
from alexnet_cli.network.crop_batches import group_crops
from alexnet_cli.runs.models import LoadedModel
from alexnet_cli.runs.run_folder import FC7
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays
from alexnet_cli.system.workers import Progress, map_in_order, skip_missing

MOST_IMAGES = 50_000  # training images in the index (0.8 GB of features); of more, a regular sample


class FeatureIndex:
    """The fc7 features of the training images of a run, stored in the run folder."""

    def __init__(self, model: LoadedModel, progress: Progress | None = None) -> None:
        """Read the features from the run folder, or compute and save them.

        Raises `UsageError` for a model without a list of its training images.
        """
        if model.trained_on is None:
            reason = "has no training images to search"
            raise UsageError(reason, argument="model", value=str(model.path))
        train = model.trained_on.of("train")
        self.files = train[:: -(-len(train) // MOST_IMAGES)]
        self._path = model.path / FC7
        self._notes = {"epoch": model.epoch, "n_images": len(self.files)}
        *_, fc7 = model.recipe.dense
        found = self._read(fc7.units) if self._path.exists() else None
        self.features = self._compute(model.network(), progress) if found is None else found

    def _read(self, n_units: int) -> Float32Array | None:
        """Return the saved features if they are of this model, else None."""
        if read_notes(self._path) != self._notes:
            return None
        shape = (len(self.files), n_units)
        features = load_arrays(self._path, only="features", of=shape[0] * shape[1])["features"]
        if features.shape != shape or np.isnan(features).any():
            return None
        return features.astype(np.float32)

    def _compute(self, network: Classifier, progress: Progress | None) -> Float32Array:
        crop, n, kept = Cropper(network.recipe, network.statistics), len(self.files), list[int]()

        def load(index: int) -> Float32Array:
            return crop(load_image(self.files[index], network.recipe))

        crops = skip_missing(
            kept, range(n), map_in_order(range(n), BadImageBudget(n).tolerate(load))
        )
        rows: list[Float32Array] = []
        for batch in group_crops(crops, len):
            for (row,) in network.features(batch):
                rows.append(row)
                if progress:
                    progress(len(rows), n)
        features = np.full((n, len(rows[0])), np.inf, np.float32)  # skipped images are never near
        features[kept] = rows
        with suppress(OSError):  # in a read-only run, they are computed every time
            save_arrays(self._path, {"features": features.astype(np.float16)}, self._notes)
        return features

    def nearest(self, features: Float32Array, count: int) -> tuple[Neighbor, ...]:
        """Return the `count` training images nearest to `features` (units,), the nearest first.

        Images that could not be read and images whose file is missing are skipped.
        """
        distances = euclidean(features, self.features)
        order = np.argsort(distances, kind="stable")[: np.isfinite(distances).sum()]
        existing = (index for index in order if self.files[index].stored_in.exists())
        nearest = islice(existing, count)
        return tuple(Neighbor(self.files[index], float(distances[index])) for index in nearest)


def euclidean(one: Float32Array, many: Float32Array) -> npt.NDArray[np.float64]:
    """Return the Euclidean distances of `one` (units,) to each row of `many` (n, units)."""
    distances: npt.NDArray[np.float64] = np.linalg.norm(many.astype(np.float64) - one, axis=1)
    return distances
