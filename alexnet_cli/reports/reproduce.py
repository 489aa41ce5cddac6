"""The commands that reproduce a run and its evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from alexnet_cli.data.manifest import SPLITS, Manifest
from alexnet_cli.inference.results import FOLDS, EvaluationReport
from alexnet_cli.recipes.hyperparameters import (
    differing_hyperparameters,
    format_value,
    hyperparameter_values,
)
from alexnet_cli.recipes.presets import RECIPES
from alexnet_cli.recipes.variants import VARIANTS, build_recipe
from alexnet_cli.runs.config import RunConfig


def train_commands(
    config: RunConfig, manifest: Manifest, n_epochs: int, folds: int = 0
) -> Iterator[str]:
    """Yield the commands that repeat the split of `manifest` and the training of `config`.

    `n_epochs` is the number of epochs that were planned last, `folds` of a cross-validation or 0.
    For a recipe that this version does not have, no training command is yielded.
    """
    planned = manifest.seed is not None
    if (planned or manifest.image_list) and not manifest.in_place:
        parts = ["--val", manifest.val, "--test", manifest.test, "--seed", manifest.seed]
        how = [
            *(["--group", manifest.group] if manifest.group else []),
            *_reading_options(manifest),
        ]
        source = manifest.image_list or manifest.source
        yield _command("split", source, *parts * planned, *how, "--out", manifest.root)
    name, *variants = config.recipe.name.split("+")
    if name not in RECIPES or not VARIANTS.keys() >= {*variants}:
        return  # a user's own recipe, or one of another version
    options: list[object] = ["--folds", folds] if folds else []
    options += ["--recipe", name]
    for variant in variants:
        options += ["--variant", variant]
    ours = hyperparameter_values(config.recipe)
    base = build_recipe(RECIPES[name], variants, ())
    for changed in differing_hyperparameters(base, config.recipe):
        options += ["--set", f"{changed}={format_value(ours[changed])}"]
    if config.initial_weights:
        options += ["--weights", config.initial_weights]
    if manifest.in_place:
        options += _reading_options(manifest)
    options += ["--seed", config.seed, "--precision", config.precision]
    yield _command("crossval" if folds else "train", manifest.data, *options)
    if n_epochs > config.recipe.epochs:  # extended when it was resumed
        yield _command("train", "--resume", "runs/latest", "--epochs", n_epochs)


def _reading_options(manifest: Manifest) -> list[str]:
    """Return the options with which the images were read."""
    if any(file.record for file in manifest.files):
        return ["--prepare"]
    return [] if any(file.sha256 for file in manifest.files) else ["--no-check"]


def evaluate_command(report: EvaluationReport) -> str:
    """Return the command that repeats the evaluation `report` and writes its HTML report."""
    split = ["--split", report.split] if report.split in SPLITS else []
    paths = dict.fromkeys(
        member.path.parent if report.split == FOLDS else member.path for member in report.members
    )
    models = [part for path in paths for part in ("--model", path)]
    ten = ["--ten-crop"] if report.ten_crop else []
    return _command("evaluate", Path(report.data), *split, *models, *ten, "--report", "report.html")


def _command(*words: object) -> str:
    return shlex.join(
        ["alexnet", *(str(relative_path(w) if isinstance(w, Path) else w) for w in words)]
    )


def relative_path(path: Path) -> Path:
    """Return `path` relative to the current folder if it is inside, else unchanged."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
