"""Layers, network and update rule, compared with the formulas of the paper in NumPy."""

from __future__ import annotations

import functools
import os
from dataclasses import replace

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from helpers import TINY, batch_of

from alexnet_cli.errors import AlexNetError
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.keras_network import get_weights, set_weights
from alexnet_cli.network.layers import LocalResponseNormalization, TowerConv2D
from alexnet_cli.recipes import presets, variants
from alexnet_cli.system import tensorflow_startup
from alexnet_cli.training import devices
from alexnet_cli.training.optimizer import PaperMomentum
from alexnet_cli.training.step import balancing_weights, compile_step

RANDOM = np.random.default_rng(7)


@pytest.mark.parametrize("n_channels", [1, 3, 5, 16])
def test_lrn_is_the_formula_of_section_3_3(n_channels):
    """Oracle: the sum written out in NumPy, also where the window exceeds the channels."""
    x = RANDOM.normal(0, 300, (2, 3, 4, n_channels)).astype(np.float32)
    ours = LocalResponseNormalization(k=2.0, n=5, alpha=1e-4, beta=0.75)(x)
    np.testing.assert_allclose(ours, reference.normalize_locally(x.astype(float)), rtol=1e-5)


def test_lrn_gradient_agrees_with_finite_differences():
    """Oracle: central differences of the NumPy formula."""
    x = RANDOM.normal(0, 100, (1, 1, 1, 6))
    weights = RANDOM.normal(size=x.shape)
    layer = LocalResponseNormalization(k=2.0, n=5, alpha=1e-4, beta=0.75)
    tensor = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = tf.reduce_sum(layer(tensor) * weights)
    numeric = np.empty_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-3
        up, down = (reference.normalize_locally(x + s) for s in (step, -step))
        numeric[index] = ((up - down) * weights).sum() / 2e-3
    np.testing.assert_allclose(tape.gradient(value, tensor), numeric, rtol=1e-3)


def test_float32_is_float32_on_every_device():
    """Oracle: TensorFlow's setting for TF32, by which GPUs round to 10 bits by default."""
    tf.config.experimental.enable_tensor_float_32_execution(True)
    tensorflow_startup.start_devices.cache_clear()
    tensorflow_startup.start_devices()
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"fpu", "avx2"}, "float32"),
        (set(), "float32"),
        ({"fpu", "avx512_bf16"}, "bfloat16"),
        ({"asimd", "bf16"}, "bfloat16"),
    ],
)
def test_the_precision_of_a_cpu_depends_on_its_instructions(monkeypatch, flags, expected):
    """Oracle: the flags of instructions for bfloat16 on Linux."""
    monkeypatch.setattr(devices, "_cpu_flags", lambda: flags)
    assert devices.choose_devices(0).precision == expected


def test_lrn_refuses_an_even_window():
    with pytest.raises(ValueError, match="n=4"):
        LocalResponseNormalization(k=2.0, n=4, alpha=1e-4, beta=0.75)


def test_lrn_can_be_rebuilt_from_its_configuration():
    """Oracle: equal outputs, which also shows that get_config is complete."""
    x = RANDOM.normal(0, 200, (1, 2, 2, 7)).astype(np.float32)
    layer = LocalResponseNormalization(k=1.5, n=3, alpha=3e-3, beta=0.6)
    again = LocalResponseNormalization.from_config(layer.get_config())
    np.testing.assert_array_equal(layer(x), again(x))


def test_a_tower_sees_only_its_own_channels():
    """Oracle: Keras' own grouped convolution with the same kernels."""
    x = RANDOM.normal(size=(2, 5, 5, 6)).astype(np.float32)
    ones = [keras.initializers.RandomNormal(seed=i) for i in range(2)]
    layer = TowerConv2D(
        8, 3, 2, kernel_initializers=ones, bias_initializer=keras.initializers.Constant(0.5)
    )
    ours = layer(x)
    grouped = keras.layers.Conv2D(8, 3, padding="same", groups=2)
    grouped.build(x.shape)
    kernels = [tower.kernel.numpy() for tower in layer.towers]
    grouped.set_weights([np.concatenate(kernels, axis=-1), np.full(8, 0.5)])
    np.testing.assert_allclose(ours, grouped(x), atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "n_parameters"),
    [
        *((r, 60_965_224) for r in (presets.PAPER, presets.RELEASED, presets.CAFFE)),
        (presets.NOTEBOOK, 62_379_752),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_parameters_at_1000_classes(recipe, n_parameters):
    """Oracle: the counts of the released code, of Caffe's model and of the notebook."""
    assert build_alexnet(recipe, 1000).count_params() == n_parameters


@pytest.mark.parametrize("crop_size", [224, 227])
def test_the_edge_rule_gives_55_from_224_and_from_227(crop_size):
    """Oracle: 1 + ceil((input − 11) / 4), released code; then 27, 13 and 6 by pooling."""
    narrow = replace(TINY, crop_size=crop_size, resize_size=256)
    model = build_alexnet(narrow, 3)
    sides = [model.get_layer(name).output.shape[1] for name in ("conv1", "pool1", "pool2", "pool5")]
    assert sides == [55, 27, 13, 6]


def _random_weights(model):
    """Set weights with which no layer saturates or dies, so that every layer affects the output."""
    arrays = {}
    for variable in model.weights:
        fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 1
        scale = np.sqrt(2 / fan_in) if len(variable.shape) > 1 else 0.3
        values = RANDOM.normal(0, scale, variable.shape)
        if "variance" in variable.path or "gamma" in variable.path:
            values = np.abs(values) + 0.5
        arrays[variable.path] = values.astype(np.float32)
    return arrays


def narrowed(recipe, crop_size):
    """Return `recipe` with the widths of TINY, which is fast in NumPy."""
    convs = tuple(replace(a, filters=b.filters) for a, b in zip(recipe.convs, TINY.convs))
    dense = tuple(replace(layer, units=16) for layer in recipe.dense)
    return replace(recipe, crop_size=crop_size, convs=convs, dense=dense)


@pytest.mark.parametrize(
    ("recipe", "crop_size", "logits"),
    [
        (presets.PAPER, 64, reference.paper_logits),
        (presets.PAPER, 67, reference.paper_logits),
        (presets.RELEASED, 64, reference.released_logits),
        (presets.CAFFE, 67, reference.caffe_logits),
        (presets.NOTEBOOK, 67, reference.notebook_logits),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_forward_pass(recipe, crop_size, logits):
    """Oracle: the whole network in NumPy, float64."""
    model = build_alexnet(narrowed(recipe, crop_size), 7)
    weights = _random_weights(model)
    set_weights(model, weights)
    x = RANDOM.uniform(-120, 135, (3, crop_size, crop_size, 3)) * recipe.scale
    expected = logits(x, weights)
    tolerance = 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(model(x.astype(np.float32)), expected, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize(
    ("variant", "function", "instead"),
    [
        ("no-lrn", "normalize_locally", lambda x, **_: x),
        ("no-overlap", "pool", functools.partial(reference.pool, size=2, stride=2)),
        ("tanh", "relu", np.tanh),
    ],
)
def test_the_forward_pass_of_a_variant(monkeypatch, variant, function, instead):
    """Oracle: the paper's network in NumPy, with one of its functions replaced."""
    model = build_alexnet(variants.vary(narrowed(presets.PAPER, 64), variant), 7)
    weights = _random_weights(model)
    set_weights(model, weights)
    x = RANDOM.uniform(-120, 135, (2, 64, 64, 3))
    monkeypatch.setattr(reference, function, instead)
    expected = reference.paper_logits(x, weights)
    monkeypatch.undo()
    assert not np.allclose(expected, reference.paper_logits(x, weights), rtol=1e-2)
    tolerance = 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(model(x.astype(np.float32)), expected, rtol=1e-4, atol=tolerance)


# Kernel size, channels that a kernel sees, kernels: §3.5 by hand.
CONV1, CONV2, CONV3 = (11, 3, 96), (5, 48, 256), (3, 256, 384)
CONV4, CONV5 = (3, 192, 384), (3, 192, 256)


@pytest.mark.parametrize(
    ("variant", "inputs", "convs"),
    [
        (
            "one-tower",
            9216,
            [(11, 3, 48), (5, 48, 128), (3, 128, 192), (3, 192, 192), (3, 192, 256)],
        ),
        ("no-conv3", 9216, [CONV1, CONV2, (3, 128, 384), CONV5]),
        ("no-conv4", 9216, [CONV1, CONV2, CONV3, CONV5]),
        ("sixth-conv", 9216, [CONV1, CONV2, CONV3, CONV4, CONV5, (3, 128, 256)]),
        ("half-size", 1024, [CONV1, CONV2, CONV3, CONV4, CONV5]),
    ],
)
def test_parameters_of_a_variant(variant, inputs, convs):
    """Oracle: kernels counted by hand; the dense layers see 6×6×256, of images of half size 2×2×256."""
    expected = sum(size**2 * seen * kernels + kernels for size, seen, kernels in convs)
    expected += (inputs * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000)
    assert build_alexnet(variants.vary(presets.PAPER, variant), 1000).count_params() == expected


def test_inconsistent_sizes_are_one_error():
    with pytest.raises(AlexNetError, match="recipe paper: the feature map shrinks to nothing"):
        build_alexnet(replace(presets.PAPER, crop_size=20), 3)


def test_dropout_halves_fc6_and_fc7_in_training():
    """Oracle: a mean over 4096 units of Bernoulli(½), within five standard deviations."""
    wide = replace(TINY, dense=tuple(replace(d, units=4096) for d in TINY.dense))
    model = build_alexnet(wide, 3, seed=0)
    for number in (6, 7):
        dropped = model.get_layer(f"dropout{number}")(tf.ones((1, 4096)), training=True).numpy()
        assert set(np.unique(dropped)) == {0.0, 2.0}  # doubled in training: the test's ×½ (§4.2)
        assert abs((dropped > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(4096)


def test_initial_weights_follow_the_recipe():
    """Oracle: N(0, 0.01²), the sample's spread within five standard errors; exact biases."""
    model = build_alexnet(presets.PAPER, 10, seed=1)
    for name, values in get_weights(model).items():
        if name.endswith("kernel"):
            error = 0.01 / np.sqrt(2 * values.size)
            assert abs(values.std() - 0.01) < 5 * error, name
            assert abs(values.mean()) < 5 * 0.01 / np.sqrt(values.size), name
        else:
            hidden = name.startswith(("conv2", "conv4", "conv5", "fc6", "fc7"))
            assert np.all(values == np.float32(0.1 if hidden else 0.0)), name


def test_equal_seeds_give_equal_weights_and_layers_are_independent():
    """Oracle: bitwise equality; independent draws do not correlate."""
    one, two = (get_weights(build_alexnet(TINY, 3, seed=5)) for _ in range(2))
    other = get_weights(build_alexnet(TINY, 3, seed=6))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["conv3/kernel"], other["conv3/kernel"])
    towers = [one[f"conv4/tower{number}/kernel"].ravel() for number in (1, 2)]
    assert abs(np.corrcoef(*towers)[0, 1]) < 0.3


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_the_update_rule_is_section_5(momentum):
    """Oracle: v ← 0.9v − 0.05·ε·w − ε·g; w ← w + v, for five steps and two rates; and without momentum.

    A hundred times the paper's decay, which float32 would hardly show.
    """
    w, b = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=3)
    variables = [keras.Variable(value.astype(np.float32)) for value in (w, b)]
    optimizer = PaperMomentum(variables, momentum, weight_decay=0.05)
    vw, vb = np.zeros_like(w), np.zeros_like(b)
    for step in range(5):
        rate = 0.01 if step < 3 else 0.001
        bias_rate = 2 * rate  # as in the released code
        gw, gb = RANDOM.normal(size=w.shape), RANDOM.normal(size=b.shape)
        vw = momentum * vw - 0.05 * rate * w - rate * gw
        vb = momentum * vb - bias_rate * gb  # biases do not decay
        w, b = w + vw, b + vb
        gradients = [tf.constant(g, tf.float32) for g in (gw, gb)]
        optimizer.apply(gradients, tf.constant([rate, bias_rate], tf.float32))
    np.testing.assert_allclose(variables[0], w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variables[1], b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv3/bias"), "conv3/bias are missing"),
        (lambda w: w.update({"fc6/bias": np.zeros(17, np.float32)}), r"fc6/bias: .*\(16,\)"),
        (lambda w: w["conv1/kernel"].fill(np.nan), "conv1/kernel: contains NaN"),
    ],
)
def test_invalid_weights_are_refused_by_name(change, message):
    model = build_alexnet(TINY, 3, seed=0)
    weights = get_weights(model)
    change(weights)
    with pytest.raises(ValueError, match=message):
        set_weights(model, weights)


def _gradients(precision, batch_size):
    """Return the velocities after one step from 0 at rate 1, which are the negative gradients."""
    strategy = tf.distribute.get_strategy()
    recipe = replace(TINY, dense=tuple(replace(d, dropout=0.0) for d in TINY.dense))
    model = build_alexnet(recipe, 3, precision=precision)
    random = np.random.default_rng(1)
    for variable in model.weights:
        fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 1
        variable.assign(random.normal(0, fan_in**-0.5, variable.shape))
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer = PaperMomentum(model.trainable_variables, momentum=0.0, weight_decay=0.0)
    images = tf.constant(random.normal(0, 60, (6, 64, 64, 3)), tf.float32)
    rates, one_hot = tf.fill([len(before)], 1.0), tf.one_hot(tf.range(6) % 3, 3)
    compile_step(model, optimizer, strategy, batch_size)(batch_of(images, one_hot), rates)
    return [velocity.numpy() for velocity in optimizer.velocities]


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.3), ("float16", 0.02)])
@pytest.mark.parametrize("batch_size", [6, 60_000], ids=["usual", "tiny"])
def test_gradients_of_lower_precision_are_those_of_float32(precision, tolerance, batch_size):
    """Oracle: float32, in the norm of each variable's gradient, also where float16 would lose them.

    bfloat16 keeps 8 bits, float16 11; a rounding may also change which input a pool's maximum is.
    Without the loss's scale float16 misses all of the tiny gradients (ratio 1.2, tried).
    """
    expected = _gradients("float32", batch_size)
    try:
        found = _gradients(precision, batch_size)
    except tf.errors.AbortedError:  # TensorFlow asks oneDNN for what it sees the processor has
        if "ONEDNN_MAX_CPU_ISA" in os.environ:
            pytest.skip(f"ONEDNN_MAX_CPU_ISA takes away what {precision} needs")
        raise
    for one, other in zip(expected, found):
        assert np.linalg.norm(one - other) < tolerance * np.linalg.norm(one)


@pytest.mark.parametrize("batch_size", [5, 32], ids=["full", "last"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_smoothed_targets(smoothing, batch_size):
    """Oracle: −Σ q log p in NumPy, q being 1 − ε for the true class and ε/3 more for each.

    Its gradient by the last biases is Σ (p − q), of the images that count, over the size of a full
    batch: in the last one, with 5 of 32 images, each of them pulls no harder than elsewhere.
    """
    strategy = tf.distribute.get_strategy()
    model = build_alexnet(TINY, 3)
    biases = np.array([0.3, -1.0, 0.2], np.float32)
    model.get_layer("fc8").bias.assign(biases)  # all other weights are 0: these are the logits
    optimizer = PaperMomentum(model.trainable_variables, momentum=0.0, weight_decay=0.0)
    step = compile_step(model, optimizer, strategy, batch_size, smoothing)
    one_hot = tf.one_hot([0, 2, 2, 1, -1], 3)  # -1 gives a row of zeros
    rates = tf.ones(len(model.trainable_variables))
    n, losses, hits = step(batch_of(tf.zeros((5, 64, 64, 3)), one_hot), rates)
    log_p = biases - np.log(np.exp(biases).sum())
    targets = (1 - smoothing) * np.eye(3)[[0, 2, 2, 1]] + smoothing / 3
    assert float(losses) == pytest.approx(-(targets * log_p).sum(), rel=1e-5)
    assert (int(n), int(hits)) == (4, 1)
    gradient = (np.exp(log_p) - targets).sum(axis=0) / batch_size
    np.testing.assert_allclose(optimizer.velocities[-1].numpy(), -gradient, atol=1e-6)


@pytest.mark.parametrize(
    "shares", [np.eye(3)[[0, 0, 0, 1, 2]], np.vstack([[0.75, 0, 0.25], np.eye(3)[[0, 0, 1, 2]]])]
)
def test_balanced_classes_have_equal_gradients(shares):
    """Oracle: the gradient of fc8's bias in NumPy; with all weights 0, p is 1/3 for each class.

    An image with shares q pulls by Σ wq · p − wq. Three images of class 0, one of class 1 and one of
    class 2: the pulls of the classes are equal. One mixed of two classes has a part in both.
    """
    strategy = tf.distribute.get_strategy()
    model = build_alexnet(TINY, 3)
    optimizer = PaperMomentum(model.trainable_variables, momentum=0.0, weight_decay=0.0)
    weights = balancing_weights(np.array([3, 1, 1]))
    np.testing.assert_allclose(weights, [5 / 9, 5 / 3, 5 / 3], rtol=1e-6)
    step = compile_step(model, optimizer, strategy, 5, 0.0, weights)
    targets, rates = tf.constant(shares, tf.float32), tf.ones(len(model.trainable_variables))
    _, losses, _ = step(batch_of(tf.zeros((5, 64, 64, 3)), targets), rates)
    weighted = shares * weights
    pulls = weighted.sum(axis=1, keepdims=True) / 3 - weighted
    np.testing.assert_allclose(optimizer.velocities[-1].numpy(), -pulls.sum(axis=0) / 5, atol=1e-6)
    assert float(losses) == pytest.approx(
        5 * np.log(3), rel=1e-6
    )  # the reported loss is not weighted
