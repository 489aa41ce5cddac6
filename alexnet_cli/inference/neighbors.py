"""Nearest training images, by Euclidean distance of what fc7 makes of them (section 6.1)."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.manifest import Progress
from alexnet_cli.data.store import BadImageBudget, Float32Array, load_image
from alexnet_cli.errors import UsageError
from alexnet_cli.inference.results import Neighbor
from alexnet_cli.runs.models import Member
from alexnet_cli.runs.weights_file import load_arrays, load_notes, save_arrays
from alexnet_cli.system.workers import map_in_order, skip_missing

MOST = 50_000  # training images to look at: 0.8 GB of features; of more, every so many


class FeatureIndex:
    """What fc7 makes of the images that a run was trained on, kept in the run folder."""

    def __init__(self, member: Member, progress: Progress | None = None) -> None:
        """Take the features from the run's fc7.npz, or compute and keep them.

        Raises `UsageError` for a model that does not know its training images.
        """
        if member.trained_on is None:
            raise UsageError(f"{member.path}: does not know its training images")
        every = -(-len(member.trained_on.of("train")) // MOST)
        self.member, self.files = member, member.trained_on.of("train")[::every]
        kept = member.path / "fc7.npz"
        notes = {"epoch": member.epoch, "n_images": len(self.files)}
        if kept.exists():
            *_, fc7 = member.network.recipe.dense
            arrays = load_arrays(kept, of=len(self.files) * fc7.units)
            features = arrays.get("features", np.empty(0))
            fits = features.shape == (len(self.files), fc7.units) and not np.isnan(features).any()
            if fits and load_notes(arrays) == notes:
                self.features: Float32Array = features.astype(np.float32)
                return
        self.features = self._compute(progress)
        with suppress(OSError):  # of a run that one may only read, they are computed each time
            save_arrays(kept, {"features": self.features.astype(np.float16)}, notes)

    def _compute(self, progress: Progress | None) -> Float32Array:
        network = self.member.network
        crop = network.cropper()
        n, kept = len(self.files), list[int]()

        def load(index: int) -> Float32Array:
            cut: Float32Array = crop(load_image(self.files[index], network.recipe))
            return cut

        crops = skip_missing(kept, range(n), map_in_order(range(n), BadImageBudget(n).spare(load)))
        rows = []
        for row in network.features(crops):
            rows.append(row)
            if progress:
                progress(len(rows), n)
        features = np.full((n, len(rows[0])), np.inf, np.float32)  # of those left out: far away
        features[kept] = rows
        return features

    def nearest(self, features: Float32Array, count: int) -> tuple[Neighbor, ...]:
        """Return the `count` training images nearest to `features` (units,), the nearest first.

        An image that could not be read then, or is no longer there, is passed over.
        """
        distances = euclidean(features, self.features)
        order = np.argsort(distances, kind="stable")[: np.isfinite(distances).sum()]
        there = (index for index in order if self.files[index].holder.exists())
        nearest = islice(there, count)
        return tuple(Neighbor(self.files[index], float(distances[index])) for index in nearest)


def euclidean(one: Float32Array, many: Float32Array) -> npt.NDArray[np.float64]:
    """Return the distances of `one` (units,) to each row of `many` (n, units)."""
    distances: npt.NDArray[np.float64] = np.linalg.norm(many.astype(np.float64) - one, axis=1)
    return distances
