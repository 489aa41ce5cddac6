"""Load trained models; predict, evaluate and export with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from alexnet_cli.api.arguments import (
    Count,
    Positive,
    Probability,
    as_list,
    as_new_file,
    as_path,
    check_argument,
    path_errors,
)
from alexnet_cli.api.evaluations import Report
from alexnet_cli.data.images import Float32Array, from_memory
from alexnet_cli.data.manifest import ImageFile, Rejected
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.inference import heatmaps, prediction
from alexnet_cli.inference.results import ExportReport, Prediction
from alexnet_cli.runs.folds import find_folds
from alexnet_cli.runs.models import LoadedModel, load_model, require_same_classes
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.system.workers import Progress

if TYPE_CHECKING:
    import keras

# A file, a folder of images, a PIL image, or uint8 pixels (height, width, 3) or (height, width).
ImageInput = str | Path | Image.Image | np.ndarray


class Model:
    """A trained model, or several whose probabilities are averaged; loaded once."""

    def __init__(self, models: Sequence[LoadedModel], *, folds: bool = False) -> None:
        """Take loaded models, perhaps the `folds` of one cross-validation; use `load` to read them."""
        self._models, self._folds = list(models), folds

    def __repr__(self) -> str:
        """Return the call that loads this model."""
        paths = [str(path) for path in self.paths]
        return f"load({paths[0]!r})" if len(paths) == 1 else f"load({paths!r})"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The run folder or Caffe file of every model."""
        return tuple(model.path for model in self._models)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return self._models[0].classes

    @property
    def keras(self) -> keras.Model:
        """The Keras model: centered crops, float32 (batch, size, size, 3), to logits."""
        return self._only("keras").keras_network.model

    def predict(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        top: int = 5,
        ten_crop: bool = False,
        threshold: float = 0.0,
        neighbors: int = 0,
    ) -> list[Prediction]:
        """Return a prediction for each image, in order.

        Args:
            images: a file, a folder, a PIL image, uint8 pixels (height, width, 3), or a list.
            top: the number of classes in each prediction, the most likely first.
            ten_crop: average ten crops of each image, as the paper does.
            threshold: predictions with a lower top probability, 0 to 1, are `below_threshold`.
            neighbors: the number of nearest training images in each prediction; one model only.

        Raises `AlexNetError` for an image that can't be read.
        """
        _check_prediction(top, threshold, neighbors)
        found = prediction.predict(
            self._models,
            _sources(images),
            top=top,
            ten_crop=ten_crop,
            threshold=threshold,
            neighbors=neighbors,
        )
        return [_require_read(outcome) for outcome in found]

    @path_errors()
    def predict_files(
        self,
        paths: Sequence[str | Path],
        *,
        top: int = 5,
        ten_crop: bool = False,
        threshold: float = 0.0,
        neighbors: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Prediction | Rejected]:
        """Yield a prediction for each image file in `paths`, files or folders, when it is ready.

        A file that can't be read is yielded as `Rejected`, with the reason. `progress` is called
        with (done, total) training images for `neighbors`. The other arguments are those of `predict`.
        """
        _check_prediction(top, threshold, neighbors)
        return prediction.predict(
            self._models,
            prediction.list_images([as_path("paths", path) for path in as_list("paths", paths)]),
            top=top,
            ten_crop=ten_crop,
            threshold=threshold,
            neighbors=neighbors,
            progress=progress,
        )

    def probabilities(
        self, images: ImageInput | Sequence[ImageInput], *, ten_crop: bool = False
    ) -> Float32Array:
        """Return the probability of every class: float32, (images, classes), rows sum to 1."""
        return prediction.probabilities(self._models, _readable(images), ten_crop=ten_crop)

    def features(self, images: ImageInput | Sequence[ImageInput]) -> Float32Array:
        """Return the outputs of fc7 for the center crops: float32, (images, units); one model only."""
        return prediction.features(self._only("features"), _readable(images))

    def heatmap(self, image: ImageInput, *, label: str | None = None) -> Float32Array:
        """Return where in the center crop the evidence for a class lies: float32, (size, size).

        Each value is to first order by how much the log-odds of the class would fall if this part of
        the crop had the mean color (in nats, positive for the class, negative against it): gradient
        × input, blurred. `label` is the class, by default the likeliest. One model only.
        """
        return self._heatmap(image, label).evidence

    @path_errors()
    def draw_heatmap(
        self, image: ImageInput | ImageFile, path: str | Path, *, label: str | None = None
    ) -> Path:
        """Draw `heatmap` over the center crop, as PNG to `path`; returns its path."""
        path = as_new_file("path", path)
        from alexnet_cli.reports import heatmap_pictures

        heatmap_pictures.write(self._heatmap(image, label), path)
        return path

    def _heatmap(self, image: ImageInput | ImageFile, label: str | None) -> heatmaps.Heatmap:
        check_argument("label", label, str | None)
        model = self._only("heatmap")
        found = [image] if isinstance(image, ImageFile) else _readable(image)
        if len(found) != 1:
            raise UsageError(f"must be one image, not {len(found)}", argument="image")
        return heatmaps.compute(model, found[0], label)

    @path_errors()
    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        split: str | None = None,
        ten_crop: bool = False,
        threshold: float | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Return scores, scores by class and the confusion matrix on a folder of images.

        The model of a cross-validation judges each of its own images by the fold that was not trained
        on it, and other images by the mean of its folds.

        Args:
            data: a split, or a folder of class folders; by default the data of the training.
            split: "train", "val" or "test"; by default "test" where there is one, else "val".
            ten_crop: also score the mean of ten crops, as the paper does.
            threshold: also report the accuracy without predictions below this probability.
            progress: called with (done, total) images.
        """
        check_argument("threshold", threshold, Probability | None)
        data = None if data is None else as_path("data", data)
        from alexnet_cli.inference import evaluation

        found = evaluation.evaluate(
            self._models,
            data,
            split=split,
            ten_crop=ten_crop,
            threshold=threshold,
            folds=self._folds,
            progress=progress,
        )
        return Report(found, self._models)

    @path_errors()
    def export(
        self,
        format: str = "litert",
        out: str | Path | None = None,
        *,
        quantize: str | None = None,
        license: str = "not stated",
        force: bool = False,
    ) -> ExportReport:
        """Export the network for other programs, and check its predictions.

        Args:
            format: "litert", "onnx" or "savedmodel".
            out: the file or folder to write; by default in the run folder.
            quantize: "float16" or "int8" for smaller weights; litert only.
            license: the terms of use, written into the export.
            force: replace an earlier export.

        Raises `AlexNetError` and writes nothing if the predictions differ. One model only.
        """
        for name, value in (("format", format), ("license", license)):
            check_argument(name, value, str)
        check_argument("quantize", quantize, str | None)
        out = None if out is None else as_path("out", out)
        model = self._only("export")
        tensorflow_startup.load_tensorflow()
        from alexnet_cli.inference import exporting

        return exporting.export(
            model,
            format,
            out,
            quantize=quantize,
            license=license,
            force=force,
        )

    @path_errors()
    def draw_neighbors(self, predictions: Sequence[Prediction]) -> Path:
        """Draw images with their nearest training images; returns the path of the figure."""
        if not predictions:
            raise UsageError("must not be empty", argument="predictions", value=predictions)
        from alexnet_cli.reports import paper_figures

        return paper_figures.draw_nearest(predictions, self._only("draw_neighbors"))

    def _only(self, what: str) -> LoadedModel:
        if len(self._models) > 1:
            raise UsageError(
                f"{what}: works with a single model only, not with {len(self._models)}"
            )
        return self._models[0]


@path_errors()
def load(
    path: str | Path | Sequence[str | Path] | None = None, *, moved_data: str | Path | None = None
) -> Model:
    """Load a trained model: a run folder (default: the newest run) or Caffe's bvlc_alexnet.npy.

    For a list of several, probabilities are averaged; the folder of a cross-validation stands for
    its folds. `moved_data` is the folder in which the images of the runs are now, if they have
    moved since; it is checked, and remembered in each run. Raises `AlexNetError` if a model can't
    be loaded, if the classes of the models differ, or if `moved_data` holds other images.
    """
    paths = [path] if path is None or isinstance(path, str | Path) else as_list("path", path)
    if not paths:
        raise UsageError("the list is empty", argument="path")
    folder = None if moved_data is None else as_path("moved_data", moved_data)
    found = [None if one is None else as_path("path", one) for one in paths]
    folds = [find_folds(one) if one else None for one in found]
    runs = [run for one, several in zip(found, folds) for run in several or (one,)]
    models = [load_model(run, moved_data=folder) for run in runs]
    require_same_classes(models)
    return Model(models, folds=len(found) == 1 and bool(folds[0]))


def _check_prediction(top: int, threshold: float, neighbors: int) -> None:
    check_argument("top", top, Positive)
    check_argument("threshold", threshold, Probability)
    check_argument("neighbors", neighbors, Count)


@path_errors()
def _sources(images: Any) -> list[prediction.Source | Rejected]:
    many = images if isinstance(images, Sequence) and not isinstance(images, str) else None
    found: list[prediction.Source | Rejected] = []
    for image in [images] if many is None else many:
        if isinstance(image, str | Path):
            found += prediction.list_images([as_path("images", image)])
        else:
            found.append(from_memory(image))
    return found


def _readable(images: Any) -> list[prediction.Source]:
    """Return the sources of `images`; raises `AlexNetError` for a subfolder that can't be read."""
    return [_require_read(source) for source in _sources(images)]


def _require_read(outcome: Any) -> Any:
    """Return `outcome`, or raise `AlexNetError` if it is `Rejected`."""
    if isinstance(outcome, Rejected):
        raise AlexNetError(f"{outcome.path}: {outcome.reason}")
    return outcome
