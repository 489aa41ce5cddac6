"""What a training reports while it runs, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alexnet_cli.data.manifest import Rejected
from alexnet_cli.runs.records import EpochRow, FinalScore, Finding
from alexnet_cli.runs.run_folder import RunConfig


@dataclass(frozen=True)
class TrainPlan:
    """What a training will do, known before its first step."""

    run: Path
    config: RunConfig
    n_images: dict[str, int]  # by split
    n_parameters: int
    devices: tuple[str, ...]
    workers: tuple[str, ...]  # the addresses of a cluster; else empty
    first_epoch: int
    done: int  # images of it that were learned from already
    transferred: tuple[str, ...]  # layers that start from the weights of another model
    kept: str | None  # where the decoded training images are kept, if they are
    rejected: tuple[Rejected, ...] = ()  # left out when this training divided the images
    changed: tuple[str, ...] = ()  # what is another than when the run began


@dataclass(frozen=True)
class TrainReport:
    """What a finished training found."""

    run: Path
    best: FinalScore
    last: FinalScore
    seconds: float
    findings: tuple[Finding, ...]  # what went wrong with its learning, if anything did
    left_out: tuple[Rejected, ...] = ()  # images that have gone bad since they were divided


class Callback:
    """What a training tells while it runs; this one keeps it to itself."""

    def on_read_progress(self, done: int, total: int) -> None:
        """Hear that `done` of `total` images have been decoded."""

    def on_image_rejected(self, rejected: Rejected) -> None:
        """Hear that an image has gone bad since the split, and is left out; of each once.

        This comes from any thread.
        """

    def on_train_begin(self, plan: TrainPlan) -> None:
        """Hear what is about to happen."""

    def on_init_progress(self, done: int, total: int) -> None:
        """Hear that `done` of `total` towers have the kernels that they start from."""

    def on_batch_end(self, epoch: int, done: int, total: int) -> None:
        """Hear that `done` of the epoch's `total` images have been learned from."""

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Hear the epoch's figures, its weights being on disk, and if they are the best so far."""

    def on_finding(self, finding: Finding) -> None:
        """Hear that the run does not learn as it should; each kind of trouble once."""

    def on_score_progress(self, done: int, total: int) -> None:
        """Hear that `done` of `total` images have been measured with the finished weights."""
