"""Records of a training, kept in its run folder: a row for each epoch, final scores, findings."""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_cli.runs.metrics import Score


@dataclass(frozen=True)
class EpochRow:
    """One epoch as the table and history.csv show it."""

    epoch: int
    train_loss: float  # running mean, with augmentation and dropout
    train_top1: float
    val_loss: float
    val_top1: float
    val_top5: float | None
    learning_rate: float
    images_per_second: float  # of training
    seconds: float  # of the whole epoch


@dataclass(frozen=True)
class FinalScore:
    """The scores of one set of weights over every image, without augmentation or dropout."""

    epoch: int
    train: Score
    val: Score


@dataclass(frozen=True)
class Finding:
    """Something is wrong: what, the evidence, and what to try."""

    kind: str
    epoch: int
    evidence: str
    remedy: str


@dataclass(frozen=True)
class FinalMetrics:
    """The final metrics of a run, as metrics.json has them."""

    best: FinalScore
    last: FinalScore
    seconds: float  # of training, in all epochs
    findings: tuple[Finding, ...]
    skipped: dict[str, str]  # images that became unreadable after the split: path → reason
