"""The live view of a training run."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from alexnet_cli.cli.screen import new_table, print_line, show_skipped, show_table
from alexnet_cli.cli.tables import score_cells, show_findings
from alexnet_cli.data.manifest import Rejected
from alexnet_cli.runs.metrics import TOP5_FROM
from alexnet_cli.runs.records import EpochRow, FinalMetrics, Finding
from alexnet_cli.system.safe_names import MAX_LISTED, list_first, printable
from alexnet_cli.training.callbacks import Callback, TrainPlan

# What a second run with the same seed reproduces.
_CPU_SAME = (
    "reproducible bit for bit on this machine, with these versions and this number of threads"
)
_GPU_SAME = "reproducible up to rounding, as the order of additions on GPUs varies"


class TrainingView(Callback):
    """Print the plan of a training run, a progress bar and a row for each epoch."""

    SILENCE_SECONDS = 30  # without a terminal, a progress line is printed this often

    def __init__(self, console: Console) -> None:
        """Create the progress bar, which is not shown yet."""
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("reading images", total=None, note="")
        self.last_printed = time.monotonic()
        self.n_skipped = 0
        self.is_silent = False  # on workers other than the chief

    def __enter__(self) -> TrainingView:
        """Show the progress bar."""
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the progress bar."""
        self.progress.stop()

    def on_read_progress(self, done: int, total: int) -> None:
        """Update the progress bar."""
        self._advance("reading images", done, total)

    def on_image_rejected(self, rejected: Rejected) -> None:
        """Print the first few files that are not readable images."""
        self.n_skipped += 1
        if self.n_skipped <= MAX_LISTED:
            show_skipped(self.console, [rejected])

    def on_train_begin(self, plan: TrainPlan) -> None:
        """Print the plan and the header of the table."""
        config, recipe = plan.config, plan.config.recipe
        self.is_silent = plan.rank > 0
        if self.is_silent:
            rank, n, chief = plan.rank, len(plan.workers), plan.workers[0]
            line = f"worker {rank} of {n}; output and run folder are on the chief, {chief}"
            print_line(self.console, line)
            self.progress.stop()
            return
        self.epochs, self.first_epoch = recipe.epochs, plan.first_epoch
        self.has_top5 = len(config.classes) >= TOP5_FROM
        images = ", ".join(f"{n:,} {split}" for split, n in plan.n_images.items())
        kept = f"decoded {plan.decoded_in}" if plan.decoded_in else "decoded when needed"
        if recipe.cosine:
            drop = ", falling to 0"
        elif recipe.drop_at:
            drop = f", ÷{recipe.rate_drop:g} {len(recipe.drop_at)} times"
        else:
            most = f", ÷{recipe.rate_drop:g} at most {recipe.rate_drops} times"
            drop = most if recipe.rate_drops else ""
        epochs = f"epochs {plan.first_epoch} to {recipe.epochs}, batches of {recipe.batch_size}"
        rate = f"learning rate {recipe.learning_rate:g}{drop}"
        n_workers = len(plan.workers)
        machines = f" on each of {n_workers} workers" if n_workers > 1 else ""
        facts = {
            "recipe": f"{recipe.name}: {recipe.summary}",
            "classes": f"{len(config.classes):,}: {list_first(config.classes)}",
            "images": f"{images} ({kept})",
            "network": f"{plan.n_parameters:,} parameters",
            **_origin(plan),
            "devices": f"{list_first(plan.devices)}{machines}, computing in {config.precision}",
            "training": f"{epochs}, {rate}",
            "seed": f"{config.seed}: {_CPU_SAME if plan.devices == ('CPU',) else _GPU_SAME}",
            "run": str(plan.run),
        }
        for name, value in facts.items():
            self.console.print(
                Text.assemble((f"{name:<9}", "bold"), printable(value)), soft_wrap=True
            )
        show_skipped(self.console, plan.rejected)
        for change in plan.changed:
            print_line(
                self.console,
                f"the run started with {change}: results may differ in the last bits",
                "yellow",
            )
        self.console.print()
        head = "epoch  train loss  train top-1  val loss  val top-1"
        head += "  val top-5" if self.has_top5 else ""
        print_line(self.console, head + "     rate  images/s", "bold")
        self.done_before = plan.n_done
        what = f"epoch {plan.first_epoch}/{recipe.epochs}"
        self._advance(what, plan.n_done, plan.n_images["train"])
        self.started = time.monotonic()

    def on_init_progress(self, done: int, total: int) -> None:
        """Update the progress bar of k-means initialization, which runs before the first step."""
        if self.is_silent:
            return
        self._advance("initializing kernels by k-means", done, total)
        self.started = time.monotonic()

    def on_batch_end(self, epoch: int, done: int, total: int) -> None:
        """Update the progress bar, with images per second and the remaining time of the run."""
        if self.is_silent:
            return
        before = (epoch - self.first_epoch) * total - self.done_before
        rate = (before + done) / (time.monotonic() - self.started)
        left = (total * (self.epochs - epoch + 1) - done) / rate
        note = f"{rate:.0f} images/s, {duration(left)} left"
        self._advance(f"epoch {epoch}/{self.epochs}", done, total, note)

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Print the row of an epoch, in green if its weights were kept."""
        if self.is_silent:
            return
        line = f"{row.epoch:5}  {row.train_loss:10.4f}  {row.train_top1:11.4f}"
        line += f"  {row.val_loss:8.4f}  {row.val_top1:9.4f}"
        line += f"  {row.val_top5:9.4f}" if row.val_top5 is not None else ""
        line += f"  {row.learning_rate:7.2g}  {row.images_per_second:8.1f}"
        print_line(self.console, line + ("  best" if best else ""), "green" if best else "")
        self.last_printed = time.monotonic()

    def on_finding(self, finding: Finding) -> None:
        """Print a problem and its remedy."""
        if not self.is_silent:
            show_findings(self.console, [finding])

    def on_score_progress(self, done: int, total: int) -> None:
        """Update the progress bar."""
        self._advance("computing final metrics", done, total)

    def _advance(self, what: str, done: int, total: int, note: str = "") -> None:
        self.progress.update(self.task, description=what, completed=done, total=total, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_printed > self.SILENCE_SECONDS:
            print_line(self.console, f"{what}: {done} of {total}{', ' if note else ''}{note}")
            self.last_printed = now


def _origin(plan: TrainPlan) -> dict[str, str]:
    if not plan.transferred:
        return {}
    fresh = plan.config.recipe.last_layer
    return {
        "weights": f"{', '.join(plan.transferred)} from {plan.config.initial_weights}; {fresh} new"
    }


def show_training(console: Console, run: Path, report: FinalMetrics) -> None:
    """Print the final metrics of the best epoch, and of the last if it is another, and the next command."""
    has_top5 = report.best.val.top5 is not None
    table = new_table(
        "weights", "epoch", "images", "loss", "top-1", *(["top-5"] if has_top5 else [])
    )
    table.title = "final metrics: every image once, no augmentation, no dropout, in float32"
    finals = {"best": report.best}
    if report.last.epoch != report.best.epoch:
        finals["last"] = report.last
    for name, final in finals.items():
        for split, score in (("train", final.train), ("val", final.val)):
            table.add_row(f"{name} {split}", str(final.epoch), *score_cells(score))
        table.add_section()
    console.print()
    show_table(console, table)
    if report.calibration:
        fitted = report.calibration
        print_line(
            console,
            f"temperature {fitted.temperature:.3f}: the best weights' validation loss is "
            f"{fitted.loss:.4f} with it, as evaluate and predict apply it",
        )
    if report.skipped:
        bad = f"{len(report.skipped):,} images became unreadable and are not in these metrics"
        print_line(console, f"{bad}: see {run / 'metrics.json'}", "yellow")
    show_findings(console, report.findings)
    print_line(console, f"trained for {duration(report.seconds)}; saved in {run}/")
    model = "" if run.parent == Path("runs") else f" --model {run}"
    print_line(console, f"next: alexnet evaluate{model}, or alexnet predict{model} IMAGE")


def duration(seconds: float) -> str:
    """Return a duration in the two largest units of hours, minutes and seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {second:02} s" if minutes else f"{second} s"
