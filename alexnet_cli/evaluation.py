"""Measure a trained network on a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet_cli import metrics, scanning, splitting
from alexnet_cli.artifacts import Card, RunFolder
from alexnet_cli.classifier import load_classifier
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.manifest import MANIFEST, SPLITS, Manifest, read_manifest
from alexnet_cli.parallel import in_order
from alexnet_cli.pipeline import load_image
from alexnet_cli.reports import EvaluationReport


def evaluate(
    data: Path | None = None,
    *,
    model: Path | None = None,
    split: str | None = None,
    ten_crop: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Evaluate the run `model` (default: the newest) on one split of `data`.

    `data` is by default what the run was trained on, and `split` its `val`. Of a folder that is
    not split, and is not the one trained on, all images are taken.
    """
    run = RunFolder.find(model)
    card = run.card()
    trained_on = read_manifest(run.path / MANIFEST)
    manifest, split = _choose(data, split, card, trained_on)
    _require_same_classes(manifest, card)
    files = manifest.of(split) if split != "all" else manifest.files
    if not files:
        raise AlexNetError(f"{manifest.root}: no image in the {split} split")

    classifier = load_classifier(run)
    crop = classifier.cropper(ten_crop=ten_crop)
    crops = in_order(files, lambda file: crop(load_image(file.path, card.recipe)))
    scores = []
    for done, probabilities in enumerate(classifier.probabilities(crops), start=1):
        scores.append(probabilities)
        if progress:
            progress(done, len(files))
    by_crop = np.stack(scores)  # (images, crops, classes); the centre crop comes first

    index = {name: number for number, name in enumerate(card.classes)}
    y_true = np.array([index[file.label] for file in files])
    one, ten = by_crop[:, 0], by_crop.mean(axis=1)
    matrix = metrics.confusion_matrix(
        y_true, (ten if ten_crop else one).argmax(axis=1), len(card.classes)
    )
    seen = {file.sha256 for file in trained_on.of("train")} if split != "train" else set()
    return EvaluationReport(
        run=run.path,
        epoch=run.best_epoch(),
        data=str(manifest.root),
        split=split,
        classes=card.classes,
        one_crop=metrics.score(y_true, one),
        ten_crop=metrics.score(y_true, ten) if ten_crop else None,
        top1_interval=metrics.wilson_interval(int(np.trace(matrix)), len(files)),
        matrix=matrix,
        per_class=metrics.per_class(matrix, card.classes),
        most_confused=metrics.most_confused(matrix, card.classes),
        n_seen=sum(file.sha256 in seen for file in files),
    )


def _choose(
    data: Path | None, split: str | None, card: Card, trained_on: Manifest
) -> tuple[Manifest, str]:
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split}: choose from {', '.join(SPLITS)}")
    if data is None or data.resolve() == Path(card.data):
        return trained_on, split or "val"
    if scanning.is_split(data):
        return splitting.open_data(data), split or "val"
    if split is not None:
        raise AlexNetError(f"{data}: is not split; leave out --split to evaluate all its images")
    return splitting.open_data(data), "all"


def _require_same_classes(manifest: Manifest, card: Card) -> None:
    data, model = set(manifest.classes), set(card.classes)
    if data != model:
        unknown, absent = sorted(data - model), sorted(model - data)
        parts = [f"the model does not know {', '.join(unknown)}"] if unknown else []
        parts += [f"the data lacks {', '.join(absent)}"] if absent else []
        raise AlexNetError(f"{manifest.root}: other classes than the model's: {'; '.join(parts)}")
