"""Trained models ready for use, one or several that are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_cli.data.images import UInt8Array
from alexnet_cli.data.manifest import ImageFile, Manifest
from alexnet_cli.data.store import Float32Array, Statistics, load_image
from alexnet_cli.errors import AlexNetError
from alexnet_cli.network import caffe_weights, shapes
from alexnet_cli.network.numpy_network import NumPyNetwork
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import CAFFE
from alexnet_cli.runs.run_folder import RunConfig, RunFolder
from alexnet_cli.runs.weights_file import Arrays
from alexnet_cli.system import strict_json, tensorflow_startup
from alexnet_cli.system.atomic_files import open_file
from alexnet_cli.system.workers import BATCH_CROPS, group_crops

if TYPE_CHECKING:
    from alexnet_cli.network.keras_network import KerasNetwork

FEW = 200  # crops, up to which NumPy is done before TensorFlow has begun


@dataclass(frozen=True)
class Member:
    """One model of an ensemble: its network and where it comes from."""

    path: Path
    network: Any  # a `KerasNetwork` in TensorFlow, or a `NumPyNetwork`
    classes: tuple[str, ...]
    config: RunConfig | None = None  # of a run

    @cached_property
    def epoch(self) -> int | None:
        """Which epoch the weights are from, if known."""
        return RunFolder(self.path).best_epoch() if self.config else None

    @cached_property
    def trained_on(self) -> Manifest | None:
        """Read which images it was trained on, if known."""
        return RunFolder(self.path).manifest(self.classes) if self.config else None


class Ensemble:
    """Models whose softmax outputs are averaged (section 6); one model is an ensemble of one."""

    def __init__(
        self, models: Sequence[Path] | None, *, ten_crop: bool = False, n_images: int | None = None
    ) -> None:
        """Load run folders or Caffe's weights; by default the newest run.

        For a few images, if it is known that there will be no more, NumPy computes. Raises
        `AlexNetError` if a model can't be read, or if their classes differ.
        """
        found = models or [RunFolder.find(None).path]
        n_crops = 10 if ten_crop else 1
        few = n_images is not None and n_images * n_crops * len(found) <= FEW
        self.members = [load_member(path, few=few) for path in found]
        self.classes = self.members[0].classes
        for member in self.members[1:]:
            if member.classes != self.classes:
                first = self.members[0].path
                raise AlexNetError(f"{member.path}: has other classes than {first}; no ensemble")
        self._croppers = [m.network.cropper(ten_crop=ten_crop) for m in self.members]
        # Images to decode while a batch is computed.
        self.ahead = BATCH_CROPS // n_crops // len(self.members) + 1

    def load(self, file: ImageFile) -> list[Float32Array]:
        """Read one image into crops (k, size, size, 3) for each member, decoding no more than needed.

        Raises `BadFile`.
        """
        stored: dict[tuple[int, bool], UInt8Array] = {}
        crops = []
        for cropper in self._croppers:
            form = (cropper.recipe.resize_size, cropper.recipe.stretch)
            if form not in stored:
                stored[form] = load_image(file, cropper.recipe)
            crops.append(cropper(stored[form]))
        return crops

    def probabilities(self, images: Iterable[list[Float32Array]]) -> Iterator[Float32Array]:
        """Yield for each image, as `load` gives it, the outputs (members, k, classes)."""
        for batch in group_crops(images, lambda image: len(image[0])):
            by_member = [
                member.network.run([image[number] for image in batch])
                for number, member in enumerate(self.members)
            ]
            for outputs in zip(*by_member):
                yield np.stack(outputs)


def load_member(path: Path, weights: str = "best", *, few: bool = False) -> Member:
    """Load a run folder, its `best` or `last` weights, or Caffe's: for a `few` images in NumPy."""
    if path.suffix == ".npy":
        return load_caffe(path, few=few)
    run = RunFolder.find(path)
    config = run.config()
    file = run.path / f"{weights}.npz"
    arrays, statistics = run.weights(file.name, config), run.statistics(config.recipe)
    network = _network(file, config.recipe, len(config.classes), arrays, statistics, few)
    return Member(run.path, network, config.classes, config)


def load_caffe(path: Path, recipe: Recipe = CAFFE, *, few: bool = False) -> Member:
    """Load Caffe's weights; class names are the lines of a .txt file beside it, if there is one."""
    weights = caffe_weights.read_caffe(path, recipe)
    n_classes = weights[f"{recipe.last_layer}/bias"].size
    names = path.with_suffix(".txt")
    classes = tuple(f"class {number}" for number in range(n_classes))
    if names.exists():
        try:
            with open_file(names, strict_json.MOST_BYTES, links=True) as file:
                classes = tuple(file.read().decode().splitlines())
        except (OSError, ValueError) as error:
            raise AlexNetError(f"{names}: can't be read: {error}") from None
        if len(classes) != n_classes:
            raise AlexNetError(f"{names}: {len(classes)} names for {n_classes} classes")
    recipe = replace(recipe, mean="channel")
    statistics = caffe_weights.caffe_statistics(recipe)
    return Member(path, _network(path, recipe, n_classes, weights, statistics, few), classes)


def _network(
    path: Path,
    recipe: Recipe,
    n_classes: int,
    arrays: Arrays,
    statistics: Statistics,
    few: bool,
) -> KerasNetwork | NumPyNetwork:
    try:
        if few:
            for name, shape in shapes.weight_shapes(recipe, n_classes).items():
                shapes.fitting(arrays, name, shape)
            return NumPyNetwork(recipe, statistics, arrays)
        tensorflow_startup.load_tensorflow()
        from alexnet_cli.network import keras_network
        from alexnet_cli.training import devices

        devices.start()
        return keras_network.make_keras_network(recipe, n_classes, arrays, statistics)
    except ValueError as error:
        raise AlexNetError(f"{path}: {error}") from None
