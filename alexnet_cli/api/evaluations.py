"""The report of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_cli.api.arguments import as_new_file, path_errors
from alexnet_cli.inference.results import EvaluationReport
from alexnet_cli.runs.metrics import Score
from alexnet_cli.system.atomic_files import write_json

if TYPE_CHECKING:
    from alexnet_cli.runs.models import LoadedModel


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
    def plot_confusion(self, path: str | Path) -> Path:
        """Draw the confusion matrix as a PNG; returns its path."""
        path = as_new_file("path", path)
        from alexnet_cli.reports import plots

        details = self.details
        title = f"{details.split}: top-1 {details.score.top1:.3f}"
        plots.draw_confusion(details.matrix, details.classes, path, title)
        return path
