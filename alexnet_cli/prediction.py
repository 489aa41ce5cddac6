"""Say what a photograph shows."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from alexnet_cli import images
from alexnet_cli.classifier import Ensemble
from alexnet_cli.errors import AlexNetError, BadFile, UsageError
from alexnet_cli.manifest import MANIFEST, ImageFile, Progress, Rejected, is_ours, read_manifest
from alexnet_cli.parallel import in_order
from alexnet_cli.pipeline import Float32Array
from alexnet_cli.reports import Neighbour, Prediction
from alexnet_cli.retrieval import TrainingImages


def predict(
    paths: Sequence[Path],
    *,
    models: Sequence[Path] | None = None,
    top: int = 5,
    ten_crop: bool = False,
    neighbours: int = 0,
    progress: Progress | None = None,
) -> Iterator[Prediction | Rejected]:
    """Classify image files, and all images in folders, with `models` (default: the newest run).

    The models' softmax outputs are averaged. Yields an outcome per image as it comes, in order.
    `top` is the number of classes to give, at most those there are; `neighbours` that of nearest
    training images, for which one model is needed. Raises `UsageError` for `top` below 1.
    """
    if top < 1:
        raise UsageError(f"--top {top}: must be at least 1")
    ensemble = Ensemble(models, ten_crop=ten_crop)
    training = None
    if neighbours:
        if len(ensemble.members) > 1:
            raise UsageError("--neighbours: works with one --model")
        training = TrainingImages(ensemble.members[0], progress)

    def load(file: ImageFile) -> tuple[ImageFile, list[Float32Array] | Rejected]:
        try:
            return file, ensemble.load(file)
        except BadFile as error:
            return file, Rejected(error.path, error.reason)

    good: deque[tuple[ImageFile, Float32Array]] = deque()
    failures: deque[Rejected] = deque()

    def crops() -> Iterator[list[Float32Array]]:
        for file, outcome in in_order(list_images(paths), load, ahead=ensemble.ahead):
            if isinstance(outcome, Rejected):
                failures.append(outcome)
            else:
                good.append((file, outcome[0][:1]))
                yield outcome

    for outputs in ensemble.probabilities(crops()):
        scores = outputs.mean(axis=(0, 1))
        best = scores.argsort(kind="stable")[::-1][:top]
        file, centre = good.popleft()
        near: tuple[Neighbour, ...] = ()
        if training:
            (features,) = ensemble.members[0].classifier.features([centre])
            near = training.nearest(features, neighbours)
        yield Prediction(
            file=file,
            classes=tuple(ensemble.classes[index] for index in best),
            probabilities=tuple(float(scores[index]) for index in best),
            neighbours=near,
        )
        yield from _drain(failures)
    yield from _drain(failures)


def _drain(failures: deque[Rejected]) -> Iterator[Rejected]:
    while failures:
        yield failures.popleft()


def list_images(paths: Sequence[Path]) -> list[ImageFile]:
    """Name the files of `paths`; of a folder those below it that end like images, sorted.

    Of a prepared split they are what its shards hold. Raises `AlexNetError` for a folder without
    any; a missing file is named when it is read.
    """
    found: list[ImageFile] = []
    for path in paths:
        if not path.is_dir():
            found.append(ImageFile(path))
            continue
        if is_ours(path):
            found += read_manifest(path / MANIFEST, path).files
            continue
        inside = [
            Path(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in images.SUFFIXES
        ]
        if not inside:
            raise AlexNetError(f"{path}: no images in this folder")
        found += map(ImageFile, sorted(inside))
    return found
