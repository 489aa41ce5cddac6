"""Result types of inference: plain data, for the command line or any program."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.manifest import ImageFile, Rejected
from alexnet_cli.runs.calibration import CalibratedScore, ReliabilityBin
from alexnet_cli.runs.metrics import ClassScore, SelectiveAccuracy
from alexnet_cli.system.html_tables import html_table

FOLDS = "folds"  # in place of the name of a split: every image once, by the model of its fold
BAR = 20  # characters of a probability of 1


@dataclass(frozen=True)
class MemberScore:
    """The scores of one model of an ensemble, or of one fold of a cross-validation on this fold."""

    path: Path
    epoch: int | None  # of the weights, if known
    temperature: float  # in its probabilities; 1 is the plain softmax
    one_crop: CalibratedScore
    ten_crop: CalibratedScore | None


@dataclass(frozen=True)
class ScoredImage:
    """An image and its prediction."""

    file: ImageFile
    predicted: str
    probability: float  # of the predicted class
    true_probability: float


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """The scores of one split; every image counts once."""

    split: str  # `train`, `val`, `test`, `all` of a folder that is not split, or `FOLDS`
    members: tuple[MemberScore, ...]
    # of the members' mean softmax; of `FOLDS` of each image by its fold's
    one_crop: CalibratedScore
    ten_crop: CalibratedScore | None
    top1_interval: tuple[float, float]  # 95 %, of `score`
    rejected: tuple[Rejected, ...]  # files of the split that are not readable images
    n_trained_on: int  # images trained on, or near copies of these; 0 for the training split itself
    chose_epoch: bool  # these images chose the epoch of the weights: the scores are optimistic

    @property
    def score(self) -> CalibratedScore:
        """Return the score with ten crops if they were requested, else with one."""
        return self.ten_crop or self.one_crop


@dataclass(frozen=True, kw_only=True)
class EvaluationReport(SplitScore):
    """The scores of a split in detail; `reliability` and all below it belong to `score`."""

    data: str
    classes: tuple[str, ...]
    validation: (
        SplitScore | None
    )  # for comparison with the test split, unless one split was requested
    reliability: tuple[ReliabilityBin, ...]  # by rising probability
    matrix: npt.NDArray[np.int64]  # (true, predicted)
    per_class: tuple[ClassScore, ...]
    most_confused: tuple[tuple[str, str, int], ...]
    confident_errors: tuple[ScoredImage, ...]  # errors, the highest probability first
    least_certain: tuple[ScoredImage, ...]  # the smallest margin of the top two classes first
    # Probably wrong labels, the likeliest first, with the proposed class as `predicted`; only of
    # images that were not trained on, and None if there are none of these.
    suspects: tuple[ScoredImage, ...] | None
    selective_accuracy: tuple[SelectiveAccuracy, ...]  # by rising threshold

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data that the json module can write."""
        data = asdict(self)
        lists = (data["confident_errors"], data["least_certain"], data["suspects"] or ())
        for item in chain(*lists):
            file = item.pop("file")
            item |= {"path": file["path"], "label": file["label"]}
        plain: dict[str, Any] = json.loads(json.dumps(data, default=_plain))
        return plain


def _plain(value: object) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


@dataclass(frozen=True)
class Neighbor:
    """A training image that is similar to another image."""

    file: ImageFile
    distance: float  # Euclidean, of the outputs of fc7


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one image, the best first, with their probabilities, 0 to 1."""

    file: ImageFile | None  # None for an image from memory
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    neighbors: tuple[Neighbor, ...] = ()  # the nearest training images, if requested
    below_threshold: bool = False  # the top probability is below the threshold

    @property
    def path(self) -> Path | None:
        """The path of the file; None for an image from memory."""
        return self.file.path if self.file else None

    @property
    def label(self) -> str:
        """The most likely class."""
        return self.classes[0]

    @property
    def probability(self) -> float:
        """The probability of the most likely class."""
        return self.probabilities[0]

    def _repr_html_(self) -> str:
        """Return the prediction as an HTML table, as which a notebook shows it."""
        rows = [
            (name, f"{probability:.1%}", "█" * round(BAR * probability))
            for name, probability in zip(self.classes, self.probabilities)
        ]
        title = self.path.name if self.path else "image from memory"
        if self.below_threshold:
            title += ": none of these, as the best probability is below the threshold"
        tables = html_table(("class", "probability", ""), rows, title)
        if self.neighbors:
            near = [(n.file.label, n.file.path.name, f"{n.distance:.1f}") for n in self.neighbors]
            tables += html_table(("class", "file", "distance"), near, "nearest training images")
        return tables


@dataclass(frozen=True)
class ExportReport:
    """An exported network, compared with its run on validation images."""

    path: Path
    n_images: int
    largest_difference: float  # between the probabilities of the run and of the export
    n_same: int  # images with the same predicted class
    top1: float  # of the run
    top1_exported: float
