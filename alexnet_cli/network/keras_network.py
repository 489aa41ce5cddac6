"""Trained networks with all that turns an image into probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.data.augment import Cropper
from alexnet_cli.data.manifest import Progress
from alexnet_cli.data.store import Float32Array, ImageStore, Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.network import caffe_weights
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.shapes import fitting
from alexnet_cli.recipes.hyperparameters import Dense, Recipe
from alexnet_cli.recipes.presets import CAFFE
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.runs.weights_file import Arrays
from alexnet_cli.system.workers import group_crops, map_in_order, skip_missing


class KerasNetwork:
    """Crops in, probabilities out, for one network."""

    def __init__(self, model: keras.Model, recipe: Recipe, statistics: Statistics) -> None:
        """Compile the forward pass for batches of any size."""
        self.model, self.recipe, self.statistics = model, recipe, statistics
        self._forward = self._compile(lambda x: tf.nn.softmax(model(x, training=False)))

    def _compile(self, function: Any) -> Any:
        size = self.recipe.crop_size
        crops = tf.TensorSpec((None, size, size, 3), tf.float32)
        return tf.function(function, input_signature=[crops], autograph=False)

    def cropper(self, *, ten_crop: bool = False) -> Cropper:
        """Return what cuts a stored image into the crops that `probabilities` takes."""
        return Cropper(self.recipe, self.statistics, ten=ten_crop)

    def probabilities(self, images: Iterable[Float32Array]) -> Iterator[Float32Array]:
        """Yield for each image's crops (k, size, size, 3) their softmax outputs (k, classes)."""
        for batch in group_crops(images, len):
            yield from self.run(batch)

    def classify(
        self, store: ImageStore, share: range | None = None, progress: Progress | None = None
    ) -> tuple[npt.NDArray[np.int64], Float32Array]:
        """Classify the center crop of every image, or of those of a `share`.

        Returns which they were, as some may be left out, and the probabilities (images, classes).
        """
        crop = self.cropper()
        indices = range(len(store)) if share is None else share
        kept: list[int] = []

        def cut(index: int) -> Float32Array | None:
            return None if (image := store.get(index)) is None else crop(image)

        crops = skip_missing(kept, indices, map_in_order(indices, cut))
        scores: Float32Array = np.empty((len(indices), self.model.output_shape[-1]), np.float32)
        for number, probabilities in enumerate(self.probabilities(crops)):
            scores[number] = probabilities[0]
            if progress:
                progress(number + 1, len(store))
        return np.array(kept, np.int64), scores[: len(kept)]

    def run(self, batch: Sequence[Float32Array]) -> list[Float32Array]:
        """Return the softmax outputs (k, classes) for each image's crops (k, size, size, 3)."""
        outputs = self._forward(tf.constant(np.concatenate(batch))).numpy()
        return np.split(outputs, np.cumsum([len(crops) for crops in batch])[:-1])

    @cached_property
    def _last_hidden(self) -> Any:
        """The network up to fc7, compiled."""
        *_, name = self.recipe.layers()
        inner = keras.Model(self.model.input, self.model.get_layer(name).output)
        return self._compile(lambda x: inner(x, training=False))

    def features(self, images: Iterable[Float32Array]) -> Iterator[Float32Array]:
        """Yield for each image's crops (1, size, size, 3) what fc7 makes of it: (units,)."""
        for batch in group_crops(images, len):
            yield from self._last_hidden(tf.constant(np.concatenate(batch))).numpy()

    def dead_units(self, images: Sequence[Float32Array]) -> dict[str, float]:
        """Return by ReLU layer the share of units (channels) that none of `images` moves.

        `images`: center crops (1, size, size, 3), at least one. Without a ReLU it is empty.
        """
        if not self._relus:
            return {}
        outputs = self._relus(np.concatenate(images), training=False)
        alive = {name: (x.numpy() > 0).any(tuple(range(x.ndim - 1))) for name, x in outputs.items()}
        return {name: float(1 - units.mean()) for name, units in alive.items()}

    @cached_property
    def _relus(self) -> keras.Model | None:
        """The network with the outputs of all its ReLUs."""
        hidden = self.recipe.layers().items()
        dense = {n for n, d in hidden if isinstance(d, Dense) and d.activation == "relu"}
        found = {
            layer.name: layer.output
            for layer in self.model.layers
            if isinstance(layer, keras.layers.ReLU) or layer.name in dense
        }
        return keras.Model(self.model.input, found) if found else None


def make_keras_network(
    recipe: Recipe, n_classes: int, arrays: Arrays, statistics: Statistics
) -> KerasNetwork:
    """Build a network, in float32, with the weights `arrays`; raises `ValueError` if they don't fit."""
    model = build_alexnet(recipe, n_classes)
    set_weights(model, arrays)
    return KerasNetwork(model, recipe, statistics)


def get_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights by name: `conv2/tower1/kernel`, `fc6/bias`, …"""
    return {variable.path: variable.numpy() for variable in model.weights}


def set_weights(model: keras.Model, arrays: Arrays, but: str = "") -> None:
    """Assign `arrays` by name, all but those of layer `but`.

    Raises `ValueError` at the first that is missing or unfit.
    """
    for variable in model.weights:
        if variable.path.partition("/")[0] != but:
            assign(variable, arrays, variable.path)


def assign(variable: keras.Variable, arrays: Arrays, name: str) -> None:
    """Give `variable` the array of that name; raises `ValueError` if it is missing or unfit."""
    dtype = tf.as_dtype(variable.dtype).as_numpy_dtype
    variable.assign(fitting(arrays, name, tuple(variable.shape), dtype))


@dataclass(frozen=True)
class Initial:
    """Weights that a training starts from, and the recipe of the network they are of."""

    path: Path
    recipe: Recipe
    arrays: Arrays

    def transfer(self, model: keras.Model, last_layer: str) -> tuple[str, ...]:
        """Give `model` all layers but the last; returns their names.

        Raises `AlexNetError` that names the first layer that does not fit.
        """
        try:
            set_weights(model, self.arrays, but=last_layer)
        except ValueError as error:
            raise AlexNetError(f"{self.path}: {error}; train the network it is of") from None
        layers = (variable.path.partition("/")[0] for variable in model.weights)
        return tuple(dict.fromkeys(name for name in layers if name != last_layer))


def read_weights(path: Path) -> Initial:
    """Read the best weights of a run folder, or Caffe's file, to start a training from."""
    if path.suffix == ".npy":
        return Initial(path, CAFFE, caffe_weights.read_caffe(path))
    run = RunFolder.find(path)
    config = run.config()
    return Initial(run.path, config.recipe, run.weights("best.npz", config))
