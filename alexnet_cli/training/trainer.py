"""One loop for one device or several, resumable after any step."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain

import numpy as np
import tensorflow as tf

from alexnet_cli.data.augment import Augmenter
from alexnet_cli.data.manifest import Manifest, Progress
from alexnet_cli.data.store import ImageStore, Statistics
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.network.architecture import build_alexnet, step_bytes
from alexnet_cli.network.keras_network import KerasNetwork, get_weights
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.reports import plots
from alexnet_cli.runs import metrics, run_folder
from alexnet_cli.runs.checkpoint import CheckpointMeta, Part, get_state, set_state
from alexnet_cli.runs.metrics import Score
from alexnet_cli.runs.models import load_member
from alexnet_cli.runs.records import EpochRow, FinalScore, Finding
from alexnet_cli.runs.run_folder import RunConfig, RunFolder
from alexnet_cli.runs.weights_file import Arrays, save_arrays
from alexnet_cli.system import memory
from alexnet_cli.system.atomic_files import lock_folder, write_json
from alexnet_cli.system.signals import Interrupted, StopRequest, catch_signals
from alexnet_cli.training import diagnostics, kmeans_init
from alexnet_cli.training.batches import BatchLoader
from alexnet_cli.training.callbacks import Callback, TrainPlan, TrainReport
from alexnet_cli.training.cluster import WorkerLost
from alexnet_cli.training.devices import Devices
from alexnet_cli.training.diagnostics import EpochDiagnostics
from alexnet_cli.training.optimizer import PaperMomentum
from alexnet_cli.training.schedule import Schedule, rate_factor
from alexnet_cli.training.step import compile_step

# What TensorFlow raises when a worker is no longer there.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class Trainer:
    """The state of one training and the loop that moves it on."""

    def __init__(
        self,
        run: RunFolder,
        config: RunConfig,
        statistics: Statistics,
        manifest: Manifest,
        stores: dict[str, ImageStore],
        devices: Devices,
        callback: Callback,
    ) -> None:
        recipe = config.recipe
        self.run, self.config, self.recipe, self.statistics = run, config, recipe, statistics
        self.stores, self.devices, self.callback = stores, devices, callback
        self.manifest = manifest
        index = {name: number for number, name in enumerate(config.classes)}
        self.y_true = {
            split: np.array([index[file.label] for file in manifest.of(split)], np.int32)
            for split in stores
        }
        with devices.strategy.scope():
            self.model = build_alexnet(
                recipe, len(config.classes), seed=config.seed, precision=config.precision
            )
            self.optimizer = PaperMomentum(
                self.model.trainable_variables, recipe.momentum, recipe.weight_decay
            )
        counts = np.bincount(self.y_true["train"], minlength=len(config.classes))
        self.counts = dict(zip(config.classes, map(int, counts)))
        self.step = compile_step(
            self.model,
            self.optimizer,
            devices.strategy,
            recipe.label_smoothing,
            metrics.balancing_weights(counts) if recipe.balance else None,
        )
        self.batch_loader = BatchLoader(
            stores["train"],
            self.y_true["train"],
            len(config.classes),
            Augmenter(recipe, statistics),
            devices,
            seed=config.seed,
            batch_size=recipe.batch_size,
        )
        self.network = KerasNetwork(self.model, recipe, statistics)
        self.stop = StopRequest()
        self.transferred: tuple[str, ...] = ()
        self.epoch, self.part = 0, Part()
        self.schedule = Schedule()
        self.planned = recipe.epochs  # as last.npz has it
        self.history: list[EpochRow] = []
        self.findings: tuple[Finding, ...] = ()
        self.guess_loss = metrics.guess_loss(counts, recipe.label_smoothing, recipe.balance)

    def go(self) -> TrainReport | None:
        """Run the epochs that are left and measure the result, which the chief alone returns."""
        left = self.epoch < self.recipe.epochs
        if self.part.done and not left:
            raise UsageError(
                f"{self.run.path}: is in the middle of epoch {self.epoch + 1}: give --epochs at least that"
            )
        if not left and self.run.metrics.exists():
            raise UsageError(
                f"{self.run.path}: all {self.epoch} epochs are done; --epochs asks for more"
            )
        with ExitStack() as held:
            if self.devices.is_chief:
                held.enter_context(
                    lock_folder(self.run.path, "another alexnet is training this run")
                )
                self.run.remove_leftovers()
            data = lock_folder(self.manifest.root, "its split is being replaced", shared=True)
            held.enter_context(data)
            self.stop = held.enter_context(catch_signals())
            if left:
                self.callback.on_train_begin(self._plan())
            if not self.epoch and not self.part.done:
                self.findings = diagnostics.examine_classes(self.counts, self.recipe)
                for finding in self.findings:
                    self.callback.on_finding(finding)
            try:
                return self._run()
            except KeyboardInterrupt:
                raise Interrupted(self._what_is_safe(), self.stop.code or 130) from None
            except OSError as error:  # a full disk, a folder that is gone
                what = f"{error.filename or self.run.path}: {error.strerror or error}"
                raise AlexNetError(f"{what}. {self._what_is_safe()}") from error

    def _run(self) -> TrainReport | None:
        try:
            if self.devices.names == ("CPU",) and not self._fits(self.recipe.batch_size):
                raise MemoryError  # before the system kills us for it
            if self.recipe.kmeans_init and not (self.epoch or self.part.done or self.transferred):
                self._start_convolutions()
            while self.epoch < self.recipe.epochs:
                row, vitals = self._run_epoch()
                rows = [*self.history, row]
                findings = diagnostics.examine(rows, vitals, self.recipe, self.findings)
                self.findings += findings
                self._save(row)
                self.callback.on_epoch_end(row, best=self.schedule.best_epoch == row.epoch)
                for finding in findings:
                    self.callback.on_finding(finding)
            if self.planned != self.recipe.epochs:  # it was to be longer, and has learned enough
                self._save_state(self.part)
            report = self._report() if self.devices.is_chief else None
            self.devices.total(np.zeros(1))  # nobody leaves before all are done
            return report
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise AlexNetError(f"{self._out_of_memory()}. {self._what_is_safe()}") from error
        except _LOST as error:
            if self.devices.cluster is None:
                raise
            if self.stop.code:  # the other heeded the signal first
                raise Interrupted(self._what_is_safe(), self.stop.code) from None
            raise WorkerLost(
                f"a worker died or froze in epoch {self.epoch + 1}: start all of them again. "
                f"{self._what_is_safe()}"
            ) from error

    def _plan(self) -> TrainPlan:
        in_place = self.manifest.root == self.manifest.source
        return TrainPlan(
            run=self.run.path,
            config=self.config,
            n_images={split: len(store) for split, store in self.stores.items()},
            n_parameters=self.model.count_params(),
            devices=self.devices.names,
            workers=self.devices.cluster.workers if self.devices.cluster else (),
            first_epoch=self.epoch + 1,
            done=self.part.done,
            transferred=self.transferred,
            kept=self.stores["train"].kept,
            rejected=self.manifest.rejected if in_place and not self.epoch else (),
            changed=run_folder.changes(self.config.versions),
        )

    def _start_convolutions(self) -> None:
        """Let the chief find the kernels, and all take the same: other processors round otherwise."""
        if self.devices.is_chief:
            progress = self._heedful(self.callback.on_init_progress)
            store, seed = self.stores["train"], self.config.seed
            kmeans_init.start_convolutions(self.network, store, seed, progress)
        for variable in self.model.weights if self.devices.cluster else ():
            if variable.path.startswith("conv"):
                own = variable.numpy().astype(np.float64)
                variable.assign(self.devices.total(own if self.devices.is_chief else 0 * own))

    # One epoch

    def _run_epoch(self) -> tuple[EpochRow, EpochDiagnostics]:
        epoch, began = self.epoch + 1, time.perf_counter()
        part, n_images = self.part, len(self.stores["train"])
        full = min(self.recipe.batch_size, n_images)
        names = (variable.path for variable in self.model.trainable_variables)
        rate = self.schedule.learning_rate(self.recipe, epoch)
        rates = tf.constant([rate * rate_factor(self.recipe, epoch, n) for n in names], tf.float32)
        for images, targets, count in self.batch_loader.batches(epoch, part.done):
            n, loss, hits = self.step(images, targets, tf.constant(count, tf.float32), rates)
            now = time.perf_counter()
            part = part.after(count, int(n), float(loss), int(hits), now - began, full)
            began = now
            self._require_finite(part.losses, f"loss became {{}} after {part.done} images")
            self.callback.on_batch_end(epoch, part.done, n_images)
            if self.stop.code:
                self._save_state(part)
                raise Interrupted(self._what_is_safe(), self.stop.code)
        val, counts = self._validate()
        self._require_finite(val.loss, "validation loss became {}")
        vitals = EpochDiagnostics(
            n_steps=epoch * -(-n_images // self.recipe.batch_size),
            guess_loss=self.guess_loss,
            worst_loss=part.worst,
            predicted=dict(zip(self.config.classes, map(int, counts))),
            dead=self._dead_units(),
        )
        row = EpochRow(
            epoch=epoch,
            train_loss=part.losses / part.n,
            train_top1=part.hits / part.n,
            val_loss=val.loss,
            val_top1=val.top1,
            val_top5=val.top5,
            learning_rate=rate,
            images_per_second=n_images / part.seconds,
            seconds=part.seconds + time.perf_counter() - began,
        )
        return row, vitals

    def _validate(self) -> tuple[Score, np.ndarray]:
        """Score all validation images, and count them by predicted class; each worker its share."""
        n_classes, store = len(self.config.classes), self.stores["val"]
        share = self.devices.share(len(store))
        tally = np.zeros(4 + n_classes)
        if share:
            seen, probabilities = self.network.classify(store, share)
            tally[:4] = metrics.sums(self.y_true["val"][seen], probabilities)
            tally[4:] = np.bincount(probabilities.argmax(axis=1), minlength=n_classes)
        tally = self.devices.total(tally)
        return metrics.score_of(tally[:4], n_classes), tally[4:].astype(int)

    def _require_finite(self, loss: float, what: str) -> None:
        if not np.isfinite(loss):
            epoch = self.epoch + 1
            raise AlexNetError(
                f"the {what.format(loss)} in epoch {epoch}, at learning rate "
                f"{self.schedule.learning_rate(self.recipe, epoch):g}: {diagnostics.remedy(self.recipe)}. "
                + self._what_is_safe()
            )

    def _out_of_memory(self) -> str:
        n = self.recipe.batch_size
        smaller = (n >> halvings for halvings in range(1, n.bit_length()))
        size = next((size for size in smaller if self._fits(size)), None)
        way_out = f"--batch-size {size} would fit" if size else "not even one image would fit"
        return f"out of memory with batches of {n:,}: {way_out}"

    def _fits(self, batch_size: int) -> bool:
        """Work it out for the CPU, which promises memory that there is not; try it on a GPU."""
        if self.devices.names == ("CPU",):
            n_images = min(batch_size, len(self.stores["train"]))
            n_replicas = self.devices.strategy.num_replicas_in_sync
            return step_bytes(self.model, -(-n_images // n_replicas)) < memory.left()
        if self.devices.cluster:  # the others would not join in the trial
            return True
        rates = tf.zeros(len(self.model.trainable_variables))
        try:
            batches = replace(self.batch_loader, batch_size=batch_size).batches(self.epoch + 1)
            images, targets, count = next(batches)
            self.step(images, targets, tf.constant(count, tf.float32), rates)
        except tf.errors.ResourceExhaustedError:
            return False
        return True

    def _dead_units(self) -> dict[str, float]:
        """Tell for each ReLU layer the share of units that none of some images moves."""
        crop, store = self.network.cropper(), self.stores["val"]
        chosen = np.unique(np.linspace(0, len(store) - 1, 128).round().astype(int))
        images = (store.get(int(index)) for index in chosen)
        return self.network.dead_units([crop(image) for image in images if image is not None])

    # What lasts

    def _save(self, row: EpochRow) -> None:
        """Put the finished epoch on disk: the best weights first, as `last` speaks of them."""
        self.history.append(row)
        self.schedule = self.schedule.after(row, self.recipe)
        if self.devices.is_chief and self.schedule.best_epoch == row.epoch:
            save_arrays(self.run.path / "best.npz", get_weights(self.model), {"epoch": row.epoch})
        self._save_state(Part())
        if self.devices.is_chief:
            self._write_records()

    def _write_records(self) -> None:
        """Put on disk for people what `last` knows."""
        self.run.write_history(self.history)
        self.run.write_report(paper_comparison.as_markdown(self.recipe, self.findings))
        self.run.become_latest()

    def _save_state(self, part: Part) -> None:
        """Put on disk what continuing needs: the epochs in the history, and part of the next."""
        notes = CheckpointMeta(
            epoch=len(self.history),
            planned=self.recipe.epochs,
            part=part,
            schedule=self.schedule,
            history=tuple(self.history),
            findings=self.findings,
        )
        if self.devices.is_chief:
            self.run.metrics.unlink(missing_ok=True)  # it speaks of fewer epochs
            state = get_state(self.model, self.optimizer)
            save_arrays(self.run.path / "last.npz", state, asdict(notes))
        self.epoch, self.part, self.planned = len(self.history), part, self.recipe.epochs

    def restore(self, arrays: Arrays, notes: CheckpointMeta) -> None:
        """Take up the state that `read_state` returned."""
        path = self.run.path / "last.npz"
        try:
            done, n_images = notes.part.done, len(self.stores["train"])
            if (
                len(notes.history) != notes.epoch
                or not 0 <= done <= n_images
                or (done and not notes.part.seconds > 0)
            ):
                raise ValueError(f"it claims epoch {notes.epoch} and {done} of {n_images} images")
            set_state(self.model, self.optimizer, arrays)
        except (ValueError, KeyError) as error:
            raise AlexNetError(f"{path}: can't be resumed: {error}") from None
        self.epoch, self.part, self.schedule = notes.epoch, notes.part, notes.schedule
        self.history, self.findings = list(notes.history), notes.findings
        self.planned = notes.planned

    def _heedful(self, tell: Progress) -> Progress:
        """Return `tell`, to which a signal to stop puts an end."""

        def progress(done: int, total: int) -> None:
            tell(done, total)
            if self.stop.code:
                raise Interrupted(self._what_is_safe(), self.stop.code)

        return progress

    def _what_is_safe(self) -> str:
        if not self.run.path.exists():
            return "The run folder is gone, and all that was in it."
        if not (self.epoch or self.part.done):
            return "Nothing was saved yet, so nothing is kept."
        what = f"Epoch {self.epoch} is safe"
        if self.part.done:
            what = f"All is safe up to image {self.part.done:,} of epoch {self.epoch + 1}"
        if not self.devices.is_chief:
            return f"{what}; the first worker says how to continue."
        return f"{what}; continue with: alexnet train --resume {self.run.path}"

    # The end

    def _report(self) -> TrainReport:
        self._write_records()  # it may have been killed before it came to that
        finals: dict[str, FinalScore] = {}
        for weights, epoch in (("best", self.schedule.best_epoch), ("last", self.epoch)):
            if weights == "last" and epoch == self.schedule.best_epoch:
                finals[weights] = finals["best"]
                continue
            network = load_member(self.run.path, weights).network
            scores = {}
            for split, store in self.stores.items():
                progress = self._heedful(self.callback.on_score_progress)
                seen, probabilities = network.classify(store, progress=progress)
                scores[split] = metrics.score(self.y_true[split][seen], probabilities)
            finals[weights] = FinalScore(epoch, scores["train"], scores["val"])
        seconds = sum(row.seconds for row in self.history)
        plots.draw_curves(self.history, self.run.path / "curves.png")
        left_out = tuple(chain.from_iterable(store.left_out for store in self.stores.values()))
        data = {
            **{name: asdict(final) for name, final in finals.items()},
            "seconds": seconds,
            "findings": [asdict(finding) for finding in self.findings],
            "left_out": {str(rejected.path): rejected.reason for rejected in left_out},
        }
        write_json(self.run.metrics, data)
        return TrainReport(
            self.run.path, finals["best"], finals["last"], seconds, self.findings, left_out
        )
