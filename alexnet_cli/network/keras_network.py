"""A trained network in Keras, for any number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.weight_shapes import checked_array
from alexnet_cli.recipes.hyperparameters import Recipe

Arrays = Mapping[str, npt.NDArray[Any]]


class KerasNetwork:
    """A `Classifier` in Keras; `model` may be trained further while it is used."""

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        statistics: Statistics,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Take a model; the forward pass is compiled on first use, for batches of any size.

        They are divided among the devices of this machine in `strategy`, in whose scope `model` was
        built; by default TensorFlow's first device takes all.
        """
        self.model, self.recipe, self.statistics = model, recipe, statistics
        self._strategy = strategy

    @classmethod
    def from_arrays(
        cls,
        recipe: Recipe,
        n_classes: int,
        arrays: Arrays,
        statistics: Statistics,
        strategy: tf.distribute.Strategy | None = None,
    ) -> KerasNetwork:
        """Build the network of `recipe` in float32 with the weights `arrays`.

        Raises `ValueError` for weights that are missing or of another shape or dtype.
        """
        with (strategy or tf.distribute.get_strategy()).scope():
            model = build_alexnet(recipe, n_classes)
        set_weights(model, arrays)
        return cls(model, recipe, statistics, strategy)

    def _compile(self, function: Any) -> Any:
        """Return `function` of crops (n, size, size, 3), compiled once for all n; NumPy in and out."""
        size, strategy = self.recipe.crop_size, self._strategy
        spec = tf.TensorSpec((None, size, size, 3), tf.float32)
        places = strategy.extended.worker_devices if strategy else ()
        if strategy is None or len(places) < 2:
            compiled = tf.function(function, input_signature=[spec], autograph=False)
            one_device = (
                compiled.get_concrete_function()
            )  # else TensorFlow warns of several networks
            return lambda crops: one_device(tf.constant(crops)).numpy()
        every_device = tf.function(
            lambda parts: strategy.run(function, args=(parts,)), autograph=False
        )

        def compute(crops: Float32Array) -> Float32Array:
            parts = np.array_split(crops, len(places))
            filled = [part if len(part) else crops[:1] for part in parts]
            inputs = distribute(strategy, list(map(tf.constant, filled)))
            outputs = strategy.experimental_local_results(every_device(inputs))
            return np.concatenate([x.numpy()[: len(part)] for x, part in zip(outputs, parts)])

        return compute

    def probabilities(self, batch: Sequence[Float32Array]) -> list[Float32Array]:
        """Return for each image the softmax outputs of its crops: float32, (crops, classes)."""
        return _for_each_image(self._softmax, batch)

    def features(self, batch: Sequence[Float32Array]) -> list[Float32Array]:
        """Return for each image the outputs of the last hidden layer, fc7: (crops, units)."""
        return _for_each_image(self._last_hidden, batch)

    @cached_property
    def _softmax(self) -> Any:
        return self._compile(lambda x: tf.nn.softmax(self.model(x, training=False)))

    @cached_property
    def _last_hidden(self) -> Any:
        *_, name = self.recipe.layers()
        inner = keras.Model(self.model.input, self.model.get_layer(name).output)
        return self._compile(lambda x: inner(x, training=False))

    def gradients(
        self, batch: Sequence[Float32Array], classes: Sequence[int]
    ) -> list[Float32Array]:
        """Return for each image the gradient of the log-odds of its class, shaped like its crops."""
        crops = tf.constant(np.concatenate(batch))
        chosen = np.repeat(classes, [len(image) for image in batch])
        with tf.GradientTape() as tape:
            tape.watch(crops)
            logits = self.model(crops, training=False)
            others = tf.where(tf.one_hot(chosen, logits.shape[1]) > 0, -np.inf, logits)
            odds = tf.gather(logits, chosen, batch_dims=1) - tf.reduce_logsumexp(others, axis=1)
        return _split(tape.gradient(odds, crops).numpy(), batch)

    def weight(self, name: str) -> Float32Array:
        """Return the weights called `name`, such as `conv1/kernel`."""
        return get_weights(self.model)[name]


def _for_each_image(function: Any, batch: Sequence[Float32Array]) -> list[Float32Array]:
    """Return `function` of the crops of each image, computed for all crops at once."""
    return _split(function(np.concatenate(batch)), batch)


def _split(outputs: Float32Array, batch: Sequence[Float32Array]) -> list[Float32Array]:
    return np.split(outputs, np.cumsum([len(crops) for crops in batch])[:-1])


def distribute(strategy: tf.distribute.Strategy, parts: Sequence[tf.Tensor]) -> Any:
    """Return a value of `strategy` whose parts on the replicas of this machine are `parts`."""
    return strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group % len(parts)]
    )


def get_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights by name: `conv2/tower1/kernel`, `fc6/bias`, …"""
    return {variable.path: variable.numpy() for variable in model.weights}


def set_weights(model: keras.Model, arrays: Arrays, skip: str = "") -> None:
    """Assign `arrays` by name, except those of the layer `skip`.

    Raises `ValueError` for the first that is missing or of another shape or dtype.
    """
    for variable in model.weights:
        if variable.path.partition("/")[0] != skip:
            assign(variable, arrays, variable.path)


def assign(variable: keras.Variable, arrays: Arrays, name: str) -> None:
    """Assign the array `name`; raises `ValueError` if it is missing or of another shape."""
    dtype = tf.as_dtype(variable.dtype).as_numpy_dtype
    variable.assign(checked_array(arrays, name, tuple(variable.shape), dtype))
