"""Say what a photograph shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from alexnet_cli.data import images, scanning
from alexnet_cli.data.manifest import (
    MANIFEST,
    ImageFile,
    Progress,
    Rejected,
    is_alexnet_split,
    read_manifest,
)
from alexnet_cli.data.store import Float32Array
from alexnet_cli.errors import AlexNetError, BadFile, UsageError
from alexnet_cli.inference.neighbors import FeatureIndex
from alexnet_cli.inference.results import Neighbor, Prediction
from alexnet_cli.runs.models import Ensemble
from alexnet_cli.system.workers import map_in_order


def predict(
    paths: Sequence[Path],
    *,
    models: Sequence[Path] | None = None,
    top: int = 5,
    ten_crop: bool = False,
    neighbors: int = 0,
    none_below: float = 0.0,
    progress: Progress | None = None,
) -> Iterator[Prediction | Rejected]:
    """Classify image files, and all images in folders, with `models` (default: the newest run).

    The models' softmax outputs are averaged. Yields an outcome per image as it comes, in order.
    `top` is the number of classes to give, at most those there are; `neighbors` that of nearest
    training images, for which one model is needed. An image whose best class has a probability
    below `none_below` is refused. Raises `UsageError` for `top` below 1.
    """
    if top < 1:
        raise UsageError(f"--top {top}: must be at least 1")
    files = list_images(paths)
    ensemble = Ensemble(models, ten_crop=ten_crop, n_images=None if neighbors else len(files))
    training = None
    if neighbors:
        if len(ensemble.members) > 1:
            raise UsageError("--neighbors: works with one --model")
        training = FeatureIndex(ensemble.members[0], progress)

    def load(file: ImageFile | Rejected) -> tuple[ImageFile, list[Float32Array]] | Rejected:
        if isinstance(file, Rejected):
            return file
        try:
            return file, ensemble.load(file)
        except BadFile as error:
            return Rejected(error.path, error.reason)

    loaded: deque[tuple[ImageFile, Float32Array] | Rejected] = deque()  # and not yielded yet

    def crops() -> Iterator[list[Float32Array]]:
        for outcome in map_in_order(files, load, ahead=ensemble.ahead):
            if isinstance(outcome, Rejected):
                loaded.append(outcome)
            else:
                file, by_member = outcome
                loaded.append((file, by_member[0][:1]))
                yield by_member

    for outputs in ensemble.probabilities(crops()):
        while isinstance(first := loaded.popleft(), Rejected):
            yield first
        file, center = first
        scores = outputs.mean(axis=(0, 1))
        best = scores.argsort(kind="stable")[::-1][:top]
        near: tuple[Neighbor, ...] = ()
        if training:
            (features,) = ensemble.members[0].network.features([center])
            near = training.nearest(features, neighbors)
        yield Prediction(
            file=file,
            classes=tuple(ensemble.classes[index] for index in best),
            probabilities=tuple(float(scores[index]) for index in best),
            neighbors=near,
            refused=bool(scores[best[0]] < none_below),
        )
    for last in loaded:
        assert isinstance(last, Rejected)  # as all others have been classified
        yield last


def list_images(paths: Sequence[Path]) -> list[ImageFile | Rejected]:
    """Name the files of `paths`; of a folder, sorted, those that `split` would take or name.

    Of a prepared split they are what its shards hold. Raises `AlexNetError` for a folder without
    any; a missing file is named when it is read.
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
            if isinstance(item, Rejected) or images.claims(item)
        ]
        if not inside:
            raise AlexNetError(f"{path}: no images in this folder")
        found += sorted(inside, key=lambda item: item.path)
    return found
