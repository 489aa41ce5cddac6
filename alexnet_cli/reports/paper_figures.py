"""The paper's figures, from a run of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from alexnet_cli.data.manifest import ImageFile, Progress
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import AlexNetError, BadFile
from alexnet_cli.inference.neighbors import FeatureIndex
from alexnet_cli.inference.results import Prediction
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.reports import plots
from alexnet_cli.runs.models import Member, load_member
from alexnet_cli.runs.run_folder import RunFolder

SHOWN, QUERIES, NEIGHBORS = 8, 5, 6  # as many as in Figure 4
MOST_ROWS = 40


def draw(
    runs: Sequence[Path] | None = None, out: Path | None = None, progress: Progress | None = None
) -> list[Path]:
    """Draw Figures 3 and 4 of the first of `runs`; of several also Figure 1, which compares them.

    `runs` is by default the newest, `out` the folder `figures` in the first. Returns the pictures.
    """
    runs = [RunFolder.find(run).path for run in runs or (None,)]
    if out is None and (runs[0] / "figures").is_symlink():
        raise AlexNetError(f"{runs[0] / 'figures'}: is a link; --out says where the figures go")
    out = out or runs[0] / "figures"
    out.mkdir(parents=True, exist_ok=True)
    if len(runs) > 1:
        names = [RunFolder(run).config().recipe.name for run in runs]
        if len({*names}) < len(names):
            names = [run.resolve().name for run in runs]
        histories = [RunFolder(run).history() for run in runs]
        errors = {
            name: [1 - row.train_top1 for row in rows] for name, rows in zip(names, histories)
        }
        plots.draw_training_errors(errors, out / "training-error.png")
    member = load_member(runs[0])
    assert member.trained_on is not None  # as of every run folder
    kernels = member.network.model.get_layer("conv1").kernel.numpy()
    towers = max(conv.towers for conv in member.network.recipe.convs)
    plots.draw_kernels(kernels, towers, out / "kernels.png")
    split = "test" if member.trained_on.of("test") else "val"
    files = _spread(member.trained_on.of(split), SHOWN)
    _draw_predictions(member, files, out / "predictions.png")
    training = FeatureIndex(member, progress)
    queries = _spread(files, QUERIES)
    rows = []
    for file, features in zip(queries, member.network.features(_crops(member, queries))):
        nearest = (near.file for near in training.nearest(features, NEIGHBORS))
        rows.append((_picture(member, file), _readable(nearest, member.network.recipe)))
    plots.draw_neighbors(rows, out / "neighbors.png")
    pictures = ("training-error.png", "kernels.png", "predictions.png", "neighbors.png")
    return [out / name for name in pictures[len(runs) == 1 :]]


def draw_nearest(predictions: Sequence[Prediction], models: Sequence[Path] | None) -> Path:
    """Draw images beside the training images nearest to them; returns the picture in the run."""
    run = RunFolder.find(models[0] if models else None)
    recipe = run.config().recipe
    rows = [
        (load_image(p.file, recipe), _readable((n.file for n in p.neighbors), recipe))
        for p in predictions[:MOST_ROWS]
    ]
    plots.draw_neighbors(rows, run.path / "neighbors.png")
    return run.path / "neighbors.png"


def _spread(files: Sequence[ImageFile], count: int) -> list[ImageFile]:
    """Take `count` of `files` at equal distances, so that all classes have their turn."""
    positions = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
    return [files[position] for position in positions]


def _crops(member: Member, files: Sequence[ImageFile]) -> list[np.ndarray]:
    crop = member.network.cropper()
    return [crop(_picture(member, file)) for file in files]


def _readable(files: Iterable[ImageFile], recipe: Recipe) -> list[np.ndarray]:
    """Read what has not been damaged since fc7.npz was made."""
    pictures = []
    for file in files:
        with suppress(BadFile):
            pictures.append(load_image(file, recipe))
    return pictures


def _picture(member: Member, file: ImageFile) -> np.ndarray:
    return load_image(file, member.network.recipe)


def _draw_predictions(member: Member, files: Sequence[ImageFile], path: Path) -> None:
    outputs = member.network.probabilities(_crops(member, files))
    shown = []
    for file, (scores,) in zip(files, outputs):
        best = scores.argsort(kind="stable")[::-1][:5]
        bars = [(member.classes[index], float(scores[index])) for index in best]
        shown.append((_picture(member, file), file.label, bars))
    plots.draw_predictions(shown, path)
