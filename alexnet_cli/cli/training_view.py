"""A training on the screen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from alexnet_cli.cli.tables import (
    NAMED,
    new_table,
    print_line,
    score_cells,
    show,
    show_findings,
    show_left_out,
    some,
)
from alexnet_cli.data.manifest import Rejected
from alexnet_cli.runs.metrics import TOP5_FROM
from alexnet_cli.runs.records import EpochRow, Finding
from alexnet_cli.system.safe_names import printable
from alexnet_cli.training.callbacks import Callback, TrainPlan, TrainReport
from alexnet_cli.training.cluster import Cluster

# What the same seed promises.
_CPU_SAME = "the same weights again, bit for bit, with as many threads and these versions here"
_GPU_SAME = "the same again but for the last bits, as GPUs add in any order"


class TrainingView(Callback):
    """A training on the screen: what it will do, a bar while it works, a row an epoch."""

    SILENCE_SECONDS = 30  # without a terminal, a line at least this often

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
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
        self.spoke = time.monotonic()
        self.n_left_out = 0

    def __enter__(self) -> TrainingView:
        """Start the bar."""
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        self.progress.stop()

    def on_read_progress(self, done: int, total: int) -> None:
        """Move the bar."""
        self._advance("reading images", done, total)

    def on_image_rejected(self, rejected: Rejected) -> None:
        """Name the first few."""
        self.n_left_out += 1
        if self.n_left_out <= NAMED:
            show_left_out(self.console, [rejected])

    def on_train_begin(self, plan: TrainPlan) -> None:
        """Show what will be done, and the head of the table."""
        config, recipe = plan.config, plan.config.recipe
        self.epochs, self.first_epoch = recipe.epochs, plan.first_epoch
        self.has_top5 = len(config.classes) >= TOP5_FROM
        images = ", ".join(f"{n:,} {split}" for split, n in plan.n_images.items())
        kept = f"decoded {plan.kept}" if plan.kept else "decoded when needed"
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
            "classes": f"{len(config.classes):,}: {some(config.classes)}",
            "images": f"{images} ({kept})",
            "network": f"{plan.n_parameters:,} parameters",
            **_origin(plan),
            "devices": f"{some(plan.devices)}{machines}, computing in {config.precision}",
            "training": f"{epochs}, {rate}",
            "seed": f"{config.seed}: {_CPU_SAME if plan.devices == ('CPU',) else _GPU_SAME}",
            "run": str(plan.run),
        }
        for name, value in facts.items():
            self.console.print(
                Text.assemble((f"{name:<9}", "bold"), printable(value)), soft_wrap=True
            )
        show_left_out(self.console, plan.rejected)
        for change in plan.changed:
            print_line(self.console, f"begun with {change}: the last bits may differ", "yellow")
        self.console.print()
        head = "epoch  train loss  train top-1  val loss  val top-1"
        head += "  val top-5" if self.has_top5 else ""
        print_line(self.console, head + "     rate  images/s", "bold")
        self.done_before = plan.done
        what = f"epoch {plan.first_epoch}/{recipe.epochs}"
        self._advance(what, plan.done, plan.n_images["train"])
        self.began = time.monotonic()

    def on_init_progress(self, done: int, total: int) -> None:
        """Move the bar; only then do steps begin."""
        self._advance("finding kernels in the photographs", done, total)
        self.began = time.monotonic()

    def on_batch_end(self, epoch: int, done: int, total: int) -> None:
        """Move the bar; tell images per second and the time left of the whole run."""
        before = (epoch - self.first_epoch) * total - self.done_before
        rate = (before + done) / (time.monotonic() - self.began)
        left = (total * (self.epochs - epoch + 1) - done) / rate
        note = f"{rate:.0f} images/s, {duration(left)} left"
        self._advance(f"epoch {epoch}/{self.epochs}", done, total, note)

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Add a row to the table; the best so far stands out."""
        line = f"{row.epoch:5}  {row.train_loss:10.4f}  {row.train_top1:11.4f}"
        line += f"  {row.val_loss:8.4f}  {row.val_top1:9.4f}"
        line += f"  {row.val_top5:9.4f}" if row.val_top5 is not None else ""
        line += f"  {row.learning_rate:7.2g}  {row.images_per_second:8.1f}"
        print_line(self.console, line + ("  best" if best else ""), "green" if best else "")
        self.spoke = time.monotonic()

    def on_finding(self, finding: Finding) -> None:
        """Say what is wrong and what to try."""
        show_findings(self.console, [finding])

    def on_score_progress(self, done: int, total: int) -> None:
        """Move the bar."""
        self._advance("measuring the finished weights", done, total)

    def _advance(self, what: str, done: int, total: int, note: str = "") -> None:
        self.progress.update(self.task, description=what, completed=done, total=total, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.spoke > self.SILENCE_SECONDS:
            print_line(self.console, f"{what}: {done} of {total}{', ' if note else ''}{note}")
            self.spoke = now


def _origin(plan: TrainPlan) -> dict[str, str]:
    if not plan.transferred:
        return {}
    fresh = plan.config.recipe.last_layer
    return {"weights": f"{', '.join(plan.transferred)} from {plan.config.weights}; {fresh} new"}


@contextmanager
def open_view(console: Console, cluster: Cluster | None) -> Iterator[Callback]:
    """Show a training; of a cluster's workers only the first has more than a line to say."""
    if cluster and not cluster.is_chief:
        chief, n = cluster.workers[0], len(cluster.workers)
        print_line(console, f"worker {cluster.index} of {n}; the first, {chief}, tells and writes")
        yield Callback()
        return
    with TrainingView(console) as screen:
        yield screen


def show_training(console: Console, report: TrainReport) -> None:
    """Show the final metrics of the best and the last epoch, and what to type next."""
    has_top5 = report.best.val.top5 is not None
    table = new_table(
        "weights", "epoch", "images", "loss", "top-1", *(["top-5"] if has_top5 else [])
    )
    table.title = "final metrics: every image once, no augmentation, no dropout"
    for name, final in (("best", report.best), ("last", report.last)):
        for split, score in (("train", final.train), ("val", final.val)):
            table.add_row(f"{name} {split}", str(final.epoch), *score_cells(score))
        table.add_section()
    console.print()
    show(console, table)
    if report.left_out:
        bad = f"{len(report.left_out):,} images had gone bad and are in none of these figures"
        print_line(console, f"{bad}: see {report.run / 'metrics.json'}", "yellow")
    show_findings(console, report.findings)
    print_line(console, f"trained for {duration(report.seconds)}; everything is in {report.run}/")
    model = "" if report.run.parent == Path("runs") else f" --model {report.run}"
    print_line(console, f"next: alexnet evaluate{model}, or alexnet predict{model} IMAGE")


def duration(seconds: float) -> str:
    """Write a span of time in the two largest of hours, minutes and seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {second:02} s" if minutes else f"{second} s"
