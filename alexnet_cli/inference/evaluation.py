"""Evaluate trained models on a folder of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet_cli.data import near_copies, scanning, split_folders
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.manifest import SPLITS, ImageFile, Manifest, Rejected
from alexnet_cli.data.store import BadImageBudget
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.inference.label_errors import find_label_errors
from alexnet_cli.inference.results import (
    FOLDS,
    EvaluationReport,
    MemberScore,
    ScoredImage,
    SplitScore,
)
from alexnet_cli.runs import metrics
from alexnet_cli.runs.calibration import (
    CalibratedScore,
    Float64Array,
    calibrated_score,
    reliability,
    temper,
)
from alexnet_cli.runs.models import Ensemble, LoadedModel
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.system.safe_names import list_first
from alexnet_cli.system.workers import map_in_order, skip_missing

SHOWN = 12  # confident errors and least certain images in a report
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)  # probabilities for the selective accuracy


@dataclass(frozen=True)
class _Outputs:
    """The models' softmax outputs for the images of a split."""

    files: tuple[ImageFile, ...]
    rejected: tuple[Rejected, ...]
    y_true: metrics.IntArray
    # Of one crop and, if requested, the mean of ten, which come second:
    y_score: Float32Array  # (1 or 2, images, members, classes)
    uncalibrated: Float64Array  # (1 or 2, images, members), of the true class, without temperatures
    trained_on: npt.NDArray[np.bool_]  # by any of the models


def evaluate(
    models: Sequence[LoadedModel],
    data: Path | None = None,
    *,
    split: str | None = None,
    ten_crop: bool = False,
    threshold: float | None = None,
    folds: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Evaluate `models`, their softmax outputs averaged, on `data`.

    `data` is by default the split that the first model was trained on; a folder that is not split
    is evaluated as a whole. Without `split`, the report covers `test` and adds the scores of `val`;
    if there is no `test`, it covers `val`. The selective accuracy is computed for `THRESHOLDS` and
    for `threshold`, a probability.

    With `folds`, the models are those of a cross-validation: on its own images each judges its fold,
    so that every image counts once, and nothing is averaged. Other images are judged by the mean.
    """
    if split is not None and split not in SPLITS:
        raise UsageError(f"choose from {', '.join(SPLITS)}", argument="split", value=split)
    thresholds = sorted({*THRESHOLDS, *([] if threshold is None else [threshold])})
    if folds and models[0].run and _is_own(data, models[0].run):
        return _evaluate_folds(models, split, ten_crop, thresholds, progress)
    ensemble = Ensemble(models, ten_crop=ten_crop)
    manifest, splits = _choose(data, split, ensemble.models[0])
    manifest = _name_classes(manifest, ensemble.classes)
    n_images = sum(len(_files(manifest, name)) for name in splits)
    if not n_images:
        raise AlexNetError(f"{manifest.data}: no images in the {splits[0]} split")
    advance = _counter(n_images, progress)
    outputs = {name: _run(ensemble, _files(manifest, name), ten_crop, advance) for name in splits}
    scores = {name: _score(ensemble, manifest, name, outputs[name]) for name in splits}
    shown, *others = splits
    return _details(
        scores[shown],
        outputs[shown],
        data=str(manifest.data),
        classes=ensemble.classes,
        validation=scores[others[0]] if others else None,
        thresholds=thresholds,
    )


def _evaluate_folds(
    models: Sequence[LoadedModel],
    split: str | None,
    ten_crop: bool,
    thresholds: Sequence[float],
    progress: Callable[[int, int], None] | None,
) -> EvaluationReport:
    """Return the report of all images, each judged by the model of its fold, its test split."""
    if split is not None:
        reason = "leave it out, as every image is judged once, by the network of its fold"
        raise UsageError(reason, argument="split", value=split)
    manifests = [model.run.images() for model in models if model.run]
    advance = _counter(sum(len(manifest.of("test")) for manifest in manifests), progress)
    parts, members = [], list[MemberScore]()
    for model, manifest in zip(models, manifests, strict=True):
        ensemble = Ensemble([model], ten_crop=ten_crop)
        parts.append(_run(ensemble, manifest.of("test"), ten_crop, advance))
        members += _score(ensemble, manifest, "test", parts[-1]).members
    pooled = _Outputs(
        files=tuple(file for part in parts for file in part.files),
        rejected=tuple(item for part in parts for item in part.rejected),
        y_true=np.concatenate([part.y_true for part in parts]),
        y_score=np.concatenate([part.y_score for part in parts], axis=1),
        uncalibrated=np.concatenate([part.uncalibrated for part in parts], axis=1),
        trained_on=np.concatenate([part.trained_on for part in parts]),
    )
    return _details(
        replace(_score(ensemble, manifest, FOLDS, pooled), members=tuple(members)),
        pooled,
        data=str(manifest.data),
        classes=ensemble.classes,
        validation=None,
        thresholds=thresholds,
    )


def _counter(total: int, progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    """Return a function to call after each image, which calls `progress` with (done, total)."""
    done = count(1)
    return lambda: progress(next(done), total) if progress else None


def _is_own(data: Path | None, run: RunFolder) -> bool:
    return data is None or data.resolve() == run.manifest.data


def _choose(data: Path | None, split: str | None, model: LoadedModel) -> tuple[Manifest, list[str]]:
    """Return the images and the splits to evaluate: first the one to report in detail."""
    run = model.run
    if run and _is_own(data, run):
        manifest = run.images()
    elif data is None:
        raise UsageError(
            f"is required, as {model.path} does not record its images", argument="data"
        )
    elif scanning.is_split(data):
        manifest = split_folders.open_data(data)
    elif split is None:
        return split_folders.open_data(data, seed=None), ["all"]
    else:
        raise AlexNetError(f"{data}: not split. Leave out --split to evaluate all its images")
    if split is not None:
        return manifest, [split]
    used = {file.split for file in manifest.files}
    return manifest, [name for name in ("test", "val") if name in used] or ["val"]


def _files(manifest: Manifest, split: str) -> Sequence[ImageFile]:
    return manifest.files if split == "all" else manifest.of(split)


def _run(
    ensemble: Ensemble, files: Sequence[ImageFile], ten_crop: bool, advance: Callable[[], None]
) -> _Outputs:
    """Return the outputs for all files that can be read."""
    # One crop is the center, which comes first.
    kinds = [np.s_[:, :1], np.s_[:, :]] if ten_crop else [np.s_[:, :1]]
    shape = (len(kinds), len(files), len(ensemble.models), len(ensemble.classes))
    y_score, uncalibrated = np.empty(shape, np.float32), np.empty(shape[:3])
    temperatures = np.array([model.temperature for model in ensemble.models])[:, None, None]
    index = {name: number for number, name in enumerate(ensemble.classes)}
    budget, kept = BadImageBudget(len(files)), list[ImageFile]()
    crops = map_in_order(files, budget.tolerate(ensemble.load), ahead=ensemble.prefetch)
    for number, outputs in enumerate(ensemble.probabilities(skip_missing(kept, files, crops))):
        plain = outputs if (temperatures == 1).all() else temper(outputs, 1 / temperatures)
        true = plain[..., index[kept[number].label]]
        for kind, crop in enumerate(kinds):
            y_score[kind, number] = outputs[crop].mean(axis=1)
            uncalibrated[kind, number] = true[crop].mean(axis=1)
        advance()
    n, y_true = len(kept), np.array([index[file.label] for file in kept])
    return _Outputs(
        files=tuple(kept),
        rejected=tuple(budget),
        y_true=y_true,
        y_score=y_score[:, :n],
        uncalibrated=uncalibrated[:, :n],
        trained_on=_trained_on(ensemble, kept),
    )


def _trained_on(ensemble: Ensemble, files: Sequence[ImageFile]) -> npt.NDArray[np.bool_]:
    """Return which of `files` any of the models was trained on, as they are or as near copies."""
    manifests = (member.trained_on for member in ensemble.models)
    return near_copies.are_among(files, chain.from_iterable(m.of("train") for m in manifests if m))


def _score(ensemble: Ensemble, manifest: Manifest, split: str, outputs: _Outputs) -> SplitScore:
    def scores(member: slice) -> tuple[CalibratedScore, CalibratedScore | None]:
        one, *ten = (
            calibrated_score(outputs.y_true, *(a[:, member].mean(axis=1) for a in both))
            for both in zip(outputs.y_score, outputs.uncalibrated)
        )
        return one, ten[0] if ten else None

    one_crop, ten_crop = scores(np.s_[:])
    score, n = ten_crop or one_crop, len(outputs.files)
    own = any(m.trained_on and m.trained_on.data == manifest.data for m in ensemble.models)
    return SplitScore(
        split=split,
        members=tuple(
            MemberScore(
                member.path, member.epoch, member.temperature, *scores(np.s_[number : number + 1])
            )
            for number, member in enumerate(ensemble.models)
        ),
        one_crop=one_crop,
        ten_crop=ten_crop,
        top1_interval=metrics.wilson_interval(round(score.top1 * n), n),
        rejected=(*(manifest.rejected if split == "all" else ()), *outputs.rejected),
        n_trained_on=int(outputs.trained_on.sum()) if split != "train" else 0,
        chose_epoch=own and split == "val",
    )


def _details(
    score: SplitScore,
    outputs: _Outputs,
    *,
    data: str,
    classes: tuple[str, ...],
    validation: SplitScore | None,
    thresholds: Sequence[float],
) -> EvaluationReport:
    y_true, y_score = outputs.y_true, outputs.y_score[-1].mean(axis=1)
    y_pred = y_score.argmax(axis=1)
    matrix = metrics.confusion_matrix(y_true, y_pred, len(classes))

    def scored(image: int, label: int) -> ScoredImage:
        row = y_score[image]
        name, given = classes[label], y_true[image]
        return ScoredImage(outputs.files[image], name, float(row[label]), float(row[given]))

    def shown(chosen: metrics.IntArray) -> tuple[ScoredImage, ...]:
        return tuple(scored(image, y_pred[image]) for image in chosen[:SHOWN])

    held_out = np.flatnonzero(~outputs.trained_on)
    errors, proposed = find_label_errors(y_true[held_out], y_score[held_out])

    return EvaluationReport(
        **{field.name: getattr(score, field.name) for field in fields(score)},
        data=data,
        classes=classes,
        validation=validation,
        reliability=reliability(y_true, y_score),
        matrix=matrix,
        per_class=metrics.per_class(matrix, classes),
        most_confused=metrics.most_confused(matrix, classes),
        confident_errors=shown(metrics.most_confident_errors(y_true, y_score)),
        least_certain=shown(metrics.least_certain(y_score)),
        suspects=tuple(map(scored, held_out[errors], proposed)) if held_out.size else None,
        selective_accuracy=tuple(
            metrics.selective_accuracy(y_true, y_score, threshold) for threshold in thresholds
        ),
    )


def _name_classes(manifest: Manifest, classes: Sequence[str]) -> Manifest:
    """Return `manifest` with its classes by the model's names; raises `AlexNetError` for others.

    A folder is named like its class, or as in ImageNet by the synset at the beginning of the name:
    `n02012849` holds the images of the class `n02012849 crane`, as Caffe's synset_words.txt has it.
    """
    known = {*classes}
    synsets = [re.match(r"n[0-9]{8}(?= )", name) for name in classes]
    number = Counter(found[0] for found in synsets if found)
    by_synset = {
        found[0]: name for found, name in zip(synsets, classes) if found and number[found[0]] == 1
    }
    names = {
        label: label if label in known else by_synset.get(label, label)
        for label in manifest.classes
    }
    _require_same_classes(manifest.data, {*names.values()}, known)
    if all(label == name for label, name in names.items()):
        return manifest
    files = tuple(replace(file, label=names[file.label]) for file in manifest.files)
    return replace(manifest, classes=tuple(names.values()), files=files)


def _require_same_classes(root: Path, data: set[str], model: set[str]) -> None:
    if data != model:
        unknown, absent = data - model, model - data
        parts = [f"the model does not know {list_first(sorted(unknown))}"] if unknown else []
        parts += [f"the data lacks {list_first(sorted(absent))}"] if absent else []
        raise AlexNetError(f"{root}: other classes than the model's: {'; '.join(parts)}")
