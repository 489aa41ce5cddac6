"""An evaluation as an HTML report: one self-contained file that works offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_cli.data.store import load_image
from alexnet_cli.errors import ImageError
from alexnet_cli.inference import heatmaps
from alexnet_cli.inference.results import FOLDS, EvaluationReport, ScoredImage
from alexnet_cli.network.classifier import first_kernels
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.reports import heatmap_pictures, plots
from alexnet_cli.reports.reproduce import evaluate_command, train_commands
from alexnet_cli.reports.svg_charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    build_charts,
    reliability_chart,
)
from alexnet_cli.runs import metrics
from alexnet_cli.runs.calibration import CalibratedScore
from alexnet_cli.runs.models import LoadedModel
from alexnet_cli.runs.records import EpochRow, Finding
from alexnet_cli.system.atomic_files import atomic_write
from alexnet_cli.system.safe_names import printable
from alexnet_cli.version import __version__

MATRIX_CLASSES = 25  # with more, the confusion matrix is an image and not a table of counts
SUSPECTS = 50  # suspect labels that are shown
THUMBNAIL = 192  # pixels


@dataclass(frozen=True)
class Headline:
    """The score with one crop or ten, with its 95 % interval."""

    name: str
    score: CalibratedScore
    low: float
    high: float


@dataclass(frozen=True)
class ShownImage:
    """An image of the report, with its prediction."""

    scored: ScoredImage
    source: str  # a data: URL
    heatmap: str  # likewise, of one model only, else ""


@dataclass(frozen=True)
class ModelSection:
    """What the report shows about one model, apart from its scores."""

    path: Path
    recipe: Recipe
    versions: dict[str, str]
    charts: tuple[Chart, ...]
    history: tuple[EpochRow, ...]
    kernels: tuple[str, ...]  # a data: URL for each tower
    comparison: tuple[paper_comparison.HyperparameterComparison, ...]
    findings: tuple[Finding, ...]
    commands: tuple[str, ...]


def write(report: EvaluationReport, models: Sequence[LoadedModel], path: Path) -> None:
    """Write the HTML report of an evaluation; raises `OSError` if `path` can't be written."""
    # Names of classes and files may contain markup: Jinja2 escapes everything it inserts.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("alexnet_cli.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": "{:.1%}".format, "thousands": "{:,}".format}
    few = len(report.classes) <= MATRIX_CLASSES
    recipe, only = models[0].recipe, models[0] if len(models) == 1 else None
    html = environment.get_template("report.html").render(
        report=report,
        name=_data_name(report, models),
        headlines=_headlines(report),
        majority_baseline=float(report.matrix.sum(axis=1).max() / report.score.n),
        few=few,
        shares=plots.row_shares(report.matrix) if few else None,
        reliability=reliability_chart(report.reliability),
        matrix_image=None if few else _data_url("png", _matrix_image(report)),
        predictions=_predictions_json(report),
        confused_with=_confused_with(report),
        confident_errors=_thumbnails(report.confident_errors, recipe, only),
        least_certain=_thumbnails(report.least_certain, recipe, only),
        suspects=_thumbnails((report.suspects or ())[:SUSPECTS], recipe),
        models=[_section(model, len(models) * (report.split == FOLDS)) for model in models],
        evaluate=evaluate_command(report),
        size=(WIDTH, HEIGHT),
        edges=(LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM),
        version=__version__,
    )
    with atomic_write(path) as file:
        file.write(html.encode())


def _printable(value: Any) -> Any:
    """Return names with control characters escaped, and markup of the template unchanged."""
    if isinstance(value, Path) or type(value) is str:
        return printable(value)
    return value


def _data_name(report: EvaluationReport, models: Sequence[LoadedModel]) -> str:
    """Return the name of the folder or list that was split, which the reader knows, if it is recorded."""
    manifests = (model.trained_on for model in models)
    sources = {str(m.data): m.image_list or m.source for m in manifests if m}
    return sources.get(report.data, Path(report.data)).name


def _headlines(report: EvaluationReport) -> list[Headline]:
    scores = {"one crop": report.one_crop, "ten crops": report.ten_crop}
    return [
        Headline(name, score, *metrics.wilson_interval(round(score.top1 * score.n), score.n))
        for name, score in scores.items()
        if score
    ]


# Confusion matrix


def _matrix_image(report: EvaluationReport) -> Image.Image:
    """Return the matrix as an image: blue, transparent where it is 0, to suit any background."""
    cells = plots.downsample(plots.row_shares(report.matrix))
    pixels = np.zeros((*cells.shape, 4), np.uint8)
    pixels[..., :3] = (58, 123, 213)
    pixels[..., 3] = (
        255 * cells**0.35
    ).round()  # so that a few errors among many images are visible
    return Image.fromarray(pixels)


def _predictions_json(report: EvaluationReport) -> str:
    """Return as JSON, for each class, the classes its images are predicted as, with counts."""
    rows = [
        [
            [int(column), int(row[column])]
            for column in np.argsort(-row, kind="stable")[:20]
            if row[column]
        ]
        for row in report.matrix
    ]
    return json.dumps(rows)


def _confused_with(report: EvaluationReport, most: int = 2) -> list[str]:
    """Return for each class the classes it is most often confused with, with counts."""
    errors = report.matrix - np.diag(np.diag(report.matrix))
    texts = []
    for row in errors:
        worst = [index for index in np.argsort(-row, kind="stable")[:most] if row[index]]
        texts.append(", ".join(f"{report.classes[index]} ({row[index]:,})" for index in worst))
    return texts


# Images


def _data_url(kind: str, image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _thumbnails(
    chosen: Sequence[ScoredImage], recipe: Recipe, model: LoadedModel | None = None
) -> list[ShownImage]:
    """Return the images as JPEGs, with a heat map of `model` each, if it is given."""
    shown = []
    for scored in chosen:
        try:
            pictures = [Image.fromarray(load_image(scored.file, recipe))]
            if model:
                heatmap = heatmaps.compute(model, scored.file, scored.predicted, n_images=None)
                pictures.append(heatmap_pictures.overlay(heatmap))
        except ImageError:  # deleted or damaged since the evaluation
            continue
        small = [_data_url("jpeg", picture.resize((THUMBNAIL,) * 2)) for picture in pictures]
        shown.append(ShownImage(scored, *small, *[""] * (2 - len(small))))
    return shown


# One model


def _section(model: LoadedModel, folds: int) -> ModelSection:
    """Return the section of a model, perhaps of one of several folds."""
    run = model.run
    kernels = first_kernels(model.numpy_network)
    towers = max(conv.towers for conv in model.recipe.convs)
    meta = run.checkpoint() if run else None
    commands: Iterable[str] = ()
    if run and meta:
        commands = train_commands(run.config, run.manifest, meta.planned_epochs, folds)
    return ModelSection(
        path=model.path,
        recipe=run.recipe() if run else model.recipe,
        versions=run.config.versions if run else {},
        charts=build_charts(meta.history) if meta else (),
        history=meta.history if meta else (),
        kernels=tuple(
            _data_url("png", Image.fromarray(plots.kernel_sheet(part)))
            for part in np.array_split(kernels, towers, axis=3)
        ),
        comparison=paper_comparison.compare(run.recipe() if run else model.recipe),
        findings=meta.findings if meta else (),
        commands=tuple(commands),
    )
