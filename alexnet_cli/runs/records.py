"""Records of a run, stored in its folder: a row for each epoch, final scores, findings."""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_cli.runs.metrics import Score


@dataclass(frozen=True)
class EpochRow:
    """One epoch, as in the table on the screen and in history.csv."""

    epoch: int
    train_loss: float  # running mean, with augmentation and dropout
    train_top1: float
    val_loss: float
    val_top1: float
    val_top5: float | None
    learning_rate: float
    images_per_second: float  # of training
    seconds: float  # of the whole epoch, validation included


@dataclass(frozen=True)
class FinalScore:
    """The scores of the weights of an epoch on all images, without augmentation or dropout."""

    epoch: int
    train: Score
    val: Score


@dataclass(frozen=True)
class Finding:
    """A problem that the diagnostics found, with the evidence and a remedy to try."""

    kind: str
    epoch: int
    evidence: str
    remedy: str


@dataclass(frozen=True)
class FinalMetrics:
    """The final metrics of a run, as in metrics.json."""

    best: FinalScore
    last: FinalScore
    seconds: float  # total duration of all epochs
    findings: tuple[Finding, ...]
    skipped: dict[str, str]  # images that became unreadable after the split: path → reason
