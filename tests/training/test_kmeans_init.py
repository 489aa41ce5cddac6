"""Convolutions that start as centroids of patches: the laws that they keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import TINY, paint, run

from alexnet_cli.data import splitting
from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.statistics import compute_statistics
from alexnet_cli.data.store import ImageStore
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.keras_network import KerasNetwork, get_weights
from alexnet_cli.recipes.hyperparameters import Conv
from alexnet_cli.runs.models import load_model
from alexnet_cli.runs.weights_file import load_arrays
from alexnet_cli.training import kmeans_init, start_and_resume
from alexnet_cli.training.devices import choose_devices
from alexnet_cli.training.kmeans_init import _patches, initialize, k_means, whitening

EXAMPLES = Path(__file__).parents[2] / "examples" / "flowers"
RANDOM = np.random.default_rng(11)


@pytest.fixture(scope="module", autouse=True)
def few_patches():
    """As many as so narrow a network needs, for quickness."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmeans_init, "N_PATCHES", 5000)
        yield


def test_k_means_finds_the_middles_of_heaps_far_apart():
    """Oracle: the heaps' own means; more centroids than heaps, as Lloyd's algorithm may split one."""
    middles = np.array([[0, 0, 9], [9, 0, 0], [0, 9, 0]], np.float32)
    heaps = RANDOM.normal(0, 0.01, (3, 200, 3)).astype(np.float32) + middles[:, None]
    points = RANDOM.permutation(heaps.reshape(600, 3))
    found = k_means(points, 12, np.random.default_rng(0))
    assert found.shape == (12, 3)
    distances = np.linalg.norm(found[:, None] - heaps.mean(axis=1), axis=2)
    assert distances.min(axis=1).max() < 0.05  # each centroid lies in a heap
    assert distances.min(axis=0).max() < 0.05  # each heap has one


def test_k_means_needs_no_more_points_than_there_are():
    """Oracle: two points, of which every centroid must be one."""
    points = np.array([[1, 0], [0, 1]], np.float32)
    found = k_means(points, 7, np.random.default_rng(0))
    assert {tuple(row) for row in found} == {(1, 0), (0, 1)}


def test_whitened_patches_are_uncorrelated():
    """Oracle: the covariance; a variance v becomes v / (v + a tenth of the mean), by hand."""
    scales = np.array([5.0, 4.0, 3.0, 2.0])
    axes, _ = np.linalg.qr(RANDOM.normal(size=(4, 4)))
    patches = RANDOM.normal(size=(50_000, 4)) @ np.diag(scales) @ axes
    patches -= patches.mean(axis=0)
    white = patches @ whitening(patches)
    kept = scales[: white.shape[1]] ** 2
    assert white.shape[1] == 4  # 25 + 16 + 9 of 54 are 0.926, below 0.99
    expected = np.diag(kept / (kept + 0.1 * kept.mean()))
    np.testing.assert_allclose(white.T @ white / len(white), expected, atol=0.02)


def test_whitening_leaves_out_what_hardly_varies():
    """Oracle: 81 + 16 of 97.5 are 0.995 of the variance, so that two directions are enough."""
    patches = RANDOM.normal(size=(50_000, 4)) @ np.diag([9.0, 4.0, 0.5, 0.5])
    assert whitening(patches - patches.mean(axis=0)).shape == (4, 2)


@pytest.mark.parametrize("conv", [Conv(8, 3, stride=4), Conv(8, 5)])
def test_patches_are_what_the_kernels_lie_on(conv):
    """Oracle: TensorFlow's own patches; 5000 draws of 32 or 162 miss one in 10⁻¹¹ of cases at most."""
    size = 9 if conv.stride == 1 else 15
    seen = RANDOM.normal(size=(2, size, size, 3))
    found = _patches(seen, conv, np.random.default_rng(0))
    steps = [1, conv.stride, conv.stride, 1]
    padding = "SAME" if conv.stride == 1 else "VALID"
    kernel = [1, conv.kernel, conv.kernel, 1]
    there = tf.image.extract_patches(seen, kernel, steps, [1, 1, 1, 1], padding).numpy()
    expected = np.unique(there.reshape(-1, there.shape[-1]), axis=0)
    np.testing.assert_array_equal(np.unique(found, axis=0), expected)


def started(folder, recipe=TINY, seed=0):
    """A network with noise, one with centroids, and the crops of all its images."""
    files = splitting.open_data(folder).of("train")
    store = ImageStore(files, recipe, folder)
    networks = []
    for _ in range(2):
        model = build_alexnet(recipe, 3, seed=seed)
        networks.append(KerasNetwork(model, recipe, compute_statistics(store)))
    noise, ours = networks
    initialize(ours, store, seed, choose_devices(0), lambda done, total: None)
    crop = Cropper(recipe, ours.statistics)
    crops = np.concatenate([crop(store.get(index)) for index in range(len(store))])
    return noise.model, ours.model, crops


def responses(model, name, crops):
    layer = model.get_layer(name)
    return keras.Model(model.input, layer.output)(crops).numpy().reshape(-1, layer.output.shape[-1])


@pytest.fixture(scope="module")
def networks():
    """Of real images, which are not made of three colors."""
    return started(EXAMPLES)


def test_conv1_responds_as_strongly_as_noise_does_and_around_its_bias(networks):
    """Oracle: the network itself, at every place of every image; patches are a sample of those."""
    noise, ours, crops = networks
    before, after = (responses(model, "conv1", crops) for model in (noise, ours))
    strength = (before - before.mean(axis=0)).std()
    np.testing.assert_allclose(after.std(axis=0), strength, rtol=0.1)
    assert np.abs(after.mean(axis=0)).max() < 0.1 * strength  # its biases start at 0


@pytest.mark.parametrize("name", ["conv2", "conv3", "conv4", "conv5"])
def test_each_kernel_responds_around_its_initial_bias(networks, name):
    """Oracle: a bias of 0.1, or 0 in conv3, at the mean; the spreads of a tower's kernels alike."""
    _, ours, crops = networks
    found = responses(ours, name, crops)
    spread = found.std(axis=0)
    bias = 0.0 if name == "conv3" else 0.1
    assert np.abs(found.mean(axis=0) - bias).max() < 0.2 * spread.mean()
    towers = np.split(spread, 1 if name == "conv3" else 2)
    for tower in towers:
        np.testing.assert_allclose(tower, tower.mean(), rtol=0.2)


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3"])
def test_no_two_kernels_are_alike(networks, name):
    """Oracle: their responses' correlations; deeper, so narrow a network sees only one thing."""
    found = responses(networks[1], name, networks[2])
    correlations = np.corrcoef(found.T) - np.eye(found.shape[1])
    assert correlations.max() < 0.99


def test_dense_layers_and_nothing_else_keep_their_noise(networks):
    """Oracle: a network of the same seed."""
    noise, ours, _ = networks
    before, after = get_weights(noise), get_weights(ours)
    same = {name.partition("/")[0] for name in before if np.array_equal(before[name], after[name])}
    assert same == {"fc6", "fc7", "fc8"}


def test_the_seed_decides(image_folder):
    """Oracle: bit for bit with the same seed; another seed's conv1 has other kernels."""
    one, again, other = (get_weights(started(image_folder, seed=seed)[1]) for seed in (0, 0, 1))
    for name, values in one.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)
    assert np.abs(other["conv1/kernel"] - one["conv1/kernel"]).max() > 1e-3


def test_images_without_contrast_leave_the_noise(tmp_path):
    """Oracle: the noise, bit for bit; centroids of nothing would be zeros, which never learn."""
    folder = paint(tmp_path / "colors", per_class=2)
    noise, ours, _ = started(folder, replace(TINY, scale=1e-30))
    before, after = get_weights(noise), get_weights(ours)
    for name, values in after.items():
        assert np.isfinite(values).all()
        if name.startswith(("conv1", "conv2")):  # from conv3 on the edges differ from the middle
            np.testing.assert_array_equal(values, before[name], err_msg=name)
        if name.endswith("kernel"):
            assert (np.abs(values).max(axis=tuple(range(values.ndim - 1))) > 0).all(), name


STILL = replace(TINY, kmeans_init=True, learning_rate=1e-12, weight_decay=0.0, epochs=1)


def test_training_starts_from_them(image_folder, tmp_path):
    """Oracle: a rate so small that weights hardly move; noise of σ = 0.01 has other kernels."""
    found = load_arrays(run(image_folder, tmp_path, STILL).run / "last.safetensors")
    expected = get_weights(started(image_folder, STILL)[1])
    for name in ("conv1/kernel", "conv2/tower1/kernel", "conv5/tower1/bias"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6, err_msg=name)


def test_given_weights_and_resumed_ones_are_left_as_they_are(image_folder, tmp_path):
    """Oracle: the weights given, those of a run that started from noise; fc8 alone is new."""
    noise = run(image_folder, tmp_path / "noise", replace(STILL, kmeans_init=False)).run
    initial = load_model(noise)
    given = run(image_folder, tmp_path / "given", STILL, initial=initial).run
    resumed = start_and_resume.resume(given, devices=choose_devices(0), epochs=2).path
    before, after = (
        load_arrays(noise / "last.safetensors"),
        load_arrays(resumed / "last.safetensors"),
    )
    for name in ("conv1/kernel", "conv2/tower1/kernel", "conv5/tower1/bias", "fc7/kernel"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=name)
