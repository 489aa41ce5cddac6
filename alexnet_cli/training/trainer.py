"""The trainer: epochs of steps on one device or several, with a checkpoint after every epoch.

It holds one frozen `CheckpointMeta`, which is replaced whenever a checkpoint is on disk, and once
before the first step. Learning rate and epoch are derived from it, and with the number of validation
images the best epoch.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import tensorflow as tf

from alexnet_cli.data.augment import Augmenter
from alexnet_cli.errors import AlexNetError
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.keras_network import KerasNetwork, assign, get_weights, set_weights
from alexnet_cli.runs import metrics
from alexnet_cli.runs.checkpoint import CheckpointMeta, EpochProgress
from alexnet_cli.runs.config import RunConfig
from alexnet_cli.runs.metrics import Score
from alexnet_cli.runs.models import LoadedModel
from alexnet_cli.runs.records import EpochRow, Finding
from alexnet_cli.runs.run_folder import LAST, RunFolder
from alexnet_cli.runs.weights_file import Arrays
from alexnet_cli.system.signals import Interrupted, StopRequest
from alexnet_cli.system.workers import Progress
from alexnet_cli.training import diagnostics, kmeans_init, scoring
from alexnet_cli.training.batches import BatchLoader
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import Devices
from alexnet_cli.training.diagnostics import EpochDiagnostics
from alexnet_cli.training.optimizer import PaperMomentum
from alexnet_cli.training.schedule import learning_rate, rate_factor
from alexnet_cli.training.step import balancing_weights, compile_step
from alexnet_cli.training.training_data import TrainingData


class Trainer:
    """Trains the network of one run, from its last checkpoint to its last epoch."""

    def __init__(
        self,
        run: RunFolder,
        config: RunConfig,
        data: TrainingData,
        devices: Devices,
        callback: Callback,
    ) -> None:
        """Build the network with new weights; `restore` or `transfer` replaces them."""
        self.run, self.config, self.data = run, config, data
        self.devices, self.callback = devices, callback
        self.meta = CheckpointMeta(planned_epochs=config.recipe.epochs)
        self.stop = StopRequest()
        self.transferred: tuple[str, ...] = ()  # layers whose weights are from another model
        self._known_images: tuple[Finding, ...] = ()
        recipe, n_classes = config.recipe, len(config.classes)
        with devices.strategy.scope():
            self.model = build_alexnet(
                recipe, n_classes, seed=config.seed, precision=config.precision
            )
            self.optimizer = PaperMomentum(
                self.model.trainable_variables, recipe.momentum, recipe.weight_decay
            )
        weights = balancing_weights(data.class_counts) if recipe.balance else None
        self.step = compile_step(
            self.model,
            self.optimizer,
            devices.strategy,
            min(recipe.batch_size, len(data.train)),
            recipe.label_smoothing,
            weights,
        )
        self.network = KerasNetwork(self.model, recipe, data.statistics, devices.strategy)
        self.batches = BatchLoader(
            data.train,
            data.y_true["train"],
            n_classes,
            Augmenter(recipe, data.statistics),
            devices,
            seed=config.seed,
            batch_size=recipe.batch_size,
        )

    # Before the first step

    def transfer(self, model: LoadedModel) -> None:
        """Start from the weights of `model`, in all layers but the last.

        Raises `AlexNetError` that names the first layer that does not fit.
        """
        last = self.config.recipe.last_layer
        try:
            set_weights(self.model, model.weights, skip=last)
        except ValueError as error:
            raise AlexNetError(f"{model.path}: {error}; use the recipe of that model") from None
        layers = (variable.path.partition("/")[0] for variable in self.model.weights)
        self.transferred = tuple(dict.fromkeys(name for name in layers if name != last))
        self._known_images = diagnostics.find_known_images(self.data.manifest, model.trained_on)

    def restore(self, arrays: Arrays, meta: CheckpointMeta) -> None:
        """Continue from a checkpoint; raises `AlexNetError` if it does not fit this run."""
        try:
            meta.check(len(self.data.train))
            set_weights(self.model, arrays)
            for name, variable in self.optimizer.named_velocities().items():
                assign(variable, arrays, name)
        except ValueError as error:
            raise AlexNetError(f"{self.run.path / LAST}: can't be resumed: {error}") from None
        self.meta = meta

    # Epochs

    def fit(self) -> None:
        """Train the epochs that are left.

        Raises `Interrupted` after the step in which a signal came, with a checkpoint on disk;
        `AlexNetError` if the loss is not finite.
        """
        recipe = self.config.recipe
        if not self.meta.has_begun:
            counts = dict(zip(self.config.classes, self.data.class_counts.tolist()))
            imbalance = diagnostics.find_class_imbalance(counts, recipe)
            self._report((*self._known_images, *imbalance))
            if recipe.kmeans_init and not self.transferred:
                progress = self.until_stopped(self.callback.on_init_progress)
                seed = self.config.seed
                kmeans_init.initialize(self.network, self.data.train, seed, self.devices, progress)
        while self.meta.epoch < recipe.epochs:
            self._end_epoch(self._train_epoch())
        if self.meta.planned_epochs != recipe.epochs:  # it was planned longer, and ends here
            self._save(self.meta)

    def _train_epoch(self) -> EpochProgress:
        """Train on the images of the next epoch that are left."""
        recipe, epoch, progress = self.config.recipe, self.meta.epoch + 1, self.meta.progress
        n_images = len(self.data.train)
        full = min(recipe.batch_size, n_images)
        rate = learning_rate(recipe, self.meta.history)
        names = (variable.path for variable in self.model.trainable_variables)
        rates = tf.constant([rate * rate_factor(recipe, epoch, name) for name in names], tf.float32)
        began = time.perf_counter()
        for batch in self.batches.epoch(epoch, progress.n_done):
            n, loss, hits = self.step(batch, rates)
            now, count = time.perf_counter(), min(full, n_images - progress.n_done)
            progress = progress.add_batch(count, int(n), float(loss), int(hits), now - began, full)
            began = now
            self._require_finite(progress.loss_sum, f"loss after {progress.n_done} images")
            self.callback.on_batch_end(epoch, progress.n_done, n_images)
            if self.stop.code:
                self._save(replace(self.meta, progress=progress))
                raise Interrupted(self.saved(), self.stop.code)
        return progress

    def _end_epoch(self, progress: EpochProgress) -> None:
        """Validate, and put the finished epoch on disk: the best weights before `last` names them."""
        began, recipe = time.perf_counter(), self.config.recipe
        score, predicted = scoring.validate(self.network, self.data, self.devices)
        self._require_finite(score.loss, "validation loss")
        sample, dead = scoring.score_sample(self.network, self.data)
        rate = learning_rate(recipe, self.meta.history)
        row = _epoch_row(self.meta, progress, sample, score, rate)
        row = replace(row, seconds=row.seconds + time.perf_counter() - began)
        history = (*self.meta.history, row)
        epoch_diagnostics = EpochDiagnostics(
            n_steps=row.epoch * -(-len(self.data.train) // recipe.batch_size),
            baseline_loss=metrics.baseline_loss(
                self.data.class_counts, recipe.label_smoothing, recipe.balance
            ),
            worst_loss=progress.worst_loss,
            predicted=dict(zip(self.config.classes, predicted.tolist())),
            dead=dead,
        )
        findings = diagnostics.find_problems(history, epoch_diagnostics, recipe, self.meta.findings)
        meta = replace(
            self.meta,
            history=history,
            progress=EpochProgress(),
            findings=(*self.meta.findings, *findings),
        )
        best = meta.epoch_to_keep(len(self.data.val)) == row.epoch
        if best and self.devices.is_chief:
            self.run.save_best(get_weights(self.model), row.epoch)
        self._save(meta)
        if self.devices.is_chief:
            self.run.write_records(self.meta, recipe)
        self.callback.on_epoch_end(row, best=best)
        for finding in findings:
            self.callback.on_finding(finding)

    def _report(self, findings: tuple[Finding, ...]) -> None:
        self.meta = replace(self.meta, findings=findings)
        for finding in findings:
            self.callback.on_finding(finding)

    def _require_finite(self, loss: float, what: str) -> None:
        if not np.isfinite(loss):
            recipe, epoch = self.config.recipe, self.meta.epoch + 1
            rate = learning_rate(recipe, self.meta.history)
            raise AlexNetError(
                f"epoch {epoch}: the {what} is {loss}, at learning rate {rate:g}: "
                f"{diagnostics.suggest_remedy(recipe)}, in a new training"
            )

    # Checkpoints

    def _save(self, meta: CheckpointMeta) -> None:
        """Write a checkpoint; this training then continues from `meta`."""
        meta = replace(meta, planned_epochs=self.config.recipe.epochs)
        if self.devices.is_chief:
            velocities = {
                name: value.numpy() for name, value in self.optimizer.named_velocities().items()
            }
            self.run.save_checkpoint({**get_weights(self.model), **velocities}, meta)
        self.meta = meta

    def saved_network(self, name: str) -> KerasNetwork:
        """Return the network in float32 with the weights in the file `name`, `BEST` or `LAST`.

        The chief reads the file and sends the weights to the other workers.
        """
        # Those of another worker only have the right names and shapes.
        arrays = self.run.weights(name) if self.devices.is_chief else get_weights(self.model)
        if self.devices.cluster:
            names = [variable.path for variable in self.model.weights]
            arrays = {variable: self.devices.from_chief(arrays[variable]) for variable in names}
        recipe, statistics = self.config.recipe, self.data.statistics
        return KerasNetwork.from_arrays(
            recipe, len(self.config.classes), arrays, statistics, self.devices.strategy
        )

    def saved(self) -> str:
        """Return how far the run is saved, and the command that continues it."""
        if not self.run.path.exists():
            return "The run folder was deleted, with everything in it."
        if not self.meta.has_begun:
            return "Nothing was saved yet."
        done, epoch = self.meta.progress.n_done, self.meta.epoch
        where = f"up to image {done:,} of epoch {epoch + 1}" if done else f"up to epoch {epoch}"
        if not self.devices.is_chief:
            return f"Saved {where}; the first worker shows how to continue."
        return f"Saved {where}; continue with: alexnet train --resume {self.run.path}"

    def until_stopped(self, report: Progress) -> Progress:
        """Return `report` with an `Interrupted` after it, once a signal has asked to stop."""

        def progress(done: int, total: int) -> None:
            report(done, total)
            if self.stop.code:
                raise Interrupted(self.saved(), self.stop.code)

        return progress


def _epoch_row(
    meta: CheckpointMeta, progress: EpochProgress, sample: Score, val: Score, rate: float
) -> EpochRow:
    """Return the row of the epoch after `meta`, with the seconds of its training alone."""
    return EpochRow(
        epoch=meta.epoch + 1,
        train_loss=progress.loss_sum / progress.n_trained,
        train_top1=progress.n_hits / progress.n_trained,
        train_sample_loss=sample.loss,
        train_sample_top1=sample.top1,
        val_loss=val.loss,
        val_top1=val.top1,
        val_top5=val.top5,
        learning_rate=rate,
        images_per_second=progress.n_done / progress.seconds,
        seconds=progress.seconds,
    )
