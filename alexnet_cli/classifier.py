"""A trained network with all that turns an image into probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from alexnet_cli.artifacts import Arrays, RunFolder, load_arrays
from alexnet_cli.errors import AlexNetError
from alexnet_cli.model import build_alexnet
from alexnet_cli.pipeline import Cropper, Float32Array, Statistics
from alexnet_cli.recipes import Recipe

BATCH_CROPS = 128


class Classifier:
    """Crops in, probabilities out, for one network."""

    def __init__(self, model: keras.Model, recipe: Recipe, statistics: Statistics) -> None:
        """Compile the forward pass for batches of any size."""
        self.recipe, self.statistics = recipe, statistics
        crops = tf.TensorSpec((None, recipe.crop_size, recipe.crop_size, 3), tf.float32)
        self._forward = tf.function(
            lambda images: tf.nn.softmax(model(images, training=False)), input_signature=[crops]
        )

    def cropper(self, *, ten_crop: bool = False) -> Cropper:
        """Return what cuts a stored image into the crops that `probabilities` takes."""
        return Cropper(self.recipe, self.statistics, ten=ten_crop)

    def probabilities(self, images: Iterable[Float32Array]) -> Iterator[Float32Array]:
        """Yield for each image's crops (k, size, size, 3) their softmax outputs (k, classes).

        Images are taken as they come, `BATCH_CROPS` crops at a time.
        """
        batch: list[Float32Array] = []
        for crops in images:
            batch.append(crops)
            if sum(map(len, batch)) + len(crops) > BATCH_CROPS:
                yield from self._run(batch)
                batch = []
        if batch:
            yield from self._run(batch)

    def _run(self, batch: list[Float32Array]) -> list[Float32Array]:
        outputs = self._forward(tf.constant(np.concatenate(batch))).numpy()
        return np.split(outputs, np.cumsum([len(crops) for crops in batch])[:-1])


def load_classifier(run: RunFolder, weights: str = "best") -> Classifier:
    """Build the network of a run, in float32, with its `best` or `last` weights."""
    card = run.card()
    model = build_alexnet(card.recipe, len(card.classes))
    path = run.path / f"{weights}.npz"
    try:
        set_weights(model, load_arrays(path))
    except ValueError as error:
        raise AlexNetError(f"{path}: {error}") from None
    return Classifier(model, card.recipe, run.statistics())


def get_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights by name: `conv2/tower1/kernel`, `fc6/bias`, …"""
    return {variable.path: variable.numpy() for variable in model.weights}


def set_weights(model: keras.Model, arrays: Arrays) -> None:
    """Assign `arrays` by name; raises `ValueError` at the first that is missing or unfit."""
    for variable in model.weights:
        name, shape = variable.path, tuple(variable.shape)
        if name not in arrays:
            raise ValueError(f"the weights {name} are missing")
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(
                f"{name}: expected float32 {shape}. Received: {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: holds values that are not finite")
        variable.assign(array)
