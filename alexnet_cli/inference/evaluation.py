"""Measure a trained network on a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from alexnet_cli.data import scanning, splitting
from alexnet_cli.data.manifest import SPLITS, ImageFile, Manifest
from alexnet_cli.data.store import BadImageBudget
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.inference.results import EvaluationReport, MemberScore, ScoredImage
from alexnet_cli.runs import metrics
from alexnet_cli.runs.metrics import Score
from alexnet_cli.runs.models import Ensemble, Member
from alexnet_cli.system.workers import map_in_order, skip_missing

SHOWN = 12  # of the worst and of the most doubtful images
# Probabilities below which an image may be called none of the classes.
BOUNDS = (0.3, 0.5, 0.7, 0.9)


def evaluate(
    data: Path | None = None,
    *,
    models: Sequence[Path] | None = None,
    split: str | None = None,
    ten_crop: bool = False,
    none_below: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Evaluate `models` (default: the newest run), their softmax outputs averaged, on `data`.

    `data` is by default what the first model was trained on, and `split` its `val`. Of a folder
    that is not split, and is not the one trained on, all images are taken. The cost of refusing
    images is told for `BOUNDS` and for `none_below`, a probability.
    """
    bounds = {*BOUNDS} if none_below is None else {*BOUNDS, none_below}
    ensemble = Ensemble(models, ten_crop=ten_crop)
    manifest, split = _choose(data, split, ensemble.members[0])
    classes = ensemble.classes
    _require_same_classes(manifest, classes)
    files = manifest.of(split) if split != "all" else manifest.files
    if not files:
        raise AlexNetError(f"{manifest.root}: no image in the {split} split")

    shape = (len(files), len(ensemble.members), len(classes))
    one = np.empty(shape, np.float32)
    ten = np.empty(shape, np.float32) if ten_crop else one
    left_out, kept = BadImageBudget(len(files)), list[ImageFile]()
    crops = map_in_order(files, left_out.spare(ensemble.load), ahead=ensemble.ahead)
    for number, outputs in enumerate(ensemble.probabilities(skip_missing(kept, files, crops))):
        one[number], ten[number] = outputs[:, 0], outputs.mean(axis=1)  # the center comes first
        if progress:
            progress(number + 1, len(files))

    one, ten = one[: len(kept)], ten[: len(kept)]
    index = {name: number for number, name in enumerate(classes)}
    y_true = np.array([index[file.label] for file in kept])

    def scores(member: slice) -> tuple[Score, Score | None]:
        mean_one, mean_ten = (a[:, member].mean(axis=1) for a in (one, ten))
        ten_score = metrics.score(y_true, mean_ten) if ten_crop else None
        return metrics.score(y_true, mean_one), ten_score

    members = tuple(
        MemberScore(member.path, member.epoch, *scores(np.s_[number : number + 1]))
        for number, member in enumerate(ensemble.members)
    )
    one_crop, ten_crop_score = scores(np.s_[:])
    y_score = (ten if ten_crop else one).mean(axis=1)
    y_pred = y_score.argmax(axis=1)
    matrix = metrics.confusion_matrix(y_true, y_pred, len(classes))

    def judged(chosen: metrics.IntArray) -> tuple[ScoredImage, ...]:
        return tuple(
            ScoredImage(
                kept[i], classes[y_pred[i]], float(y_score[i].max()), float(y_score[i, y_true[i]])
            )
            for i in chosen[:SHOWN]
        )

    seen = _seen(ensemble) if split != "train" else set()
    return EvaluationReport(
        members=members,
        data=str(manifest.root),
        split=split,
        classes=classes,
        one_crop=one_crop,
        ten_crop=ten_crop_score,
        top1_interval=metrics.wilson_interval(int(np.trace(matrix)), len(kept)),
        matrix=matrix,
        per_class=metrics.per_class(matrix, classes),
        most_confused=metrics.most_confused(matrix, classes),
        worst=judged(metrics.surest_mistakes(y_true, y_score)),
        doubtful=judged(metrics.most_doubtful(y_score)),
        refusals=tuple(metrics.refuse(y_true, y_score, below) for below in sorted(bounds)),
        rejected=(*(manifest.rejected if split == "all" else ()), *left_out),
        n_seen=sum(file.sha256 in seen for file in kept),
    )


def _seen(ensemble: Ensemble) -> set[str]:
    """Name the content of every image that a member was trained on."""
    manifests = (member.trained_on for member in ensemble.members)
    return {file.sha256 for m in manifests if m for file in m.of("train")} - {""}


def _choose(data: Path | None, split: str | None, model: Member) -> tuple[Manifest, str]:
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split}: choose from {', '.join(SPLITS)}")
    own = model.config and (data is None or data.resolve() == Path(model.config.data))
    if own and model.trained_on:
        return model.trained_on, split or "val"
    if data is None:
        raise UsageError(f"{model.path}: does not know its images; name a folder of them")
    if scanning.is_split(data):
        return splitting.open_data(data), split or "val"
    if split is not None:
        raise AlexNetError(f"{data}: is not split; leave out --split to evaluate all its images")
    return splitting.open_data(data), "all"


def _require_same_classes(manifest: Manifest, classes: Sequence[str]) -> None:
    data, model = set(manifest.classes), set(classes)
    if data != model:
        unknown, absent = sorted(data - model), sorted(model - data)
        parts = [f"the model does not know {', '.join(unknown)}"] if unknown else []
        parts += [f"the data lacks {', '.join(absent)}"] if absent else []
        raise AlexNetError(f"{manifest.root}: other classes than the model's: {'; '.join(parts)}")
