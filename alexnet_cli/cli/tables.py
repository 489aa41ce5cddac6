"""Reports on the screen. Words from outside, such as class and file names, are never markup."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segments
from rich.table import Column, Table
from rich.text import Text

from alexnet_cli.data.manifest import SPLITS, Manifest, Rejected
from alexnet_cli.inference.results import (
    EvaluationReport,
    ExportReport,
    MemberScore,
    Prediction,
)
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import RECIPES
from alexnet_cli.recipes.variants import VARIANTS
from alexnet_cli.runs.metrics import Score, SelectiveAccuracy
from alexnet_cli.runs.records import Finding
from alexnet_cli.system.safe_names import csv_safe, printable

NAMED = 8  # of a list, how many are named before "and so many more"
MATRIX_COLUMNS = 10  # classes beyond which the matrix is a picture only
BAR_WIDTH = 30


def some(names: Sequence[object], most: int = NAMED) -> str:
    """Join the first few of `names`."""
    shown = ", ".join(printable(name) for name in names[:most])
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
    table = new_table("class", *used, "all")
    shown = list(counts) if len(counts) <= 40 else list(counts)[:20]
    for name in shown:
        row = [counts[name][split] for split in used]
        table.add_row(cell(name), *map(str, row), str(sum(row)))
    if len(shown) < len(counts):
        table.add_row(f"and {len(counts) - len(shown):,} more classes")
    table.add_section()
    totals = [len(manifest.of(split)) for split in used]
    table.add_row("all", *(f"{n:,}" for n in totals), f"{sum(totals):,}", style="bold")
    show(console, table)
    if manifest.n_ignored:
        files = "file that is" if manifest.n_ignored == 1 else "files that are"
        print_line(console, f"{manifest.n_ignored} {files} not an image ignored")
    show_left_out(console, manifest.rejected)
    for group in manifest.duplicates()[:NAMED]:
        labels = {file.label for file in group}
        note = "under different classes, " if len(labels) > 1 else ""
        # Of an image in a shard its path is no more than a name.
        names = [file.path.relative_to(manifest.root) for file in group]
        print_line(console, f"same content, {note}kept together: {some(names)}")
    more = len(manifest.duplicates()) - NAMED
    if more > 0:
        print_line(console, f"and {more} more groups of files with the same content")
    prepared = any(file.record for file in manifest.files)  # squares, as `paper` cuts them
    recipe = " --recipe paper" if prepared else ""
    print_line(
        console, f"written to {out}/; next: alexnet train{_unless_default(out, 'data')}{recipe}"
    )


def show_left_out(console: Console, rejected: Sequence[Rejected]) -> None:
    """Name what should have been an image and is none."""
    for item in rejected[:NAMED]:
        print_line(console, f"left out: {rejection(item)}", "yellow")
    if len(rejected) > NAMED:
        more = f"and {len(rejected) - NAMED:,} more left out"
        print_line(console, f"{more}: the manifest of a split names all")


def _unless_default(path: Path, default: str) -> str:
    return "" if path == Path(default) else f" {path}"


def new_table(first: str, *numbers: str) -> Table:
    """Start a table of names on the left and numbers on the right."""
    heads = [Column(cell(name), justify="right") for name in numbers]
    return Table(Column(cell(first)), *heads)


def show(console: Console, table: Table) -> None:
    """Print a table, on a narrow screen wider than that: figures must not be cut."""
    options = console.options.update(width=max(console.width, 80))
    console.print(Segments(console.render(table, options)), crop=False)


def print_line(console: Console, line: str, style: str = "") -> None:
    """Print a line as it is, safe to show."""
    # soft_wrap: a path is data, and must not be broken or cut where the screen ends
    console.print(Text(printable(line), style=style), soft_wrap=True)


def cell(name: object) -> Text:
    """Make a name from outside the cell of a table."""
    return Text(printable(name))


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
        show(console, table)
        console.print()
    print_line(console, "next: alexnet recipes NAME, or alexnet train --recipe NAME --variant NAME")


def show_fidelity(console: Console, recipe: Recipe) -> None:
    """Show every constant of the paper; below it, where the recipe differs, its own and why."""
    points = paper_comparison.compare(recipe)
    width = max(len(point.name) for point in points)
    for point in points:
        print_line(console, f"{point.name:<{width}} {point.what}: {point.paper} ({point.source})")
        if point.differs:
            print_line(
                console, f"{'':<{width}} here {point.recipe}. {point.rationale}", "bold yellow"
            )
    n = sum(point.differs for point in points)
    console.print()
    print_line(console, f"{recipe.name}: {recipe.summary}", "bold")
    print_line(console, f"{n} of {len(points)} constants differ from the paper; --set changes any")


# evaluate


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Say in a line each what is wrong with a run's learning and what to try."""
    for finding in findings:
        print_line(
            console, f"! {finding.kind}, epoch {finding.epoch}: {finding.evidence}", "yellow"
        )
        print_line(console, f"  {finding.remedy}", "yellow")


def score_cells(score: Score) -> list[str]:
    """Write a score as the cells of a table: images, loss, top-1 and, if there is one, top-5."""
    cells = [f"{score.n:,}", f"{score.loss:.4f}", f"{score.top1:.4f}"]
    return cells if score.top5 is None else [*cells, f"{score.top5:.4f}"]


def show_evaluation(
    console: Console, report: EvaluationReport, none_below: float | None = None
) -> None:
    """Show scores, classes and confusions."""
    for member in report.members:
        epoch = f" (epoch {member.epoch})" if member.epoch else ""
        print_line(console, f"model {member.path}{epoch}")
    print_line(console, f"on {report.split} of {report.data}")
    show_left_out(console, report.rejected)
    has_top5 = report.one_crop.top5 is not None
    table = new_table("", "images", "loss", "top-1", *(["top-5"] if has_top5 else []))
    several = len(report.members) > 1
    for number, member in enumerate(report.members if several else (), start=1):
        _add_scores(table, f"model {number}, ", member)
    _add_scores(table, "averaged, " if several else "", report)
    show(console, table)
    low, high = report.top1_interval
    which = "with ten crops, as all below: " if report.ten_crop else ""
    print_line(
        console, f"{which}top-1 {report.score.top1:.4f}, 95 % interval {low:.4f} to {high:.4f}"
    )
    if report.n_seen:
        seen = f"{report.n_seen} of these images were in the training split"
        print_line(console, f"{seen}: the figures flatter the model", "yellow")
    for cost in report.refusals if none_below is not None else ():
        if cost.below == none_below:
            print_line(console, _cost_of_refusing(cost))
    _show_classes(console, report)
    if len(report.classes) <= MATRIX_COLUMNS:
        _show_matrix(console, report)
    for true, predicted, count in report.most_confused:
        times = "once" if count == 1 else f"{count} times"
        print_line(console, f"{true} taken for {predicted} {times}")


def _cost_of_refusing(cost: SelectiveAccuracy) -> str:
    rest = "" if cost.top1 is None else f"; top-1 of the rest {cost.top1:.4f}"
    return (
        f"none of these below {cost.below:g}: {cost.n_refused:,} of {cost.n:,} refused, "
        f"{cost.n_refused_right:,} of which were right{rest}"
    )


def _add_scores(table: Table, name: str, scores: MemberScore | EvaluationReport) -> None:
    table.add_row(f"{name}one crop", *score_cells(scores.one_crop))
    if scores.ten_crop:
        table.add_row(f"{name}ten crops", *score_cells(scores.ten_crop))


def _show_classes(console: Console, report: EvaluationReport) -> None:
    table = new_table("class", "precision", "recall", "F1", "images")
    scores = report.per_class
    if len(scores) > 20:
        table.title = f"the 20 classes of {len(scores):,} with the lowest F1"
        scores = tuple(sorted(scores, key=lambda s: s.f1)[:20])
    for s in scores:
        cells = (f"{s.precision:.4f}", f"{s.recall:.4f}", f"{s.f1:.4f}", f"{s.support:,}")
        table.add_row(cell(s.name), *cells)
    show(console, table)


def _show_matrix(console: Console, report: EvaluationReport) -> None:
    table = new_table("true \\ predicted", *report.classes)
    for index, name in enumerate(report.classes):
        cells = [
            Text(str(count), style="bold" if index == column else "dim" if not count else "")
            for column, count in enumerate(report.matrix[index])
        ]
        table.add_row(cell(name), *cells)
    show(console, table)


def evaluation_json(report: EvaluationReport) -> dict[str, Any]:
    """Turn a report into plain data for `--json`."""
    data = {**asdict(report), "matrix": report.matrix.tolist()}
    for item in (*data["members"], *data["rejected"]):
        item["path"] = str(item["path"])
    for item in (*data["worst"], *data["doubtful"]):
        file = item.pop("file")
        item |= {"path": str(file["path"]), "label": file["label"]}
    return {**data, "top1_interval": list(report.top1_interval)}


# export


def show_export(console: Console, report: ExportReport) -> None:
    """Say where the export is, and how near it comes to its run."""
    print_line(console, f"{report.same} of {report.n_images} validation images get the same class")
    print_line(console, f"probabilities differ by {report.apart:.1e} at most")
    print_line(console, f"top-1 {report.top1_exported:.4f}, of the run {report.top1:.4f}")
    print_line(console, f"written to {report.path}")


# predict


def show_prediction(console: Console, prediction: Prediction) -> None:
    """Show a bar per class."""
    print_line(console, str(prediction.file.path), "bold")
    if prediction.refused:
        print_line(console, "  none of these", "yellow")
    width = max(len(printable(name)) for name in prediction.classes)
    for name, probability in zip(prediction.classes, prediction.probabilities):
        full = round(probability * BAR_WIDTH)
        line = Text(f"  {printable(name):<{width}}  {probability:6.1%}  ")
        line.append("#" * full if console.options.ascii_only else "█" * full, style="green")
        console.print(line, soft_wrap=True)
    for near in prediction.neighbors:
        name = f"{printable(near.file.label):<{width}}  {near.file.path}"
        print_line(console, f"  near: {name}  ({near.distance:.1f})")


def rejection(rejected: Rejected) -> str:
    """Name the file and the reason."""
    return f"{rejected.path}: {rejected.reason}"


def prediction_json(outcomes: Sequence[Prediction | Rejected]) -> str:
    """Write the predictions as a JSON array, an object per image."""
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            rows.append({"image": str(outcome.path), "error": outcome.reason})
        else:
            pairs = zip(outcome.classes, outcome.probabilities)
            classes = [{"class": name, "probability": p} for name, p in pairs]
            rows.append({"image": str(outcome.file.path), "predictions": classes})
            if outcome.refused:
                rows[-1]["none_of_these"] = True
            if outcome.neighbors:
                rows[-1]["neighbors"] = [
                    {
                        "path": str(near.file.path),
                        "label": near.file.label,
                        "distance": near.distance,
                    }
                    for near in outcome.neighbors
                ]
    return json.dumps(rows, indent=2)


def write_prediction_csv(file: IO[str], outcomes: Iterator[Prediction | Rejected]) -> None:
    """Write a row per image and class: image, rank, class, probability.

    An image that is none of the classes has one row without a class. What a spreadsheet would
    compute has an apostrophe in front; JSON has every name as it is.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for outcome in outcomes:
        if isinstance(outcome, Prediction):
            classes = ("",) if outcome.refused else outcome.classes
            pairs = zip(classes, outcome.probabilities)
            for rank, (name, probability) in enumerate(pairs, start=1):
                image, label = csv_safe(outcome.file.path), csv_safe(name)
                writer.writerow([image, rank, label, f"{probability:.6f}"])
