"""Build the Keras model of a recipe."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from alexnet_cli.errors import AlexNetError
from alexnet_cli.network.batch_layers import BatchDropout, BatchNormalization
from alexnet_cli.network.layers import LocalResponseNormalization, TowerConv2D
from alexnet_cli.network.weight_shapes import post_op_name
from alexnet_cli.recipes.hyperparameters import Conv, Recipe
from alexnet_cli.recipes.structure import check_structure
from alexnet_cli.system.random_streams import random_stream

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build_alexnet(
    recipe: Recipe, n_classes: int, *, seed: int | None = None, precision: str = "float32"
) -> keras.Model:
    """Build the network of `recipe`.

    Input: float32 of shape (batch, crop_size, crop_size, 3), centered and scaled by the recipe.
    Output: float32 logits of shape (batch, n_classes).
    With a `seed`, the weights are drawn from the distributions of the recipe, the same for the same
    seed; without, they are zeros, to be replaced by loaded weights. Variables are always float32;
    `precision` is that of convolutions and matrix products. Raises `AlexNetError` if the sizes of
    the recipe are inconsistent or need too much memory.
    """
    try:
        check_structure(recipe, n_classes)
    except ValueError as error:
        raise AlexNetError(f"recipe {recipe.name}: {error}") from None
    return _Builder(recipe, n_classes, seed, precision).build()


class _Builder:
    """Builds one model; holds the recipe, the precision and the seeds of its layers."""

    def __init__(self, recipe: Recipe, n_classes: int, seed: int | None, precision: str) -> None:
        self.recipe, self.n_classes, self.seed = recipe, n_classes, seed
        self.policy = keras.DTypePolicy(POLICIES[precision])
        self.seeds = _seeds(seed or 0)

    def build(self) -> keras.Model:
        size = self.recipe.crop_size
        x = inputs = keras.Input((size, size, 3), name="images")
        for name, layer in self.recipe.layers().items():
            if isinstance(layer, Conv):
                x = self._convolution(x, layer, name)
                for number, post_op in enumerate(layer.post_ops):
                    x = self._post_op(post_op, post_op_name(name, layer, number))(x)
                continue
            if len(x.shape) > 2:
                x = keras.layers.Flatten()(x)
            x = self._dense(layer.units, layer.stddev, layer.bias, name, layer.activation)(x)
            x = BatchDropout(
                layer.dropout, seed=next(self.seeds), dtype=self.policy, name=f"dropout{name[2:]}"
            )(x)
        last = self.recipe.last_layer
        x = self._dense(self.n_classes, self.recipe.output_stddev, 0.0, last, None)(x)
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
        return keras.Model(inputs, logits, name="alexnet")

    def _convolution(self, x: keras.KerasTensor, conv: Conv, name: str) -> keras.KerasTensor:
        bias = keras.initializers.Constant(conv.bias)
        if conv.towers > 1:
            return TowerConv2D(
                conv.filters,
                conv.kernel,
                conv.towers,
                kernel_initializers=[self._kernel(conv.stddev) for _ in range(conv.towers)],
                bias_initializer=bias,
                dtype=self.policy,
                name=name,
            )(x)
        missing = -(x.shape[1] - conv.kernel) % conv.stride
        if missing:
            edge = ((0, missing), (0, missing))
            x = keras.layers.ZeroPadding2D(edge, dtype=self.policy, name=f"{name}_edge")(x)
        return keras.layers.Conv2D(
            conv.filters,
            conv.kernel,
            strides=conv.stride,
            padding="same" if conv.stride == 1 else "valid",
            kernel_initializer=self._kernel(conv.stddev),
            bias_initializer=bias,
            dtype=self.policy,
            name=name,
        )(x)

    def _post_op(self, post_op: str, name: str) -> keras.layers.Layer:
        recipe = self.recipe
        if post_op == "relu":
            return keras.layers.ReLU(dtype=self.policy, name=name)
        if post_op == "tanh":
            return keras.layers.Activation("tanh", dtype=self.policy, name=name)
        if post_op == "pool":
            return keras.layers.MaxPooling2D(
                recipe.pool_size, recipe.pool_stride, dtype=self.policy, name=name
            )
        if post_op == "lrn":
            return LocalResponseNormalization(
                recipe.lrn_k,
                recipe.lrn_n,
                recipe.lrn_alpha,
                recipe.lrn_beta,
                dtype=self.policy,
                name=name,
            )
        if post_op == "batch_norm":
            return BatchNormalization(synchronized=True, dtype=self.policy, name=name)
        raise ValueError(
            f"post_op must be relu, tanh, lrn, batch_norm or pool. Received: {post_op!r}"
        )

    def _dense(
        self, units: int, stddev: float | None, bias: float, name: str, activation: str | None
    ) -> keras.layers.Layer:
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=self._kernel(stddev),
            bias_initializer=keras.initializers.Constant(bias),
            dtype=self.policy,
            name=name,
        )

    def _kernel(self, stddev: float | None) -> keras.initializers.Initializer:
        seed = next(self.seeds)
        if self.seed is None:
            return keras.initializers.Zeros()
        if stddev is None:
            return keras.initializers.GlorotUniform(seed=seed)
        return keras.initializers.RandomNormal(stddev=stddev, seed=seed)


def _seeds(seed: int) -> Iterator[int]:
    generator = random_stream(seed, "initial weights")
    while True:
        yield int(generator.integers(2**31))
