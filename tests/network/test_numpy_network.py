"""The network in NumPy: the same predictions as in TensorFlow, without importing it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers import predict
from PIL import Image
from reference import notebook_logits, paper_logits, released_logits, softmax

from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.network import weight_shapes
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.keras_network import KerasNetwork
from alexnet_cli.network.numpy_network import (
    NumPyNetwork,
    convolve,
    convolve_gradient,
    pool_gradient,
)
from alexnet_cli.recipes.presets import NOTEBOOK, PAPER, RECIPES, RELEASED
from alexnet_cli.recipes.variants import VARIANTS, vary
from alexnet_cli.runs import models

RANDOM = np.random.default_rng(5)
WIDTHS = (8, 12, 8, 8, 8)


def narrow(recipe):
    """Return the recipe with few kernels and units, and the same layers and windows."""
    convs = tuple(replace(c, filters=w) for c, w in zip(recipe.convs, (*WIDTHS, 8)))
    dense = tuple(replace(layer, units=16) for layer in recipe.dense)
    return replace(recipe, resize_size=72, crop_size=67, convs=convs, dense=dense)


def draw(recipe, n_classes=4):
    """Return random weights with which predictions differ between images; variances are positive."""
    weights = {}
    for name, shape in weight_shapes.weight_shapes(recipe, n_classes).items():
        fan_in = np.prod(shape[:-1]) / (1 if name.startswith("fc8") else 2)
        values = RANDOM.normal(0, fan_in**-0.5 if len(shape) > 1 else 0.1, shape)
        weights[name] = (np.exp(values) if name.endswith("variance") else values).astype(np.float32)
    return weights


def statistics(recipe):
    size = recipe.resize_size
    return Statistics(np.zeros((size, size, 3), np.float32), np.eye(3))


@pytest.mark.parametrize("name", [*RECIPES, *VARIANTS])
def test_numpy_agrees_with_tensorflow(name):
    """Oracle: the network of every recipe and variant in Keras; two batches, one of ten crops."""
    recipe = narrow(RECIPES[name] if name in RECIPES else vary(PAPER, name))
    recipe = replace(
        recipe, lrn_alpha=1000 * recipe.lrn_alpha
    )  # for a visible effect on small activations
    weights, mean = draw(recipe), statistics(recipe)
    batch = [RANDOM.normal(0, 0.3, (n, 67, 67, 3)).astype(np.float32) for n in (1, 10)]
    ours = NumPyNetwork(recipe, mean, weights).probabilities(batch)
    theirs = KerasNetwork.from_arrays(recipe, 4, weights, mean).probabilities(batch)
    for one, other in zip(ours, theirs):
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(one.sum(axis=1), 1, atol=1e-6)
    assert np.ptp(ours[1], axis=0).max() > 1e-3  # the crops of an image differ


@pytest.mark.parametrize(
    ("recipe", "logits"),
    [(PAPER, paper_logits), (RELEASED, released_logits), (NOTEBOOK, notebook_logits)],
)
def test_numpy_agrees_with_the_paper(recipe, logits):
    """Oracle: loops over windows in float64, written from the paper, the program and the notebook."""
    recipe = narrow(recipe)
    weights = draw(recipe)
    x = RANDOM.normal(0, 20, (2, 67, 67, 3)).astype(np.float32)
    (ours,) = NumPyNetwork(recipe, statistics(recipe), weights).probabilities([x])
    expected = softmax(logits(x.astype(np.float64), weights))
    np.testing.assert_allclose(ours, expected, atol=5e-5)


@pytest.mark.parametrize("name", [*RECIPES, *VARIANTS])
def test_the_shapes_of_weights_are_those_of_the_network(name):
    """Oracle: the variables of the Keras model."""
    recipe = narrow(RECIPES[name] if name in RECIPES else vary(PAPER, name))
    built = {v.path: tuple(v.shape) for v in build_alexnet(recipe, 4).weights}
    assert weight_shapes.weight_shapes(recipe, 4) == built


@pytest.mark.parametrize("name", [*RECIPES, *VARIANTS])
def test_both_networks_have_the_same_gradients(name):
    """Oracle: automatic differentiation by TensorFlow, for every recipe and variant."""
    recipe = narrow(RECIPES[name] if name in RECIPES else vary(PAPER, name))
    recipe = replace(recipe, lrn_alpha=1000 * recipe.lrn_alpha)
    weights, mean = draw(recipe), statistics(recipe)
    batch = [RANDOM.normal(0, 0.3, (n, 67, 67, 3)).astype(np.float32) for n in (1, 2)]
    ours = NumPyNetwork(recipe, mean, weights).gradients(batch, [3, 1])
    network = KerasNetwork.from_arrays(recipe, 4, weights, mean)
    for layer in network.model.layers:
        layer.fused = False  # of LRN, whose own gradient is then TensorFlow's
    theirs = network.gradients(batch, [3, 1])
    for crops, one, other in zip(batch, ours, theirs):
        assert one.shape == other.shape == crops.shape
        largest = np.abs(other).max()
        assert largest > 0
        np.testing.assert_allclose(one, other, atol=1e-4 * largest)


@pytest.mark.parametrize(
    ("recipe", "logits"),
    [(PAPER, paper_logits), (RELEASED, released_logits), (NOTEBOOK, notebook_logits)],
)
def test_the_gradient_is_that_of_the_log_odds(recipe, logits):
    """Oracle: central differences in float64 of log(p / (1 − p)) by the reference, in one direction."""
    recipe = narrow(recipe)
    weights, direction = draw(recipe), RANDOM.normal(size=(1, 67, 67, 3))
    x = RANDOM.normal(0, 20, (1, 67, 67, 3))

    def log_odds(shift):
        p = softmax(logits(x + shift * direction, weights))[0, 2]
        return np.log(p / (1 - p))

    step = 1e-5
    expected = (log_odds(step) - log_odds(-step)) / (2 * step)
    network = NumPyNetwork(recipe, statistics(recipe), weights)
    (gradient,) = network.gradients([x.astype(np.float32)], [2])
    assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (4, 1), (3, 2), (4, 3), (5, 7)])
def test_the_gradient_of_a_convolution_is_its_transpose(size, stride):
    """Oracle: ⟨convolve(x), u⟩ = ⟨x, gradient(u)⟩ for all x and u, even kernels and strides too."""
    x, kernel = RANDOM.normal(size=(2, 9, 9, 3)), RANDOM.normal(size=(size, size, 3, 5))
    y = convolve(x, kernel, stride)
    upstream = RANDOM.normal(size=y.shape)
    gradient = convolve_gradient(upstream, kernel, stride, side=9)
    assert (x * gradient).sum() == pytest.approx((y * upstream).sum(), rel=1e-4)


def test_one_of_equal_maxima_has_the_gradient():
    """Oracle: the first of each window, by hand; parts of one color have many equal maxima."""
    x = np.ones((1, 5, 5, 1), np.float32)
    upstream = np.array([[1, 2], [3, 4]], np.float32)[None, ..., None]
    gradient = pool_gradient(upstream, x, np.ones_like(upstream), size=3, stride=2)
    np.testing.assert_array_equal(gradient[0, ::2, ::2, 0], [[1, 2, 0], [3, 4, 0], [0, 0, 0]])
    assert gradient.sum() == upstream.sum()


# The command


@pytest.fixture
def mixed(tmp_path):
    """Images of several kinds: rotated by EXIF, 16-bit, transparent, gray, large."""
    pixels = RANDOM.integers(0, 256, (90, 140, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels[..., 0].astype(np.uint16) << 8).save(tmp_path / "deep.png")
    alpha = Image.fromarray(pixels).convert("RGBA")
    alpha.putalpha(Image.fromarray(pixels[..., 1]))
    alpha.save(tmp_path / "clear.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "gray.jpg")
    Image.fromarray(np.tile(pixels, (5, 4, 1))).save(tmp_path / "large.webp")
    return tmp_path


@pytest.mark.parametrize("ten_crop", [False, True])
def test_both_networks_give_the_same_predictions(trained, mixed, monkeypatch, ten_crop):
    """Oracle: the same call with TensorFlow, which FEW_CROPS = 0 enforces."""
    found = []
    for few in (10_000, 0):
        monkeypatch.setattr(models, "FEW_CROPS", few)
        found.append(predict([mixed], [trained, trained], ten_crop=ten_crop))
    assert len(found[0]) == 5
    for one, other in zip(*found):
        assert (one.file, one.classes) == (other.file, other.classes)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_a_few_images_are_classified_without_tensorflow(trained, image_folder):
    """Oracle: sys.modules of real processes; the positive control is one image more."""
    code = "import sys\nfrom alexnet_cli.runs import models\nfrom alexnet_cli.cli.app import main\n"
    code += "models.FEW_CROPS = 2\ntry: main()\nexcept SystemExit: pass\n"
    code += "print('tensorflow' in sys.modules)"
    photos = sorted((image_folder / "red").iterdir())
    for n, expected in ((2, "False"), (3, "True")):
        command = ["predict", *map(str, photos[:n]), "--model", str(trained)]
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == expected
        assert done.stdout.count("%") == 3 * n


def test_invalid_weights_are_named():
    """Oracle: the name, and the shape or value that is wrong."""
    recipe = narrow(PAPER)
    for change, complaint in (
        (lambda w: w.pop("conv2/tower2/bias"), "the weights conv2/tower2/bias are missing"),
        (
            lambda w: w.update({"fc7/kernel": w["fc7/kernel"].T[:3]}),
            r"fc7/kernel: expected float32",
        ),
        (
            lambda w: w["conv1/kernel"].__setitem__((0, 0, 0, 0), np.inf),
            "conv1/kernel: contains NaN",
        ),
    ):
        weights = draw(recipe)
        change(weights)
        with pytest.raises(AlexNetError, match=f"x: {complaint}"):
            models._require_weights("x", recipe, 4, weights)
        with pytest.raises(ValueError, match=complaint):
            KerasNetwork.from_arrays(recipe, 4, weights, statistics(recipe))
