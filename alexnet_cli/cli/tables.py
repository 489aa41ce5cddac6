"""What `split`, `recipes`, `evaluate`, `crossval` and `export` print, and findings of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet_cli.cli.screen import cell, new_table, print_line, show_skipped, show_table
from alexnet_cli.data.manifest import SPLITS, Manifest
from alexnet_cli.inference.results import (
    FOLDS,
    EvaluationReport,
    ExportReport,
    MemberScore,
    SplitScore,
)
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import DEFAULT, RECIPES
from alexnet_cli.recipes.variants import VARIANTS
from alexnet_cli.runs.calibration import N_BINS
from alexnet_cli.runs.metrics import Score, SelectiveAccuracy
from alexnet_cli.runs.records import Finding
from alexnet_cli.system.safe_names import MAX_LISTED, list_first

MATRIX_COLUMNS = 10  # with more classes the confusion matrix is drawn only


# split


def show_split(console: Console, manifest: Manifest, out: Path) -> None:
    """Print images by class and split, skipped files, duplicates and near copies."""
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
    show_table(console, table)
    _show_groups(console, manifest)
    if manifest.n_ignored:
        files = "file that is" if manifest.n_ignored == 1 else "files that are"
        print_line(console, f"{manifest.n_ignored} {files} not an image ignored")
    show_skipped(console, manifest.rejected, "the manifest of the split")
    for what, groups in (
        ("same content", manifest.duplicates()),
        ("near copies", manifest.near_copies()),
    ):
        for group in groups[:MAX_LISTED]:
            labels = {file.label for file in group}
            note = "under different classes, " if len(labels) > 1 else ""
            # The path of an image in a shard is a name without a file.
            names = [file.path.relative_to(manifest.root) for file in group]
            print_line(console, f"{what}, {note}kept in one split: {list_first(names)}")
        if len(groups) > MAX_LISTED:
            more = f"and {len(groups) - MAX_LISTED:,} more groups of files: {what}"
            print_line(console, f"{more}; the manifest of the split has all")
    prepared = any(file.record for file in manifest.files)  # squares, as `paper` crops them
    recipe = " --recipe paper" if prepared else ""
    print_line(
        console, f"written to {out}/; next: alexnet train{_unless_default(out, 'data')}{recipe}"
    )


def _show_groups(console: Console, manifest: Manifest) -> None:
    """Print the number of groups, and how near the counts are to the fractions despite them."""
    groups = {file.group for file in manifest.files} - {""}
    if not groups:
        return
    alone = sum(not file.group for file in manifest.files)
    names = "image is" if alone == 1 else "images are"
    print_line(console, f"{len(groups):,} groups kept together; {alone:,} {names} in no group")
    if manifest.seed is None:  # the splits are those of the list
        return
    shares = {"train": 1 - manifest.val - manifest.test, "val": manifest.val, "test": manifest.test}
    counts = manifest.counts()
    farthest = max(
        ((label, split) for label in counts for split in SPLITS),
        key=lambda at: abs(counts[at[0]][at[1]] - shares[at[1]] * sum(counts[at[0]].values())),
    )
    label, split = farthest
    wanted = shares[split] * sum(counts[label].values())
    if abs(counts[label][split] - wanted) < 1:  # as near as without groups
        return
    of_all = ", ".join(
        f"{name} {len(manifest.of(name)) / len(manifest.files):.1%} for {share:.1%}"
        for name, share in shares.items()
        if share
    )
    at_worst = f"{split} of {label} has {counts[label][split]:,} images for {wanted:,.0f}"
    print_line(console, f"as near to the fractions as groups allow: {of_all}; farthest: {at_worst}")


def _unless_default(path: Path, default: str) -> str:
    return "" if path == Path(default) else f" {path}"


# recipes


def show_recipes(console: Console) -> None:
    """Print a line for each recipe and variant."""
    summaries = {name: recipe.summary for name, recipe in RECIPES.items()}
    summaries[DEFAULT] = f"(default) {summaries[DEFAULT]}"
    for title, lines in (
        ("recipe", summaries),
        ("variant", {name: summary for name, (summary, _) in VARIANTS.items()}),
    ):
        table = Table(title, "", box=None, pad_edge=False)
        for name, summary in lines.items():
            table.add_row(name, summary)
        show_table(console, table)
        console.print()
    print_line(console, "next: alexnet recipes NAME, or alexnet train --recipe NAME --variant NAME")


def show_paper_comparison(console: Console, recipe: Recipe) -> None:
    """Print every hyperparameter of the paper, and below it that of the recipe if it differs."""
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
    print_line(
        console,
        f"{n} of {len(points)} hyperparameters differ from the paper; change any with --set",
    )


# findings, also shown by `train`


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print each problem of a training run and its remedy."""
    for finding in findings:
        print_line(
            console, f"! {finding.kind}, epoch {finding.epoch}: {finding.evidence}", "yellow"
        )
        print_line(console, f"  {finding.remedy}", "yellow")


# evaluate and crossval


def score_cells(score: Score) -> list[str]:
    """Return the cells of a score: images, loss, top-1 and, if there is one, top-5."""
    cells = [f"{score.n:,}", f"{score.loss:.4f}", f"{score.top1:.4f}"]
    return cells if score.top5 is None else [*cells, f"{score.top5:.4f}"]


def show_evaluation(
    console: Console, report: EvaluationReport, threshold: float | None = None
) -> None:
    """Print the scores, then scores by class and confusions of the reported split."""
    for member in report.members:
        notes = [f"epoch {member.epoch}"] if member.epoch else []
        notes += [f"temperature {member.temperature:.3f}"] if member.temperature != 1 else []
        print_line(console, f"model {member.path}" + (f" ({', '.join(notes)})" if notes else ""))
    scores = (report.validation, report) if report.validation else (report,)
    print_line(console, f"on {' and '.join(s.split for s in scores)} of {report.data}")
    has_top5 = report.one_crop.top5 is not None
    top5 = ["top-5"] if has_top5 else []
    table = new_table("", "images", "loss", "top-1", *top5, "ECE")
    for split in scores:
        show_skipped(console, split.rejected)
        _add_split(table, split, f"{split.split}, " if report.validation else "")
    show_table(console, table)
    print_line(console, f"ECE: expected calibration error, {N_BINS} bins")
    for split in scores:
        _show_accuracy(console, split)
    if report.validation:
        print_line(console, f"everything below is for {report.split}")
    for accuracy in report.selective_accuracy if threshold is not None else ():
        if accuracy.threshold == threshold:
            print_line(console, _selective_accuracy(accuracy))
    _show_classes(console, report)
    if len(report.classes) <= MATRIX_COLUMNS:
        _show_matrix(console, report)
    for true, predicted, count in report.most_confused:
        times = "once" if count == 1 else f"{count} times"
        print_line(console, f"{true} predicted as {predicted} {times}")


def _add_split(table: Table, split: SplitScore, prefix: str) -> None:
    """Add a row for each model of several, and for their mean or the pooled folds."""
    several = len(split.members) > 1
    each, together = ("fold", "pooled") if split.split == FOLDS else ("model", "averaged")
    for number, member in enumerate(split.members if several else (), start=1):
        _add_scores(table, f"{prefix}{each} {number}, ", member)
    _add_scores(table, f"{prefix}{together}, " if several else prefix, split)
    table.add_section()


def _add_scores(table: Table, name: str, scores: MemberScore | SplitScore) -> None:
    for crops, score in (("one crop", scores.one_crop), ("ten crops", scores.ten_crop)):
        if score:
            calibration = f"{score.calibration_error:.4f}"
            table.add_row(f"{name}{crops}", *score_cells(score), calibration)


def _show_accuracy(console: Console, split: SplitScore) -> None:
    low, high = split.top1_interval
    crops = " with ten crops" if split.ten_crop else ""
    print_line(
        console,
        f"{split.split}{crops}: top-1 {split.score.top1:.4f}, "
        f"95 % interval {low:.4f} to {high:.4f}",
    )
    if any(member.temperature != 1 for member in split.members):
        losses = f"loss {split.score.loss:.4f}, {split.score.uncalibrated_loss:.4f} without"
        print_line(console, f"{split.split}{crops}: {losses} temperature scaling")
    if split.chose_epoch:
        line = f"{split.split} chose the epoch of the weights: its scores are optimistic"
        print_line(console, line, "yellow")
    if split.n_trained_on:
        line = f"{split.n_trained_on:,} images of {split.split}, or copies of them, were trained on"
        print_line(console, f"{line}: its scores are optimistic", "yellow")


def show_suspects(console: Console, report: EvaluationReport, path: Path) -> None:
    """Print how many labels are suspect, and the file that lists them."""
    n = report.score.n - report.n_trained_on
    left_out = f"; {report.n_trained_on:,} images were trained on and left out"
    line = f"{len(report.suspects or ()):,} of {n:,} labels are suspect, listed in {path}"
    print_line(console, line + (left_out if report.n_trained_on else ""))


def _selective_accuracy(accuracy: SelectiveAccuracy) -> str:
    others = "" if accuracy.top1 is None else f"; top-1 of the others {accuracy.top1:.4f}"
    return (
        f'"none of these" below {accuracy.threshold:g}: {accuracy.n_below:,} of {accuracy.n:,} '
        f"images, {accuracy.n_below_correct:,} of them predicted correctly{others}"
    )


def _show_classes(console: Console, report: EvaluationReport) -> None:
    table = new_table("class", "precision", "recall", "F1", "images")
    scores = report.per_class
    if len(scores) > 20:
        table.title = f"the 20 classes of {len(scores):,} with the lowest F1"
        scores = tuple(sorted(scores, key=lambda s: s.f1)[:20])
    for s in scores:
        cells = (f"{s.precision:.4f}", f"{s.recall:.4f}", f"{s.f1:.4f}", f"{s.support:,}")
        table.add_row(cell(s.name), *cells)
    show_table(console, table)


def _show_matrix(console: Console, report: EvaluationReport) -> None:
    table = new_table("true \\ predicted", *report.classes)
    for index, name in enumerate(report.classes):
        cells = [
            Text(str(count), style="bold" if index == column else "dim" if not count else "")
            for column, count in enumerate(report.matrix[index])
        ]
        table.add_row(cell(name), *cells)
    show_table(console, table)


# export


def show_export(console: Console, report: ExportReport) -> None:
    """Print the path of an export and how its predictions differ from those of the run."""
    print_line(console, f"same class for {report.n_same} of {report.n_images} validation images")
    print_line(console, f"largest difference between probabilities {report.largest_difference:.1e}")
    print_line(console, f"top-1 {report.top1_exported:.4f}, top-1 of the run {report.top1:.4f}")
    print_line(console, f"written to {report.path}")
