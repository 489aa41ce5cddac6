"""The report of an evaluation."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_cli.api.arguments import as_new_file, path_errors
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference.results import EvaluationReport, SplitScore
from alexnet_cli.runs.metrics import Score
from alexnet_cli.system.atomic_files import atomic_write, write_json
from alexnet_cli.system.html_tables import html_table
from alexnet_cli.system.safe_names import csv_safe

if TYPE_CHECKING:
    from alexnet_cli.runs.models import LoadedModel

MAX_ROWS = 20  # classes in the table of a notebook; the HTML report has all
TOTALS = ("split", "images", "top-1", "95 % interval", "loss")


class Report:
    """Scores, scores by class and confusion matrix of a model on a set of images."""

    def __init__(self, details: EvaluationReport, models: Sequence[LoadedModel]) -> None:
        """Take the result of an evaluation of `models`."""
        self.details = details
        self._models = models

    def __repr__(self) -> str:
        """Return split, number of images and top-1 accuracy."""
        low, high = self.details.top1_interval
        return (
            f"<Report: {self.score.n:,} images of the split {self.details.split}, "
            f"top-1 {self.score.top1:.1%} ({low:.1%} to {high:.1%})>"
        )

    def _repr_html_(self) -> str:
        """Return the scores, in total and by class, as HTML tables, which a notebook shows."""
        splits = [split for split in (self.details, self.details.validation) if split]
        totals = html_table(TOTALS, [_total(split) for split in splits])
        every = self.details.per_class
        rows = [
            (c.name, f"{c.support:,}", f"{c.precision:.1%}", f"{c.recall:.1%}")
            for c in every[:MAX_ROWS]
        ]
        shown = (
            f"first {MAX_ROWS} of {len(every):,} classes" if len(every) > MAX_ROWS else "classes"
        )
        title = f"{shown}, {self.details.split}"
        return totals + html_table(("class", "images", "precision", "recall"), rows, title)

    @property
    def score(self) -> Score:
        """Loss, top-1 and top-5 accuracy: with ten crops if they were asked for."""
        return self.details.score

    @path_errors()
    def save_html(self, path: str | Path) -> Path:
        """Write the report as one HTML file, which works offline; returns its path."""
        path = as_new_file("path", path)
        from alexnet_cli.reports import html_report

        html_report.write(self.details, self._models, path)
        return path

    @path_errors()
    def save_json(self, path: str | Path) -> Path:
        """Write the report as JSON; returns its path."""
        path = as_new_file("path", path)
        write_json(path, self.details.as_json())
        return path

    @path_errors()
    def save_suspects(self, path: str | Path) -> Path:
        """Write the suspect labels as CSV, the likeliest first; returns its path.

        Columns: file, label, proposed, and the probabilities of these two classes. A name that a
        spreadsheet would read as a formula gets a leading apostrophe. Raises `AlexNetError` if every
        image was trained on, as a network repeats the labels that it was trained on.
        """
        path = as_new_file("path", path)
        if self.details.suspects is None:
            raise AlexNetError(
                f"{self.details.data}: all images of {self.details.split} were trained on, so that "
                "nothing tells their wrong labels. Evaluate other images"
            )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "label", "proposed", "label_probability", "proposed_probability"])
        for one in self.details.suspects:
            names = map(csv_safe, (one.file.path, one.file.label, one.predicted))
            writer.writerow([*names, f"{one.true_probability:.6f}", f"{one.probability:.6f}"])
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())
        return path

    @path_errors()
    def plot_confusion(self, path: str | Path) -> Path:
        """Draw the confusion matrix as a PNG; returns its path."""
        path = as_new_file("path", path)
        from alexnet_cli.reports import plots

        details = self.details
        title = f"{details.split}: top-1 {details.score.top1:.3f}"
        plots.draw_confusion(details.matrix, details.classes, path, title)
        return path


def _total(split: SplitScore) -> tuple[str, ...]:
    """Return the cells of `TOTALS`; images that chose the epoch are marked: their scores are optimistic."""
    low, high = split.top1_interval
    name = f"{split.split} (chose the epoch)" if split.chose_epoch else split.split
    score = split.score
    return (
        name,
        f"{score.n:,}",
        f"{score.top1:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{score.loss:.3f}",
    )
