"""Predictions: the most likely classes of images from files or from memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet_cli.data import images, scanning
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.manifest import MANIFEST, ImageFile, Rejected, is_alexnet_split, read_manifest
from alexnet_cli.errors import AlexNetError, ImageError, UsageError
from alexnet_cli.inference.neighbors import FeatureIndex
from alexnet_cli.inference.results import Neighbor, Prediction
from alexnet_cli.runs.models import Ensemble, LoadedModel
from alexnet_cli.system.workers import Progress, map_in_order

# An image to classify: a file, or RGB pixels in memory.
Source = ImageFile | Image.Image


def predict(
    models: Sequence[LoadedModel],
    sources: Sequence[Source | Rejected],
    *,
    top: int = 5,
    ten_crop: bool = False,
    neighbors: int = 0,
    threshold: float = 0.0,
    progress: Progress | None = None,
) -> Iterator[Prediction | Rejected]:
    """Yield the prediction for each of `sources`, in order; a file that can't be read is `Rejected`.

    The probabilities of several models are averaged. `top` is the number of classes to return, at
    most all of them. `neighbors` is the number of nearest training images to return; `progress` is
    called with (done, total) training images while their features are computed. A prediction whose
    top probability is below `threshold`, 0 to 1, is marked as `below_threshold`.

    Raises `UsageError` for `neighbors` with several models, at the call, not at the first `next`.
    """
    if neighbors and len(models) > 1:
        raise UsageError("works with a single model only", argument="neighbors", value=neighbors)
    n_images = None if neighbors else len(sources)
    ensemble = Ensemble(models, ten_crop=ten_crop, n_images=n_images)
    index = FeatureIndex(models[0], progress) if neighbors else None
    return _predict_each(ensemble, sources, top, threshold, index, neighbors)


def _predict_each(
    ensemble: Ensemble,
    sources: Iterable[Source | Rejected],
    top: int,
    threshold: float,
    index: FeatureIndex | None,
    n_neighbors: int,
) -> Iterator[Prediction | Rejected]:
    # Sources whose predictions are still to come, with rejected ones in their places.
    waiting: deque[tuple[Source, Float32Array] | Rejected] = deque()

    def load(source: Source | Rejected) -> tuple[Source, list[Float32Array]] | Rejected:
        if isinstance(source, Rejected):
            return source
        try:
            return source, ensemble.load(source)
        except ImageError as error:
            if not isinstance(source, ImageFile):
                raise
            return Rejected(source.path, error.reason)

    def crops() -> Iterator[list[Float32Array]]:
        for outcome in map_in_order(sources, load, ahead=ensemble.prefetch):
            if isinstance(outcome, Rejected):
                waiting.append(outcome)
            else:
                source, by_model = outcome
                waiting.append((source, by_model[0][:1]))
                yield by_model

    for outputs in ensemble.probabilities(crops()):
        while isinstance(first := waiting.popleft(), Rejected):
            yield first
        source, center = first
        scores = outputs.mean(axis=(0, 1))
        best = scores.argsort(kind="stable")[::-1][:top]
        yield Prediction(
            file=source if isinstance(source, ImageFile) else None,
            classes=tuple(ensemble.classes[number] for number in best),
            probabilities=tuple(float(scores[number]) for number in best),
            neighbors=_nearest(ensemble, index, center, n_neighbors),
            below_threshold=bool(scores[best[0]] < threshold),
        )
    for last in waiting:
        assert isinstance(last, Rejected)  # as all others have been classified
        yield last


def _nearest(
    ensemble: Ensemble, index: FeatureIndex | None, center: Float32Array, count: int
) -> tuple[Neighbor, ...]:
    if index is None:
        return ()
    ((features,),) = ensemble.models[0].network().features([center])
    return index.nearest(features, count)


def list_images(paths: Sequence[Path]) -> list[ImageFile | Rejected]:
    """Return the image files of `paths`; a folder stands for all images in it and its subfolders.

    The images of a folder are sorted; they are those that `split` would use or list as skipped. A
    prepared split stands for the images in its shards. Raises `AlexNetError` for a folder without
    images. A missing file is not an error here; reading it is.
    """
    found: list[ImageFile | Rejected] = []
    for path in paths:
        if not path.is_dir():
            found.append(ImageFile(path))
            continue
        if is_alexnet_split(path):
            found += read_manifest(path / MANIFEST, path).files
            continue
        inside = [
            item if isinstance(item, Rejected) else ImageFile(item)
            for item in scanning.walk(path)
            if isinstance(item, Rejected) or images.looks_like_image(item)
        ]
        if not inside:
            raise AlexNetError(f"{path}: no images in this folder or below it")
        found += sorted(inside, key=lambda item: item.path)
    return found


def probabilities(
    models: Sequence[LoadedModel], sources: Sequence[Source], *, ten_crop: bool = False
) -> Float32Array:
    """Return the averaged probabilities of every class: float32, (sources, classes).

    Raises `ImageError` for a source that can't be read.
    """
    ensemble = Ensemble(models, ten_crop=ten_crop, n_images=len(sources))
    crops = map_in_order(sources, ensemble.load, ahead=ensemble.prefetch)
    rows = [outputs.mean(axis=(0, 1)) for outputs in ensemble.probabilities(crops)]
    return np.stack(rows) if rows else np.empty((0, len(ensemble.classes)), np.float32)


def features(model: LoadedModel, sources: Sequence[Source]) -> Float32Array:
    """Return the outputs of the last hidden layer, fc7, for center crops: float32, (sources, units).

    Raises `ImageError` for a source that can't be read.
    """
    ensemble = Ensemble([model], n_images=len(sources))
    network = model.network(len(sources))
    crops = map_in_order(sources, ensemble.load, ahead=ensemble.prefetch)
    rows = [row for (crop,) in crops for row in network.features([crop])]
    *_, fc7 = model.recipe.dense
    return np.concatenate(rows) if rows else np.empty((0, fc7.units), np.float32)
