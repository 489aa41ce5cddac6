"""What a checkpoint says beside its arrays: how far the training is, and what it found so far.

`last` holds the arrays (weights, velocities, state of the dropout) and one `CheckpointMeta`; together
they are all that continuing needs, so that a resumed training ends with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_cli.runs.records import EpochRow, Finding


@dataclass(frozen=True)
class EpochProgress:
    """How far an epoch is, with sums over the images that were trained on so far."""

    n_done: int = 0  # images of the epoch that were passed, skipped ones included
    n_trained: int = 0  # images that were trained on
    loss_sum: float = 0.0
    n_hits: int = 0
    worst_loss: float = 0.0  # the largest loss of a batch, divided by the size of a full batch
    seconds: float = 0.0

    def add_batch(
        self, n_images: int, n_trained: int, loss: float, hits: int, seconds: float, full: int
    ) -> EpochProgress:
        """Add a batch of `n_images`, of which `n_trained` were readable, with its summed `loss`.

        `full` is the size of every batch but the last of an epoch.
        """
        return EpochProgress(
            n_done=self.n_done + n_images,
            n_trained=self.n_trained + n_trained,
            loss_sum=self.loss_sum + loss,
            n_hits=self.n_hits + hits,
            worst_loss=max(self.worst_loss, loss / full),
            seconds=self.seconds + seconds,
        )


@dataclass(frozen=True)
class CheckpointMeta:
    """The state of a training apart from its arrays."""

    planned_epochs: int  # in all; `--resume --epochs` may ask for another number than the recipe
    history: tuple[EpochRow, ...] = ()  # a row for each finished epoch
    progress: EpochProgress = EpochProgress()  # of the next epoch
    findings: tuple[Finding, ...] = ()

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def has_begun(self) -> bool:
        """Whether any batch was trained on."""
        return bool(self.history or self.progress.n_done)

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation error, of equal ones with the lowest loss; 0: none yet."""
        if not self.history:
            return 0
        return min(self.history, key=lambda row: (1 - row.val_top1, row.val_loss)).epoch

    def check(self, n_images: int) -> None:
        """Raise `ValueError` unless epochs and progress fit each other and `n_images` of an epoch."""
        done = self.progress.n_done
        if not 0 <= done <= n_images or (done and not self.progress.seconds > 0):
            raise ValueError(f"it claims {done} of {n_images} images of epoch {self.epoch + 1}")
        if [row.epoch for row in self.history] != [*range(1, self.epoch + 1)]:
            raise ValueError("its epochs are not numbered from 1")
