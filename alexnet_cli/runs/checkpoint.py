"""The metadata of a checkpoint: planned epochs, history, progress within the epoch, findings.

last.safetensors holds arrays (weights, velocities) and one `CheckpointMeta`.
Together they are the complete state, so that a resumed training ends with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_cli.runs.metrics import wilson_interval
from alexnet_cli.runs.records import EpochRow, Finding


@dataclass(frozen=True)
class EpochProgress:
    """The progress within an epoch, with sums over the images trained on so far."""

    n_done: int = 0  # images of the epoch that were processed, including skipped images
    n_trained: int = 0  # images that were trained on
    loss_sum: float = 0.0
    n_hits: int = 0
    worst_loss: float = 0.0  # the largest loss of a batch, divided by the size of a full batch
    seconds: float = 0.0

    def add_batch(
        self, n_images: int, n_trained: int, loss: float, hits: int, seconds: float, full: int
    ) -> EpochProgress:
        """Return the progress after a batch of `n_images`, of which `n_trained` were readable.

        `loss` is summed over the batch; `full` is the size of a full batch.
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

    planned_epochs: int  # in total; `--resume --epochs` may change the number of the recipe
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

    def epoch_to_keep(self, n_val: int) -> int:
        """Return the latest epoch whose validation error is as good as the lowest; 0 before the first.

        As good: within one standard error, as of `n_val` images (Wilson's interval). The lowest of
        many errors is partly luck, the more so the fewer images there are, and later epochs have
        learned more. Breiman et al. 1984, section 3.4.3, judge trees by one standard error too.
        """
        if not self.history:
            return 0
        lowest = min(1 - row.val_top1 for row in self.history)
        limit = wilson_interval(lowest * n_val, n_val, z=1.0)[1] + 1e-9  # above rounding
        return max(row.epoch for row in self.history if 1 - row.val_top1 <= limit)

    def check(self, n_images: int) -> None:
        """Raise `ValueError` if epochs and progress do not fit `n_images` per epoch."""
        done = self.progress.n_done
        if not 0 <= done <= n_images or (done and not self.progress.seconds > 0):
            raise ValueError(f"it claims {done} of {n_images} images of epoch {self.epoch + 1}")
        if [row.epoch for row in self.history] != [*range(1, self.epoch + 1)]:
            raise ValueError("its epochs are not numbered from 1")
