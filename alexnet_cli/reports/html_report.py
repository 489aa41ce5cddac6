"""An evaluation as a page to show: one HTML file that holds all it needs and works offline."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_cli.data.images import UInt8Array
from alexnet_cli.data.manifest import Manifest
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import BadFile
from alexnet_cli.inference.results import EvaluationReport, ScoredImage
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import (
    Recipe,
    differing_hyperparameters,
    format_value,
    hyperparameter_values,
)
from alexnet_cli.recipes.presets import RECIPES
from alexnet_cli.recipes.variants import VARIANTS, build_recipe
from alexnet_cli.reports import plots
from alexnet_cli.runs import metrics
from alexnet_cli.runs.metrics import Score
from alexnet_cli.runs.models import Member, load_member
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.runs.run_folder import RunConfig, RunFolder
from alexnet_cli.system.atomic_files import atomic_write
from alexnet_cli.system.safe_names import printable
from alexnet_cli.version import __version__

MATRIX_CLASSES = 25  # up to which the matrix is a table of counts
THUMBNAIL = 192  # pixels
WIDTH, HEIGHT = 460, 230  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 28  # margins in which its labels stand


@dataclass(frozen=True)
class Headline:
    """One way to measure, with its 95 % interval."""

    name: str
    score: Score
    low: float
    high: float


@dataclass(frozen=True)
class Photograph:
    """An image of the page, with what the network says of it."""

    judged: ScoredImage
    source: str  # a data: address


@dataclass(frozen=True)
class Line:
    """A curve of a chart."""

    name: str
    points: str  # as SVG has them
    last: float


@dataclass(frozen=True)
class Chart:
    """A quantity by epoch."""

    title: str
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]  # places and labels of the epochs
    up: tuple[tuple[float, str], ...]  # of the values


@dataclass(frozen=True)
class ModelPart:
    """What the page tells of one model, apart from how good it is."""

    member: Member
    charts: tuple[Chart, ...]
    history: tuple[EpochRow, ...]
    kernels: tuple[str, ...]  # an address a tower
    points: tuple[paper_comparison.HyperparameterComparison, ...]
    findings: tuple[Any, ...]
    commands: tuple[str, ...]


def write(report: EvaluationReport, path: Path) -> None:
    """Write the page of an evaluation; raises `OSError` if that can't be done."""
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
    members = [load_member(score.path, few=True) for score in report.members]
    recipe = members[0].network.recipe
    few = len(report.classes) <= MATRIX_CLASSES
    html = environment.get_template("report.html").render(
        report=report,
        name=_name(report, members),
        headlines=_headlines(report),
        blind_guess=float(report.matrix.sum(axis=1).max() / report.score.n),
        few=few,
        shares=plots.shares_of(report.matrix) if few else None,
        picture=None if few else _data("png", _shades(report)),
        mistakes=_mistakes(report),
        confused_with=_taken_for(report),
        worst=_photographs(report.worst, recipe),
        doubtful=_photographs(report.doubtful, recipe),
        models=[_model(member, report) for member in members],
        evaluate=_evaluate_command(report),
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


def _name(report: EvaluationReport, members: Sequence[Member]) -> str:
    """Name the images as their owner does: by the folder that they were divided from."""
    manifests = (member.trained_on for member in members)
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


def _photographs(chosen: Sequence[ScoredImage], recipe: Recipe) -> list[Photograph]:
    shown = []
    for judged in chosen:
        try:
            pixels: UInt8Array = load_image(judged.file, recipe)
        except BadFile:  # it was there a moment ago
            continue
        small = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL))
        shown.append(Photograph(judged, _data("jpeg", small)))
    return shown


# One model


def _model(member: Member, report: EvaluationReport) -> ModelPart:
    config, run = member.config, RunFolder(member.path)
    recipe = run.recipe() if config else member.network.recipe
    history = run.history() if config else ()
    kernels = member.network.weights["conv1/kernel"]
    towers = max(conv.towers for conv in recipe.convs)
    return ModelPart(
        member=member,
        charts=_charts(history),
        history=history,
        kernels=tuple(
            _data("png", Image.fromarray(plots.kernel_sheet(part)))
            for part in np.array_split(kernels, towers, axis=3)
        ),
        points=paper_comparison.compare(recipe),
        findings=run.findings() if config else (),
        commands=tuple(_train_commands(config, member.trained_on, recipe.epochs)) if config else (),
    )


def _charts(history: Sequence[EpochRow]) -> tuple[Chart, ...]:
    if len(history) < 2:
        return ()
    losses = {"train": [r.train_loss for r in history], "validation": [r.val_loss for r in history]}
    top1s = {"train": [r.train_top1 for r in history], "validation": [r.val_top1 for r in history]}
    return (
        _chart("cross-entropy loss", losses, max(map(max, losses.values()))),
        _chart("top-1 accuracy", top1s, 1.0),
    )


def _chart(title: str, curves: dict[str, list[float]], highest: float) -> Chart:
    n = len(next(iter(curves.values())))
    top = max(highest, 1e-9)

    def across(epoch: float) -> float:
        return round(LEFT + (epoch - 1) / (n - 1) * (WIDTH - LEFT - RIGHT), 1)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM), 1)

    epochs = sorted({round(1 + part * (n - 1)) for part in (0, 0.25, 0.5, 0.75, 1)})
    return Chart(
        title=title,
        lines=tuple(
            Line(
                name, " ".join(f"{across(e)},{up(v)}" for e, v in enumerate(values, 1)), values[-1]
            )
            for name, values in curves.items()
        ),
        across=tuple((across(epoch), str(epoch)) for epoch in epochs),
        up=tuple((up(top * part), f"{top * part:.2f}") for part in (0, 0.25, 0.5, 0.75, 1)),
    )


# How to repeat it


def _train_commands(config: RunConfig, manifest: Manifest | None, n_epochs: int) -> Iterable[str]:
    in_place = manifest is not None and manifest.root == manifest.source
    if manifest and manifest.seed is not None and not in_place:
        parts = ["--val", manifest.val, "--test", manifest.test, "--seed", manifest.seed]
        how = _as_read(manifest)
        yield _command("split", manifest.source, *parts, *how, "--out", manifest.root)
    name, *variants = config.recipe.name.split("+")
    if name not in RECIPES or not VARIANTS.keys() >= {*variants}:
        return  # a recipe of one's own, or of another version
    options: list[object] = ["--recipe", name]
    for variant in variants:
        options += ["--variant", variant]
    ours = hyperparameter_values(config.recipe)
    for constant in differing_hyperparameters(
        build_recipe(RECIPES[name], variants, ()), config.recipe
    ):
        options += ["--set", f"{constant}={format_value(ours[constant])}"]
    if config.weights:
        options += ["--weights", config.weights]
    if manifest and in_place:
        options += _as_read(manifest)
    yield _command(
        "train", Path(config.data), *options, "--seed", config.seed, "--precision", config.precision
    )
    if n_epochs > config.recipe.epochs:  # asked for when it was resumed
        yield _command("train", "--resume", "runs/latest", "--epochs", n_epochs)


def _as_read(manifest: Manifest) -> list[str]:
    """Return the options by which the images were read as they were."""
    if any(file.record for file in manifest.files):
        return ["--prepare"]
    return [] if any(file.sha256 for file in manifest.files) else ["--no-check"]


def _evaluate_command(report: EvaluationReport) -> str:
    split = ["--split", report.split] if report.split != "all" else []
    models = [part for member in report.members for part in ("--model", member.path)]
    ten = ["--ten-crop"] if report.ten_crop else []
    return _command("evaluate", Path(report.data), *split, *models, *ten, "--report", "report.html")


def _command(*words: object) -> str:
    return shlex.join(["alexnet", *(str(_near(w) if isinstance(w, Path) else w) for w in words)])


def _near(path: Path) -> Path:
    """Name a path as one types it: from here, if it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
