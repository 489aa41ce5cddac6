"""What the tasks return and tell while they work: plain data, for `render` or any program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.manifest import ImageFile, Rejected
from alexnet_cli.runs.metrics import ClassScore, Score, SelectiveAccuracy


@dataclass(frozen=True)
class MemberScore:
    """One model of an ensemble, measured alone."""

    path: Path
    epoch: int | None  # that the weights are from, if known
    one_crop: Score
    ten_crop: Score | None


@dataclass(frozen=True)
class ScoredImage:
    """An image, and what the network says of it."""

    file: ImageFile
    predicted: str
    probability: float  # of the class it predicts
    true_probability: float


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found; every image counts once."""

    members: tuple[MemberScore, ...]
    data: str
    split: str  # `train`, `val`, `test`, or `all` of a folder that is not split
    classes: tuple[str, ...]
    one_crop: Score  # of the members' mean softmax
    ten_crop: Score | None
    top1_interval: tuple[float, float]  # 95 %, of what the matrix counts
    matrix: npt.NDArray[np.int64]  # (true, predicted): with ten crops if they were asked for
    per_class: tuple[ClassScore, ...]
    most_confused: tuple[tuple[str, str, int], ...]
    worst: tuple[ScoredImage, ...]  # mistakes, that it is surest of first
    doubtful: tuple[ScoredImage, ...]  # images of two best classes nearly alike, the nearest first
    refusals: tuple[SelectiveAccuracy, ...]  # by rising `below`
    rejected: tuple[Rejected, ...]  # files that should have been among the images
    n_seen: int  # images whose content was trained on, where another split was asked for

    @property
    def score(self) -> Score:
        """The score that interval, matrix and classes belong to."""
        return self.ten_crop or self.one_crop


@dataclass(frozen=True)
class Neighbor:
    """A training image near to another."""

    file: ImageFile
    distance: float  # Euclidean, of fc7's outputs


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, the best first, with their probabilities."""

    file: ImageFile
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    neighbors: tuple[Neighbor, ...] = ()  # the training images nearest to it, if asked for
    refused: bool = False  # none of the classes: even the best is too unlikely


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it compares with the run it is of, on real photographs."""

    path: Path
    n_images: int
    apart: float  # the largest difference of a probability
    same: int  # images that get the same class
    top1: float  # of the run
    top1_exported: float
