"""Reports on the screen. Words from outside, such as class and file names, are never markup."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from alexnet_cli import fidelity
from alexnet_cli.doctor import Finding
from alexnet_cli.manifest import SPLITS, Manifest
from alexnet_cli.metrics import TOP5_FROM, EpochRow, Score
from alexnet_cli.recipes import RECIPES, VARIANTS, Recipe
from alexnet_cli.reports import (
    EvaluationReport,
    Failure,
    Listener,
    MemberScore,
    Prediction,
    TrainPlan,
    TrainReport,
)

NAMED = 8  # of a list, how many are named before "and so many more"
MATRIX_COLUMNS = 10  # classes beyond which the matrix is a picture only
BAR_WIDTH = 30


def plain(name: object) -> str:
    """Make a name from outside safe to show: no terminal escapes, no line breaks."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(name)
    )


def some(names: Sequence[object], most: int = NAMED) -> str:
    """Join the first few of `names`."""
    shown = ", ".join(plain(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar that goes away when done; yields what to call with (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


# split


def show_split(console: Console, manifest: Manifest, out: Path) -> None:
    """Show classes × splits, and what was left out or appears twice."""
    counts = manifest.counts()
    used = [split for split in SPLITS if manifest.of(split)]
    table = _table("class", *used, "all")
    shown = list(counts) if len(counts) <= 40 else list(counts)[:20]
    for name in shown:
        row = [counts[name][split] for split in used]
        table.add_row(Text(plain(name)), *map(str, row), str(sum(row)))
    if len(shown) < len(counts):
        table.add_row(f"and {len(counts) - len(shown):,} more classes")
    table.add_section()
    totals = [len(manifest.of(split)) for split in used]
    table.add_row("all", *(f"{n:,}" for n in totals), f"{sum(totals):,}", style="bold")
    console.print(table)
    if manifest.n_ignored:
        files = "file that is" if manifest.n_ignored == 1 else "files that are"
        _say(console, f"{manifest.n_ignored} {files} not an image ignored")
    _say_rejected(console, manifest)
    for group in manifest.duplicates()[:NAMED]:
        labels = {file.label for file in group}
        note = "under different classes, " if len(labels) > 1 else ""
        _say(console, f"same content, {note}kept together: {some([f.path for f in group])}")
    more = len(manifest.duplicates()) - NAMED
    if more > 0:
        _say(console, f"and {more} more groups of files with the same content")
    _say(console, f"written to {plain(out)}/; next: alexnet train{_unless_default(out, 'data')}")


def _say_rejected(console: Console, manifest: Manifest) -> None:
    for rejected in manifest.rejected[:NAMED]:
        _say(console, f"left out: {plain(rejected.path)}: {plain(rejected.reason)}", "yellow")
    if len(manifest.rejected) > NAMED:
        _say(console, f"and {len(manifest.rejected) - NAMED} more left out: see the manifest")


def _unless_default(path: Path, default: str) -> str:
    return "" if path == Path(default) else f" {plain(path)}"


def _table(first: str, *numbers: str) -> Table:
    """Start a table of names on the left and numbers on the right."""
    heads = [Column(Text(plain(name)), justify="right") for name in numbers]
    return Table(Column(Text(first)), *heads)


def _say(console: Console, line: str, style: str = "") -> None:
    # soft_wrap: a path is data, and must not be broken or cut where the screen ends
    console.print(Text(line, style=style), soft_wrap=True)


# recipes


def show_recipes(console: Console) -> None:
    """List recipes and variants, a line each."""
    for title, lines in (
        ("recipe", {name: recipe.summary for name, recipe in RECIPES.items()}),
        ("variant", {name: summary for name, (summary, _) in VARIANTS.items()}),
    ):
        table = Table(title, "", box=None, pad_edge=False)
        for name, summary in lines.items():
            table.add_row(name, summary)
        console.print(table)
        console.print()
    _say(console, "next: alexnet recipes NAME, or alexnet train --recipe NAME --variant NAME")


def show_fidelity(console: Console, recipe: Recipe) -> None:
    """Show every constant of the paper; below it, where the recipe differs, its own and why."""
    points = fidelity.report(recipe)
    for point in points:
        text = f"{point.name:<14} {point.what}: {point.paper} ({point.source})"
        console.print(Text(plain(text)), soft_wrap=True)
        if point.differs:
            here = f"{'':<14} here {point.recipe}. {point.because}"
            console.print(Text(plain(here), style="bold yellow"), soft_wrap=True)
    n = sum(point.differs for point in points)
    console.print()
    _say(console, f"{recipe.name}: {plain(recipe.summary)}", "bold")
    _say(console, f"{n} of {len(points)} constants differ from the paper; --set changes any")


# train


class TrainingScreen(Listener):
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

    def __enter__(self) -> TrainingScreen:
        """Start the bar."""
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        self.progress.stop()

    def reading(self, done: int, total: int) -> None:
        """Move the bar."""
        self._advance("reading images", done, total)

    def started(self, plan: TrainPlan) -> None:
        """Show what will be done, and the head of the table."""
        card, recipe = plan.card, plan.card.recipe
        self.epochs, self.first_epoch = recipe.epochs, plan.first_epoch
        self.has_top5 = len(card.classes) >= TOP5_FROM
        images = ", ".join(f"{n:,} {split}" for split, n in plan.n_images.items())
        where = "in memory" if plan.in_memory else "on disk"
        drop = f", ÷{recipe.rate_drop:g} at most {recipe.rate_drops} times"
        epochs = f"epochs {plan.first_epoch} to {recipe.epochs}, batches of {recipe.batch_size}"
        rate = f"learning rate {recipe.learning_rate:g}{drop if recipe.rate_drops else ''}"
        facts = {
            "recipe": f"{recipe.name}: {recipe.summary}",
            "classes": f"{len(card.classes):,}: {some(card.classes)}",
            "images": f"{images} (decoded {where})",
            "network": f"{plan.n_parameters:,} parameters",
            **_origin(plan),
            "devices": f"{some(plan.devices)}, computing in {card.precision}",
            "training": f"{epochs}, {rate}, seed {card.seed}",
            "run": plain(plan.run),
        }
        for name, value in facts.items():
            self.console.print(Text.assemble((f"{name:<9}", "bold"), value), soft_wrap=True)
        self.console.print()
        head = "epoch  train loss  train top-1   val loss  val top-1"
        head += "  val top-5" if self.has_top5 else ""
        _say(self.console, head + "      rate  images/s  seconds", "bold")
        self._advance(f"epoch {plan.first_epoch}/{recipe.epochs}", 0, plan.n_images["train"])
        self.began = time.monotonic()

    def stepped(self, epoch: int, done: int, total: int) -> None:
        """Move the bar; tell images per second and the time left of the whole run."""
        before = (epoch - self.first_epoch) * total
        rate = (before + done) / (time.monotonic() - self.began)
        left = (total * (self.epochs - epoch + 1) - done) / rate
        note = f"{rate:.0f} images/s, {duration(left)} left"
        self._advance(f"epoch {epoch}/{self.epochs}", done, total, note)

    def epoch_ended(self, row: EpochRow, *, best: bool) -> None:
        """Add a row to the table; the best so far stands out."""
        line = f"{row.epoch:5}  {row.train_loss:10.4f}  {row.train_top1:11.4f}"
        line += f"  {row.val_loss:9.4f}  {row.val_top1:9.4f}"
        line += f"  {row.val_top5:9.4f}" if row.val_top5 is not None else ""
        line += f"  {row.learning_rate:8.2g}  {row.images_per_second:8.1f}  {row.seconds:7.1f}"
        _say(self.console, line + ("  best" if best else ""), "green" if best else "")
        self.spoke = time.monotonic()

    def found(self, finding: Finding) -> None:
        """Say what is wrong and what to try."""
        show_findings(self.console, [finding])

    def scoring(self, done: int, total: int) -> None:
        """Move the bar."""
        self._advance("measuring the finished weights", done, total)

    def _advance(self, what: str, done: int, total: int, note: str = "") -> None:
        self.progress.update(self.task, description=what, completed=done, total=total, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.spoke > self.SILENCE_SECONDS:
            _say(self.console, f"{what}: {done} of {total}{', ' if note else ''}{note}")
            self.spoke = now


def _origin(plan: TrainPlan) -> dict[str, str]:
    if not plan.adopted:
        return {}
    fresh = plan.card.recipe.last_layer
    return {"weights": f"{', '.join(plan.adopted)} from {plain(plan.card.weights)}; {fresh} new"}


def show_training(console: Console, report: TrainReport, out: Path) -> None:
    """Show the final metrics of the best and the last epoch, and what to type next."""
    has_top5 = report.best.val.top5 is not None
    table = _table("weights", "epoch", "images", "loss", "top-1", *(["top-5"] if has_top5 else []))
    table.title = "final metrics: every image once, no augmentation, no dropout"
    for name, final in (("best", report.best), ("last", report.last)):
        for split, score in (("train", final.train), ("val", final.val)):
            table.add_row(f"{name} {split}", str(final.epoch), *_score_cells(score))
        table.add_section()
    console.print()
    console.print(table)
    show_findings(console, report.findings)
    _say(console, f"trained for {duration(report.seconds)}; everything is in {plain(report.run)}/")
    model = "" if out == Path("runs") else f" --model {plain(report.run)}"
    _say(console, f"next: alexnet evaluate{model}, or alexnet predict{model} IMAGE")


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Say in a line each what is wrong with a run's learning and what to try."""
    for finding in findings:
        _say(console, f"! {finding.kind}, epoch {finding.epoch}: {finding.evidence}", "yellow")
        _say(console, f"  {finding.remedy}", "yellow")


def _score_cells(score: Score) -> list[str]:
    cells = [f"{score.n:,}", f"{score.loss:.4f}", f"{score.top1:.4f}"]
    return cells if score.top5 is None else [*cells, f"{score.top5:.4f}"]


def duration(seconds: float) -> str:
    """Write a span of time in the two largest of hours, minutes and seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {second:02} s" if minutes else f"{second} s"


# evaluate


def show_evaluation(console: Console, report: EvaluationReport, picture: Path) -> None:
    """Show scores, classes, confusions, and where the picture of the matrix lies."""
    for member in report.members:
        epoch = f" (epoch {member.epoch})" if member.epoch else ""
        _say(console, f"model {plain(member.path)}{epoch}")
    _say(console, f"on {report.split} of {plain(report.data)}")
    has_top5 = report.one_crop.top5 is not None
    table = _table("", "images", "loss", "top-1", *(["top-5"] if has_top5 else []))
    several = len(report.members) > 1
    for number, member in enumerate(report.members if several else (), start=1):
        _add_scores(table, f"model {number}, ", member)
    _add_scores(table, "averaged, " if several else "", report)
    console.print(table)
    low, high = report.top1_interval
    _say(console, f"top-1 {report.score.top1:.4f}, 95 % interval {low:.4f} to {high:.4f}")
    if report.n_seen:
        seen = f"{report.n_seen} of these images were in the training split"
        _say(console, f"{seen}: the figures flatter the model", "yellow")
    _show_classes(console, report)
    if len(report.classes) <= MATRIX_COLUMNS:
        _show_matrix(console, report)
    for true, predicted, count in report.most_confused:
        times = "once" if count == 1 else f"{count} times"
        _say(console, f"{plain(true)} taken for {plain(predicted)} {times}")
    _say(console, f"confusion matrix drawn in {plain(picture)}")


def _add_scores(table: Table, name: str, scores: MemberScore | EvaluationReport) -> None:
    table.add_row(f"{name}one crop", *_score_cells(scores.one_crop))
    if scores.ten_crop:
        table.add_row(f"{name}ten crops", *_score_cells(scores.ten_crop))


def _show_classes(console: Console, report: EvaluationReport) -> None:
    table = _table("class", "precision", "recall", "F1", "images")
    scores = report.per_class
    if len(scores) > 20:
        table.title = f"the 20 classes of {len(scores):,} with the lowest F1"
        scores = tuple(sorted(scores, key=lambda s: s.f1)[:20])
    for s in scores:
        cells = (f"{s.precision:.4f}", f"{s.recall:.4f}", f"{s.f1:.4f}", f"{s.support:,}")
        table.add_row(Text(plain(s.name)), *cells)
    console.print(table)


def _show_matrix(console: Console, report: EvaluationReport) -> None:
    table = _table("true \\ predicted", *report.classes)
    for index, name in enumerate(report.classes):
        cells = [
            Text(str(count), style="bold" if index == column else "dim" if not count else "")
            for column, count in enumerate(report.matrix[index])
        ]
        table.add_row(Text(plain(name)), *cells)
    console.print(table)


def evaluation_json(report: EvaluationReport) -> dict[str, Any]:
    """Turn a report into plain data for `--json`."""
    data = {**asdict(report), "matrix": report.matrix.tolist()}
    for member in data["members"]:
        member["path"] = str(member["path"])
    return {**data, "top1_interval": list(report.top1_interval)}


# predict


def show_prediction(console: Console, prediction: Prediction) -> None:
    """Show a bar per class."""
    _say(console, plain(prediction.path), "bold")
    width = max(len(plain(name)) for name in prediction.classes)
    for name, probability in zip(prediction.classes, prediction.probabilities):
        full = round(probability * BAR_WIDTH)
        line = Text(f"  {plain(name):<{width}}  {probability:6.1%}  ")
        line.append("#" * full if console.options.ascii_only else "█" * full, style="green")
        console.print(line, soft_wrap=True)
    for near in prediction.neighbours:
        _say(console, f"  near: {near.label:<{width}}  {plain(near.path)}  ({near.distance:.1f})")


def failure_line(failure: Failure) -> str:
    """Name the image and the reason."""
    return f"{plain(failure.path)}: {plain(failure.reason)}"


def prediction_json(outcomes: Sequence[Prediction | Failure]) -> str:
    """Write the predictions as a JSON array, an object per image."""
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            rows.append({"image": str(outcome.path), "error": outcome.reason})
        else:
            pairs = zip(outcome.classes, outcome.probabilities)
            classes = [{"class": name, "probability": p} for name, p in pairs]
            rows.append({"image": str(outcome.path), "predictions": classes})
            if outcome.neighbours:
                near = [{**asdict(n), "path": str(n.path)} for n in outcome.neighbours]
                rows[-1]["neighbours"] = near
    return json.dumps(rows, indent=2)


def write_prediction_csv(file: IO[str], outcomes: Iterator[Prediction | Failure]) -> None:
    """Write a row per image and class: image, rank, class, probability."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for outcome in outcomes:
        if isinstance(outcome, Prediction):
            pairs = zip(outcome.classes, outcome.probabilities)
            for rank, (name, probability) in enumerate(pairs, start=1):
                writer.writerow([plain(outcome.path), rank, plain(name), f"{probability:.6f}"])
