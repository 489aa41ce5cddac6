"""What a training reports while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alexnet_cli.data.manifest import Rejected
from alexnet_cli.runs.config import RunConfig
from alexnet_cli.runs.records import EpochRow, Finding


@dataclass(frozen=True)
class TrainPlan:
    """What a training will do, known before its first step."""

    run: Path
    config: RunConfig
    n_images: dict[str, int]  # by split
    n_parameters: int
    devices: tuple[str, ...]
    workers: tuple[str, ...]  # the addresses of a cluster; else empty
    rank: int  # of this worker; the chief has 0
    first_epoch: int
    n_done: int  # images of the first epoch that were trained on before
    transferred: tuple[str, ...]  # layers that start from the weights of another model
    decoded_in: str | None  # where the decoded training images are kept, if they are
    rejected: tuple[Rejected, ...] = ()  # files skipped when this training split the images
    changed: tuple[str, ...] = ()  # versions that differ from those the run began with


class Callback:
    """Receives what a training reports while it runs; this one ignores everything."""

    def on_read_progress(self, done: int, total: int) -> None:
        """Called when `done` of `total` images have been read, before the training begins."""

    def on_image_rejected(self, rejected: Rejected) -> None:
        """Called once for every image that became unreadable after the split, from any thread."""

    def on_train_begin(self, plan: TrainPlan) -> None:
        """Called before the first step, with everything known by then."""

    def on_init_progress(self, done: int, total: int) -> None:
        """Called when `done` of `total` towers have got their initial kernels by k-means."""

    def on_batch_end(self, epoch: int, done: int, total: int) -> None:
        """Called when `done` of the `total` images of an epoch have been trained on."""

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Called when an epoch is on disk; `best` if its weights were kept."""

    def on_finding(self, finding: Finding) -> None:
        """Called when the diagnostics find a problem, once for each kind of problem."""

    def on_score_progress(self, done: int, total: int) -> None:
        """Called when `done` of `total` images have been scored with the finished weights."""
