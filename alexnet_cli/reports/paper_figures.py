"""The figures of the paper, drawn from a run: kernels, predictions, neighbors, training errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array, UInt8Array
from alexnet_cli.data.manifest import MANIFEST, ImageFile, evenly_spaced
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import AlexNetError, ImageError
from alexnet_cli.inference.neighbors import FeatureIndex
from alexnet_cli.inference.results import Prediction
from alexnet_cli.network.classifier import first_kernels
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.reports import plots
from alexnet_cli.runs.models import LoadedModel, load_model
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.system.workers import Progress

SHOWN, QUERIES, NEIGHBORS = 8, 5, 6  # as many as in Figure 4
MAX_ROWS = 40


def draw(
    runs: Sequence[Path] | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
    moved_data: Path | None = None,
) -> list[Path]:
    """Draw Figures 3 and 4 for the first of `runs`, and for several runs Figure 1, a comparison.

    `runs` is by default the newest run, `out` the folder `figures` in the first run. `progress` is
    called with (done, total) training images; `moved_data` is where the images of the first run are
    now. Returns the paths of the figures.
    """
    folders = [RunFolder.find(run) for run in runs or (None,)]
    first = folders[0].path
    if out is None and (first / "figures").is_symlink():
        raise AlexNetError(f"{first / 'figures'}: is a link; choose a folder with --out")
    model = load_model(first, moved_data=moved_data)
    assert model.run is not None  # as `first` is a run folder
    manifest = model.run.images()
    files = evenly_spaced(manifest.of("test") or manifest.of("val"), SHOWN)
    if not files:
        raise AlexNetError(f"{first / MANIFEST}: lists no test or validation images to draw")
    out = out or first / "figures"
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    if len(folders) > 1:
        pictures.append(out / "training-error.png")
        draw_training_errors(folders, pictures[-1])
    pictures.append(out / "kernels.png")
    draw_kernels(model, pictures[-1])
    pictures.append(out / "predictions.png")
    draw_predictions(model, files, pictures[-1])
    pictures.append(out / "neighbors.png")
    draw_neighbors(model, evenly_spaced(files, QUERIES), pictures[-1], progress)
    return pictures


def draw_nearest(predictions: Sequence[Prediction], model: LoadedModel) -> Path:
    """Draw images, by their predicted class, with their nearest training images.

    Returns the path, in the run folder.
    """
    rows = [
        (
            load_image(p.file, model.recipe),
            p.label,
            _readable((n.file for n in p.neighbors), model.recipe),
        )
        for p in predictions[:MAX_ROWS]
        if p.file
    ]
    picture = model.path / "neighbors.png"
    plots.draw_neighbors(rows, picture, "predicted")
    return picture


def draw_training_errors(runs: Sequence[RunFolder], path: Path) -> None:
    """Draw Figure 1: the training error of every run by epoch."""
    names = [run.config.recipe.name for run in runs]
    if len({*names}) < len(names):
        names = [run.path.resolve().name for run in runs]
    histories = [run.checkpoint().history for run in runs]
    errors = {name: [1 - row.train_top1 for row in rows] for name, rows in zip(names, histories)}
    plots.draw_training_errors(errors, path)


def draw_kernels(model: LoadedModel, path: Path) -> None:
    """Draw Figure 3: the kernels of the first layer, by tower."""
    towers = max(conv.towers for conv in model.recipe.convs)
    plots.draw_kernels(first_kernels(model.numpy_network), towers, path)


def draw_predictions(model: LoadedModel, files: Sequence[ImageFile], path: Path) -> None:
    """Draw Figure 4, left: images with the probabilities of their most likely classes."""
    outputs = model.keras_network.probabilities(_crops(model, files))
    shown = []
    for file, (scores,) in zip(files, outputs):
        best = scores.argsort(kind="stable")[::-1][:5]
        bars = [(model.classes[index], float(scores[index])) for index in best]
        shown.append((load_image(file, model.recipe), file.label, bars))
    plots.draw_predictions(shown, path)


def draw_neighbors(
    model: LoadedModel, files: Sequence[ImageFile], path: Path, progress: Progress | None
) -> None:
    """Draw Figure 4, right: images with their nearest training images."""
    index, rows = FeatureIndex(model, progress), []
    for file, (features,) in zip(files, model.keras_network.features(_crops(model, files))):
        nearest = (near.file for near in index.nearest(features, NEIGHBORS))
        pixels = load_image(file, model.recipe)
        rows.append((pixels, file.label, _readable(nearest, model.recipe)))
    plots.draw_neighbors(rows, path)


def _crops(model: LoadedModel, files: Sequence[ImageFile]) -> list[Float32Array]:
    crop = Cropper(model.recipe, model.statistics)
    return [crop(load_image(file, model.recipe)) for file in files]


def _readable(files: Iterable[ImageFile], recipe: Recipe) -> list[tuple[UInt8Array, str]]:
    """Return images and classes, without files damaged since their features were computed."""
    pictures = []
    for file in files:
        with suppress(ImageError):
            pictures.append((load_image(file, recipe), file.label))
    return pictures
