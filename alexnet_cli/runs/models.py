"""Load trained models; average the predictions of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Image

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array, UInt8Array, resize
from alexnet_cli.data.manifest import ImageFile, Manifest
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.network import caffe_weights
from alexnet_cli.network.classifier import Classifier
from alexnet_cli.network.crop_batches import BATCH_CROPS, group_crops
from alexnet_cli.network.numpy_network import NumPyNetwork
from alexnet_cli.network.weight_shapes import checked_array, weight_shapes
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import CAFFE
from alexnet_cli.runs.config import RunConfig
from alexnet_cli.runs.run_folder import BEST, RunFolder
from alexnet_cli.runs.weights_file import Arrays
from alexnet_cli.system import strict_json, tensorflow_startup
from alexnet_cli.system.atomic_files import open_file

if TYPE_CHECKING:
    from alexnet_cli.network.keras_network import KerasNetwork

# Up to this many crops, NumPy is faster than starting TensorFlow.
FEW_CROPS = 200


@dataclass(frozen=True)
class LoadedModel:
    """Checked weights, with the recipe, the classes and the statistics they need."""

    path: Path  # a run folder, or Caffe's file
    recipe: Recipe
    classes: tuple[str, ...]
    weights: Arrays  # those of the last layer over `temperature`
    statistics: Statistics
    run: RunFolder | None = None
    temperature: float = 1.0

    @property
    def config(self) -> RunConfig | None:
        """The configuration of the run; None for Caffe's file."""
        return self.run.config if self.run else None

    @cached_property
    def epoch(self) -> int | None:
        """The epoch of the weights; None for Caffe's file."""
        return self.run.best_epoch() if self.run else None

    @property
    def trained_on(self) -> Manifest | None:
        """The images of the run; None for Caffe's file."""
        return self.run.manifest if self.run else None

    def network(self, n_crops: int | None = None) -> Classifier:
        """Return the network in NumPy for at most `FEW_CROPS` crops, else in Keras."""
        if n_crops is not None and n_crops <= FEW_CROPS:
            return self.numpy_network
        return self.keras_network

    @cached_property
    def numpy_network(self) -> NumPyNetwork:
        """The network in NumPy; it needs no TensorFlow."""
        return NumPyNetwork(self.recipe, self.statistics, self.weights)

    @cached_property
    def keras_network(self) -> KerasNetwork:
        """The network in Keras; starts TensorFlow."""
        tensorflow_startup.load_tensorflow()
        from alexnet_cli.network.keras_network import KerasNetwork

        tensorflow_startup.start_devices()
        return KerasNetwork.from_arrays(
            self.recipe, len(self.classes), self.weights, self.statistics
        )


def load_model(path: Path | None = None, moved_data: Path | None = None) -> LoadedModel:
    """Load a run folder (default: the newest run) or Caffe's bvlc_alexnet.npy.

    `moved_data` is where the images of the run are now. Its best weights are scaled by its
    temperature. Raises `AlexNetError` if files are missing or damaged, if the weights do not fit
    the recipe, or if `moved_data` does not hold the images.
    """
    if path is not None and path.suffix == ".npy":
        if moved_data:
            reason = f"{path} does not record its images"
            raise UsageError(reason, argument="moved_data", value=str(moved_data))
        return load_caffe(path)
    run = RunFolder.find(path)
    if moved_data:
        run.move_data(moved_data)
    recipe, classes, arrays = run.config.recipe, run.config.classes, run.weights(BEST)
    _require_weights(run.path / BEST, recipe, len(classes), arrays)
    temperature = run.temperature
    if temperature != 1:  # in the weights, so that every network and every export applies it
        names = [f"{recipe.last_layer}/{part}" for part in ("kernel", "bias")]
        arrays |= {name: arrays[name] / np.float32(temperature) for name in names}
    return LoadedModel(run.path, recipe, classes, arrays, run.statistics, run, temperature)


def load_caffe(path: Path, recipe: Recipe = CAFFE) -> LoadedModel:
    """Load Caffe's weights, with the class names from a .txt file beside it, if any."""
    arrays = caffe_weights.read_caffe(path, recipe)
    n_classes = arrays[f"{recipe.last_layer}/bias"].size
    if not n_classes:
        raise AlexNetError(f"{path}: {recipe.last_layer} has no units, one for each class")
    _require_weights(path, recipe, n_classes, arrays)
    recipe = replace(recipe, mean="channel")
    statistics = caffe_weights.caffe_statistics(recipe)
    return LoadedModel(path, recipe, _caffe_classes(path, n_classes), arrays, statistics)


def _caffe_classes(path: Path, n_classes: int) -> tuple[str, ...]:
    names = path.with_suffix(".txt")
    if not names.exists():
        return tuple(f"class {number}" for number in range(n_classes))
    try:
        with open_file(names, strict_json.MOST_BYTES, links=True) as file:
            classes = tuple(file.read().decode().splitlines())
    except (OSError, ValueError) as error:
        raise AlexNetError(f"{names}: can't be read: {error}") from None
    if len(classes) != n_classes:
        raise AlexNetError(f"{names}: {len(classes)} names for {n_classes} classes")
    distinct = _tell_apart(classes)
    if len(set(distinct)) < n_classes:
        raise AlexNetError(
            f"{names}: two classes have the same name. Begin each line with its synset"
        )
    return distinct


def _tell_apart(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, those of several classes with the number of the class: `crane (134)`.

    ImageNet has two classes crane, the bird and the machine, and two maillot.
    """
    count = Counter(classes)
    return tuple(
        f"{name} ({number})" if count[name] > 1 else name for number, name in enumerate(classes)
    )


def _require_weights(path: Path, recipe: Recipe, n_classes: int, arrays: Arrays) -> None:
    try:
        for name, shape in weight_shapes(recipe, n_classes).items():
            checked_array(arrays, name, shape)
    except ValueError as error:
        raise AlexNetError(f"{path}: {error}") from None


def require_same_classes(models: Sequence[LoadedModel]) -> None:
    """Raise `AlexNetError` if the classes of the models, or their order, differ."""
    for other in models[1:]:
        if other.classes != models[0].classes:
            raise AlexNetError(
                f"{other.path}: has other classes than {models[0].path}; only models of the same "
                "classes can be averaged"
            )


class Ensemble:
    """Models whose probabilities are averaged (section 6); one model is an ensemble of one."""

    def __init__(
        self, models: Sequence[LoadedModel], *, ten_crop: bool = False, n_images: int | None = None
    ) -> None:
        """Prepare for images with one crop or ten crops each; `n_images` is their number, if known.

        Raises `AlexNetError` if the classes of the models differ.
        """
        require_same_classes(models)
        self.models, self.classes = list(models), models[0].classes
        n_crops = (10 if ten_crop else 1) * len(self.models)
        total = None if n_images is None else n_images * n_crops
        self._networks = [model.network(total) for model in self.models]
        self._croppers = [
            Cropper(model.recipe, model.statistics, ten=ten_crop) for model in self.models
        ]
        self.prefetch = BATCH_CROPS // n_crops + 1  # images to decode while a batch is computed

    def load(self, source: ImageFile | Image) -> list[Float32Array]:
        """Return for each model the crops of an image: (crops, size, size, 3).

        Models with the same image size share the decoded image. Raises `ImageError`.
        """
        decoded: dict[tuple[int, bool], UInt8Array] = {}
        crops = []
        for model, cropper in zip(self.models, self._croppers):
            kind = (model.recipe.resize_size, model.recipe.stretch)
            if kind not in decoded:
                decoded[kind] = _decode(source, model.recipe)
            crops.append(cropper(decoded[kind]))
        return crops

    def probabilities(self, images: Iterable[list[Float32Array]]) -> Iterator[Float32Array]:
        """Yield for each image, as `load` returns it, float32 of shape (models, crops, classes).

        Raises `AlexNetError` if weights are so large that the probabilities of a model are NaN.
        """
        for batch in group_crops(images, lambda image: len(image[0])):
            by_model = [
                network.probabilities([image[number] for image in batch])
                for number, network in enumerate(self._networks)
            ]
            for outputs in zip(*by_model):
                for model, found in zip(self.models, outputs):
                    if not np.isfinite(found).all():
                        reason = "its weights are so large that its probabilities are NaN"
                        raise AlexNetError(f"{model.path}: {reason}. Train another network")
                yield np.stack(outputs)


def _decode(source: ImageFile | Image, recipe: Recipe) -> UInt8Array:
    if isinstance(source, ImageFile):
        return load_image(source, recipe)
    return resize(source, recipe.resize_size, stretch=recipe.stretch)
