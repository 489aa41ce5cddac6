"""An evaluation as a page to show: one HTML file that holds all it needs and works offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_cli.data.images import UInt8Array
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import ImageError
from alexnet_cli.inference.results import EvaluationReport, ScoredImage
from alexnet_cli.network.classifier import first_kernels
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.reports import plots
from alexnet_cli.reports.reproduce import evaluate_command, train_commands
from alexnet_cli.reports.svg_charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, charts_of
from alexnet_cli.runs import metrics
from alexnet_cli.runs.metrics import Score
from alexnet_cli.runs.models import LoadedModel
from alexnet_cli.runs.records import EpochRow, Finding
from alexnet_cli.system.atomic_files import atomic_write
from alexnet_cli.system.safe_names import printable
from alexnet_cli.version import __version__

MATRIX_CLASSES = 25  # up to which the matrix is a table of counts
THUMBNAIL = 192  # pixels


@dataclass(frozen=True)
class Headline:
    """The score by one way of cropping, with its 95 % interval."""

    name: str
    score: Score
    low: float
    high: float


@dataclass(frozen=True)
class ShownImage:
    """An image of the page, with what the network says of it."""

    scored: ScoredImage
    source: str  # a data: address


@dataclass(frozen=True)
class ModelSection:
    """What the page shows of one model, beside its scores."""

    path: Path
    recipe: Recipe
    versions: dict[str, str]
    charts: tuple[Chart, ...]
    history: tuple[EpochRow, ...]
    kernels: tuple[str, ...]  # a data: address for each tower
    comparison: tuple[paper_comparison.HyperparameterComparison, ...]
    findings: tuple[Finding, ...]
    commands: tuple[str, ...]


def write(report: EvaluationReport, models: Sequence[LoadedModel], path: Path) -> None:
    """Write the page of an evaluation of `models`; raises `OSError` if that can't be done."""
    # Names of classes and files come from anywhere: what fills the page is escaped by a library.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("alexnet_cli.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": "{:.1%}".format, "thousands": "{:,}".format}
    recipe = models[0].recipe
    few = len(report.classes) <= MATRIX_CLASSES
    html = environment.get_template("report.html").render(
        report=report,
        name=_name(report, models),
        headlines=_headlines(report),
        blind_guess=float(report.matrix.sum(axis=1).max() / report.score.n),
        few=few,
        shares=plots.shares_of(report.matrix) if few else None,
        picture=None if few else _data("png", _shades(report)),
        mistakes=_mistakes(report),
        confused_with=_taken_for(report),
        worst=_shown_images(report.worst, recipe),
        doubtful=_shown_images(report.doubtful, recipe),
        models=[_model(model) for model in models],
        evaluate=evaluate_command(report),
        size=(WIDTH, HEIGHT),
        edges=(LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM),
        version=__version__,
    )
    with atomic_write(path) as file:
        file.write(html.encode())


def _shown(value: Any) -> Any:
    """Make names safe to read; what the template has made of them already is left alone."""
    if isinstance(value, Path) or type(value) is str:
        return printable(value)
    return value


def _name(report: EvaluationReport, models: Sequence[LoadedModel]) -> str:
    """Return the name of the folder that the images were split from, as their owner knows it."""
    manifests = (model.trained_on for model in models)
    sources = {str(manifest.root): manifest.source for manifest in manifests if manifest}
    return sources.get(report.data, Path(report.data)).name


def _headlines(report: EvaluationReport) -> list[Headline]:
    scores = {"one crop": report.one_crop, "ten crops": report.ten_crop}
    return [
        Headline(name, score, *metrics.wilson_interval(round(score.top1 * score.n), score.n))
        for name, score in scores.items()
        if score
    ]


# Confusions


def _shades(report: EvaluationReport) -> Image.Image:
    """Draw the matrix: blue, clear where there is nothing, so that it suits any background."""
    cells = plots.condense(plots.shares_of(report.matrix))
    pixels = np.zeros((*cells.shape, 4), np.uint8)
    pixels[..., :3] = (58, 123, 213)
    pixels[..., 3] = (255 * cells**0.35).round()  # so that few mistakes in many images show
    return Image.fromarray(pixels)


def _mistakes(report: EvaluationReport) -> str:
    """Write for each class what its images were taken for, and how often, as JSON for a script."""
    rows = [
        [
            [int(column), int(row[column])]
            for column in np.argsort(-row, kind="stable")[:20]
            if row[column]
        ]
        for row in report.matrix
    ]
    return json.dumps(rows)


def _taken_for(report: EvaluationReport, most: int = 2) -> list[str]:
    """Name for each class what its images are most often taken for."""
    mistakes = report.matrix - np.diag(np.diag(report.matrix))
    named = []
    for row in mistakes:
        worst = [index for index in np.argsort(-row, kind="stable")[:most] if row[index]]
        named.append(", ".join(f"{report.classes[index]} ({row[index]:,})" for index in worst))
    return named


# Pictures


def _data(kind: str, image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _shown_images(chosen: Sequence[ScoredImage], recipe: Recipe) -> list[ShownImage]:
    shown = []
    for scored in chosen:
        try:
            pixels: UInt8Array = load_image(scored.file, recipe)
        except ImageError:  # it was there a moment ago
            continue
        small = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL))
        shown.append(ShownImage(scored, _data("jpeg", small)))
    return shown


# One model


def _model(model: LoadedModel) -> ModelSection:
    run = model.run
    kernels = first_kernels(model.numpy_network)
    towers = max(conv.towers for conv in model.recipe.convs)
    meta = run.checkpoint() if run else None
    commands = train_commands(run.config, run.manifest, meta.planned_epochs) if run and meta else ()
    return ModelSection(
        path=model.path,
        recipe=run.recipe() if run else model.recipe,
        versions=run.config.versions if run else {},
        charts=charts_of(meta.history) if meta else (),
        history=meta.history if meta else (),
        kernels=tuple(
            _data("png", Image.fromarray(plots.kernel_sheet(part)))
            for part in np.array_split(kernels, towers, axis=3)
        ),
        comparison=paper_comparison.compare(run.recipe() if run else model.recipe),
        findings=meta.findings if meta else (),
        commands=tuple(commands),
    )
