"""K-means initialization of convolutions: k-means, whitening, patches, and the resulting kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import TINY, paint, run

from alexnet_cli.data import split_folders
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
    """Use fewer patches, enough for a narrow network, as this is faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmeans_init, "N_PATCHES", 5000)
        yield


def test_k_means_finds_the_means_of_distant_clusters():
    """Oracle: the means of the clusters; more centroids than clusters, as one may be split."""
    centers = np.array([[0, 0, 9], [9, 0, 0], [0, 9, 0]], np.float32)
    clusters = RANDOM.normal(0, 0.01, (3, 200, 3)).astype(np.float32) + centers[:, None]
    points = RANDOM.permutation(clusters.reshape(600, 3))
    found = k_means(points, 12, np.random.default_rng(0))
    assert found.shape == (12, 3)
    distances = np.linalg.norm(found[:, None] - clusters.mean(axis=1), axis=2)
    assert distances.min(axis=1).max() < 0.05  # each centroid lies in a cluster
    assert distances.min(axis=0).max() < 0.05  # each cluster has a centroid


def test_k_means_with_fewer_points_than_centroids():
    """Oracle: every centroid is one of the two points."""
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


def test_whitening_drops_components_with_little_variance():
    """Oracle: 81 + 16 of 97.5 are 0.995 of the variance, so two components are enough."""
    patches = RANDOM.normal(size=(50_000, 4)) @ np.diag([9.0, 4.0, 0.5, 0.5])
    assert whitening(patches - patches.mean(axis=0)).shape == (4, 2)


@pytest.mark.parametrize("conv", [Conv(8, 3, stride=4), Conv(8, 5)])
def test_patches_are_those_that_the_convolution_sees(conv):
    """Oracle: TensorFlow's patches; 5000 draws miss one of 32 or 162 with probability below 1e-11."""
    size = 9 if conv.stride == 1 else 15
    inputs = RANDOM.normal(size=(2, size, size, 3))
    found = _patches(inputs, conv, np.random.default_rng(0))
    steps = [1, conv.stride, conv.stride, 1]
    padding = "SAME" if conv.stride == 1 else "VALID"
    kernel = [1, conv.kernel, conv.kernel, 1]
    there = tf.image.extract_patches(inputs, kernel, steps, [1, 1, 1, 1], padding).numpy()
    expected = np.unique(there.reshape(-1, there.shape[-1]), axis=0)
    np.testing.assert_array_equal(np.unique(found, axis=0), expected)


def initialized(folder, recipe=TINY, seed=0):
    """Return a model with random kernels, one with centroids, and the crops of all images."""
    files = split_folders.open_data(folder).of("train")
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
    """Models for photographs, which have more structure than images of one color."""
    return initialized(EXAMPLES)


def test_responses_of_conv1_have_the_spread_of_random_kernels(networks):
    """Oracle: the responses at every position of every image; patches are a sample of these."""
    noise, ours, crops = networks
    before, after = (responses(model, "conv1", crops) for model in (noise, ours))
    spread = (before - before.mean(axis=0)).std()
    np.testing.assert_allclose(after.std(axis=0), spread, rtol=0.1)
    assert np.abs(after.mean(axis=0)).max() < 0.1 * spread  # its initial biases are 0


@pytest.mark.parametrize("name", ["conv2", "conv3", "conv4", "conv5"])
def test_responses_of_each_kernel_are_centered_on_the_initial_bias(networks, name):
    """Oracle: a mean of 0.1, or 0 in conv3; equal standard deviations within a tower."""
    _, ours, crops = networks
    found = responses(ours, name, crops)
    spread = found.std(axis=0)
    bias = 0.0 if name == "conv3" else 0.1
    assert np.abs(found.mean(axis=0) - bias).max() < 0.2 * spread.mean()
    towers = np.split(spread, 1 if name == "conv3" else 2)
    for tower in towers:
        np.testing.assert_allclose(tower, tower.mean(), rtol=0.2)


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3"])
def test_no_two_kernels_are_equal(networks, name):
    """Oracle: the correlations of their responses; deeper layers of so narrow a network correlate."""
    found = responses(networks[1], name, networks[2])
    correlations = np.corrcoef(found.T) - np.eye(found.shape[1])
    assert correlations.max() < 0.99


def test_only_dense_layers_keep_their_random_weights(networks):
    """Oracle: a network with the same seed without k-means initialization."""
    noise, ours, _ = networks
    before, after = get_weights(noise), get_weights(ours)
    same = {name.partition("/")[0] for name in before if np.array_equal(before[name], after[name])}
    assert same == {"fc6", "fc7", "fc8"}


def test_the_kernels_depend_only_on_the_seed(image_folder):
    """Oracle: equal bits for the same seed, other kernels for another seed."""
    one, again, other = (get_weights(initialized(image_folder, seed=seed)[1]) for seed in (0, 0, 1))
    for name, values in one.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)
    assert np.abs(other["conv1/kernel"] - one["conv1/kernel"]).max() > 1e-3


def test_images_without_contrast_keep_the_random_kernels(tmp_path):
    """Oracle: the random kernels, bit for bit; kernels of zeros would never learn."""
    folder = paint(tmp_path / "colors", per_class=2)
    noise, ours, _ = initialized(folder, replace(TINY, scale=1e-30))
    before, after = get_weights(noise), get_weights(ours)
    for name, values in after.items():
        assert np.isfinite(values).all()
        if name.startswith(("conv1", "conv2")):  # from conv3 on, padding makes the borders differ
            np.testing.assert_array_equal(values, before[name], err_msg=name)
        if name.endswith("kernel"):
            assert (np.abs(values).max(axis=tuple(range(values.ndim - 1))) > 0).all(), name


STILL = replace(TINY, kmeans_init=True, learning_rate=1e-12, weight_decay=0.0, epochs=1)


def test_training_starts_from_the_centroids(image_folder, tmp_path):
    """Oracle: the kernels before training, as the learning rate is almost 0."""
    found = load_arrays(run(image_folder, tmp_path, STILL).run / "last.safetensors")
    expected = get_weights(initialized(image_folder, STILL)[1])
    for name in ("conv1/kernel", "conv2/tower1/kernel", "conv5/tower1/bias"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6, err_msg=name)


def test_given_and_resumed_weights_are_not_initialized_again(image_folder, tmp_path):
    """Oracle: the given weights, those of a run without k-means initialization."""
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
