"""The paper's figures: their contents, compared with what the network computes."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import reference
from helpers import QUICK, predict, run
from PIL import Image

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import ImageError, UsageError
from alexnet_cli.inference import neighbors
from alexnet_cli.inference.neighbors import FeatureIndex
from alexnet_cli.recipes.presets import RECIPES
from alexnet_cli.recipes.variants import vary
from alexnet_cli.reports import paper_figures, plots
from alexnet_cli.runs.models import load_model
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.runs.weights_file import load_arrays
from alexnet_cli.training.schedule import learning_rate

RANDOM = np.random.default_rng(5)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


# Neighbors (Figure 4, right)


def test_neighbors_are_nearest_by_fc7(run_copy):
    """Oracle: fc7 in NumPy for every image, and a sort by Euclidean distance.

    Rounding both to float16 moves each by at most 2⁻¹¹ of its length.
    """
    model = load_model(run_copy)
    weights = load_arrays(run_copy / "best.safetensors")
    mean = model.keras_network.statistics.mean_image

    def fc7(path):
        image = load_image(ImageFile(path), QUICK).astype(float) - mean
        return reference.paper_fc7(image[None, 4:68, 4:68], weights)[0]

    files = model.trained_on.of("train")[::3]
    query = model.trained_on.of("val")[0].path
    outputs, asked = {file.path: fc7(file.path) for file in files}, fc7(query)
    (found,) = predict([query], [run_copy], neighbors=99)
    by_path = {near.file.path: near.distance for near in found.neighbors}
    assert len(found.neighbors) == 33
    for path, output in outputs.items():
        rounding = 2**-11 * (np.linalg.norm(output) + np.linalg.norm(asked))
        distance = np.linalg.norm(output - asked)
        assert by_path[path] == pytest.approx(distance, rel=1e-3, abs=rounding)
    order = [near.distance for near in found.neighbors]
    assert order == sorted(order)
    assert all(near.file.path.parent.name == near.file.label for near in found.neighbors)


def test_a_training_image_is_its_own_nearest(run_copy):
    """Oracle: distance 0, up to the rounding of features stored in float16; computed and read from disk."""
    model = load_model(run_copy)
    for number in range(2):
        calls = []
        training = FeatureIndex(model, lambda done, total, calls=calls: calls.append(done))
        assert bool(calls) == (number == 0)  # the second time they are read from the run folder
        apart = np.linalg.norm(training.features[:, None] - training.features, axis=2)
        np.fill_diagonal(apart, np.inf)
        file = training.files[apart.min(axis=1).argmax()]  # the least similar to any other
        crop = Cropper(model.recipe, model.statistics)(load_image(file, QUICK))
        ((features,),) = model.keras_network.features([crop])
        nearest = training.nearest(features, 3)
        assert nearest[0].file == file
        assert nearest[0].distance < 2**-10 * np.linalg.norm(features) < nearest[1].distance


def test_a_sample_of_very_many_training_images_is_searched(run_copy, monkeypatch):
    """Oracle: 33 images, at most 10: every fourth, 9 of them."""
    monkeypatch.setattr("alexnet_cli.inference.neighbors.MOST_IMAGES", 10)
    model = load_model(run_copy)
    training = FeatureIndex(model)
    assert training.files == model.trained_on.of("train")[::4]
    assert training.features.shape == (9, 32)


def test_neighbors_of_two_models_are_refused(trained, image_folder):
    with pytest.raises(UsageError, match="neighbors=1: works with a single model only"):
        predict([image_folder], [trained, trained], neighbors=1)


def test_missing_training_images_are_skipped(run_copy, image_folder):
    """Oracle: the order with all images, without the one whose file is missing."""
    model = load_model(run_copy)
    training = FeatureIndex(model)
    query = training.features[0]
    before = training.nearest(query, 9)
    gone = replace(before[1].file, path=image_folder / "gone.png")
    training.files = [gone if file == before[1].file else file for file in training.files]
    assert training.nearest(query, 8) == (before[0], *before[2:])
    again = training._compute(model.network(), None)
    np.testing.assert_array_equal(np.isinf(again).all(axis=1), [f is gone for f in training.files])


def test_features_are_saved_even_if_an_image_is_missing(run_copy, monkeypatch):
    """Oracle: the saved features answer without the network; the missing image is no neighbor."""
    model = load_model(run_copy)
    lost = model.trained_on.of("train")[0]
    read = neighbors.load_image

    def load_others(file, recipe):
        if file == lost:
            raise ImageError("is gone", file.path)
        return read(file, recipe)

    monkeypatch.setattr(neighbors, "load_image", load_others)
    query = FeatureIndex(model).features[1]
    monkeypatch.setattr(FeatureIndex, "_compute", None)
    near = FeatureIndex(model).nearest(query, 99)
    assert len(near) == len(model.trained_on.of("train")) - 1
    assert lost not in [neighbor.file for neighbor in near]


def test_neighbors_in_a_read_only_run(run_copy, monkeypatch):
    """Oracle: the features of the same run before it was read-only."""
    expected = FeatureIndex(load_model(run_copy))
    (run_copy / "fc7.safetensors").unlink()

    def fail(source, target):
        raise OSError(errno.EROFS, "Read-only file system", target)

    monkeypatch.setattr(os, "replace", fail)
    training = FeatureIndex(load_model(run_copy))
    np.testing.assert_allclose(training.features, expected.features, rtol=2e-3, atol=1e-3)


def test_missing_or_damaged_neighbors_are_not_drawn(run_copy, tmp_path, monkeypatch):
    """Oracle: the width of the figure with six neighbors and with none."""
    paper_figures.draw([run_copy], tmp_path)
    whole = pixels(tmp_path / "neighbors.png").shape[1]

    def load_others(file, recipe):
        if file.split == "train":
            raise ImageError("is damaged", file.path)
        return load_image(file, recipe)

    monkeypatch.setattr(paper_figures, "load_image", load_others)
    paper_figures.draw([run_copy], tmp_path)
    assert pixels(tmp_path / "neighbors.png").shape[1] < whole / 3


# Kernels (Figure 3)


def test_color_selectivity_by_hand():
    """Oracle: 0 for gray, 1 for channels that cancel out, 2/3 for red alone."""
    gray = np.ones((2, 2, 3)) * RANDOM.normal(size=(2, 2, 1))
    opposed = RANDOM.normal(size=(2, 2, 1)) * np.array([1.0, 1.0, -2.0])
    red = RANDOM.normal(size=(2, 2, 1)) * np.array([1.0, 0.0, 0.0])
    kernels = np.stack([gray, opposed, red, np.zeros((2, 2, 3))], axis=-1)
    np.testing.assert_allclose(plots.color_selectivity(kernels), [0, 1, 2 / 3, 0], atol=1e-12)


@pytest.mark.parametrize("colored", [False, True])
def test_kernels_are_drawn_in_their_colors(tmp_path, colored):
    """Oracle: the figure of gray kernels is gray, apart from the bars of the histogram."""
    kernels = RANDOM.normal(size=(11, 11, 1, 96)) * np.ones((1, 1, 3, 1))
    if colored:
        kernels[..., 0, :] = 0
    plots.draw_kernels(kernels, 2, tmp_path / "kernels.png")
    left = pixels(tmp_path / "kernels.png")[:, :900]
    assert (np.ptp(left, axis=2).max() > 100) == colored
    dark_rows = (left < 250).any(axis=(1, 2))
    assert dark_rows.mean() > 0.5


# The command


def test_all_figures_of_a_run(run_copy, image_folder, tmp_path):
    """Oracle: names and order of the figures; none is empty; the requested folder."""
    tanh = run(image_folder, tmp_path / "tanh", replace(vary(QUICK, "tanh"), epochs=1)).run
    alone = paper_figures.draw([run_copy])
    assert [path.name for path in alone] == ["kernels.png", "predictions.png", "neighbors.png"]
    assert {path.parent for path in alone} == {run_copy / "figures"}
    both = paper_figures.draw([run_copy, tanh], tmp_path / "pictures")
    assert next(path.name for path in both) == "training-error.png"
    assert {path.parent for path in both} == {tmp_path / "pictures"}
    for path in both:
        assert (pixels(path) < 250).mean() > 0.005


@pytest.mark.parametrize("n_classes", [2, 1000])
def test_bars_are_as_long_as_probabilities(tmp_path, n_classes):
    """Oracle: the width of the green bar, in a figure whose other bars are empty."""
    for probability in (0.25, 1.0):
        bars = [("true", probability), *((f"class {n}", 0.0) for n in range(min(n_classes, 5) - 1))]
        image = np.zeros((64, 64, 3), np.uint8)
        plots.draw_predictions([(image, "true", bars)], tmp_path / "bars.png")
        shown = pixels(tmp_path / "bars.png")
        green = ((shown[..., 1] - shown[..., 0]) > 40).any(axis=0).sum()
        if probability == 0.25:
            quarter = green
    assert green == pytest.approx(4 * quarter, rel=0.03)


def test_one_error_among_a_thousand_classes_is_visible(tmp_path):
    """Oracle: the figure without the error; 1 of the 50 images of a class is misclassified."""
    matrix = np.eye(1000, dtype=np.int64) * 50
    plots.draw_confusion(matrix, ["class"] * 1000, tmp_path / "without.png", "a")
    matrix[990, 990], matrix[990, 10] = 49, 1
    plots.draw_confusion(matrix, ["class"] * 1000, tmp_path / "with.png", "a")
    changed = np.abs(pixels(tmp_path / "with.png") - pixels(tmp_path / "without.png")).sum(axis=2)
    rows, columns = np.nonzero(changed > 100)  # of 765
    assert len(rows) > 20
    assert rows.min() > 0.85 * len(changed)
    assert columns.max() < 0.1 * changed.shape[1]


def test_curves_mark_drops_of_the_rate_but_no_gradual_decrease():
    """Oracle: the epochs of a schedule by hand; none for warm-up and cosine."""
    steps = [1e-2] * 4 + [1e-3] * 3 + [1e-4] * 2
    cosine = [learning_rate(RECIPES["modern"], [None] * epoch) for epoch in range(90)]
    for rates, expected in ((steps, [5, 8]), (cosine, []), ([1e-2], [])):
        rows = [
            EpochRow(n, 1, 0.5, 1, 0.5, 1, 0.5, None, r, 9, 9) for n, r in enumerate(rates, start=1)
        ]
        assert plots.rate_drops(rows) == expected
