"""The paper's figures: what they show, and that it is what the network computes."""

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
    """Oracle: fc7 in NumPy for every image, and a sort by Euclidean distance."""
    member = load_model(run_copy)
    weights = load_arrays(run_copy / "best.safetensors")
    mean = member.keras_network.statistics.mean_image

    def fc7(path):
        image = load_image(ImageFile(path), QUICK).astype(float) - mean
        return reference.paper_fc7(image[None, 4:68, 4:68], weights)[0]

    files = member.trained_on.of("train")[::3]
    query = member.trained_on.of("val")[0].path
    distances = {file.path: np.linalg.norm(fc7(file.path) - fc7(query)) for file in files}
    (found,) = predict([query], [run_copy], neighbors=99)
    by_path = {near.file.path: near.distance for near in found.neighbors}
    assert len(found.neighbors) == 33
    for path, distance in distances.items():
        assert by_path[path] == pytest.approx(distance, rel=1e-3, abs=1e-3)
    order = [near.distance for near in found.neighbors]
    assert order == sorted(order)
    assert all(near.file.path.parent.name == near.file.label for near in found.neighbors)


def test_a_training_image_is_its_own_nearest(run_copy):
    """Oracle: distance 0, as far as features kept in float16 tell; from memory and from disk."""
    member = load_model(run_copy)
    for number in range(2):
        told = []
        training = FeatureIndex(member, lambda done, total, told=told: told.append(done))
        assert bool(told) == (number == 0)  # the second time they come from the run folder
        apart = np.linalg.norm(training.features[:, None] - training.features, axis=2)
        np.fill_diagonal(apart, np.inf)
        file = training.files[apart.min(axis=1).argmax()]  # the least like any other
        crop = Cropper(member.recipe, member.statistics)(load_image(file, QUICK))
        ((features,),) = member.keras_network.features([crop])
        nearest = training.nearest(features, 3)
        assert nearest[0].file == file
        assert nearest[0].distance < 2**-10 * np.linalg.norm(features) < nearest[1].distance


def test_of_very_many_training_images_a_sample_is_searched(run_copy, monkeypatch):
    """Oracle: 33 images, at most 10: every fourth, 9 of them."""
    monkeypatch.setattr("alexnet_cli.inference.neighbors.MOST_IMAGES", 10)
    member = load_model(run_copy)
    training = FeatureIndex(member)
    assert training.files == member.trained_on.of("train")[::4]
    assert training.features.shape == (9, 32)


def test_neighbors_of_two_models_are_refused(trained, image_folder):
    with pytest.raises(UsageError, match="neighbors=1: needs a single model"):
        predict([image_folder], [trained, trained], neighbors=1)


def test_training_images_that_are_gone_are_passed_over(run_copy, image_folder):
    """Oracle: the order with all of them, without the one that is gone since, or was before."""
    training_model = load_model(run_copy)
    training = FeatureIndex(training_model)
    query = training.features[0]
    before = training.nearest(query, 9)
    gone = replace(before[1].file, path=image_folder / "gone.png")
    training.files = [gone if file == before[1].file else file for file in training.files]
    assert training.nearest(query, 8) == (before[0], *before[2:])
    again = training._compute(training_model.network(), None)
    np.testing.assert_array_equal(np.isinf(again).all(axis=1), [f is gone for f in training.files])


def test_features_are_kept_though_an_image_was_gone(run_copy, monkeypatch):
    """Oracle: the same again without the network; the missing one is never near, nor at infinity."""
    member = load_model(run_copy)
    lost = member.trained_on.of("train")[0]
    read = neighbors.load_image

    def load_others(file, recipe):
        if file == lost:
            raise ImageError("is gone", file.path)
        return read(file, recipe)

    monkeypatch.setattr(neighbors, "load_image", load_others)
    query = FeatureIndex(member).features[1]
    monkeypatch.setattr(FeatureIndex, "_compute", None)
    near = FeatureIndex(member).nearest(query, 99)
    assert len(near) == len(member.trained_on.of("train")) - 1
    assert lost not in [neighbor.file for neighbor in near]


def test_a_run_that_can_not_be_written_to_has_neighbors_too(run_copy, monkeypatch):
    """Oracle: those that a run which can be written to has."""
    expected = FeatureIndex(load_model(run_copy))
    (run_copy / "fc7.safetensors").unlink()

    def refuse(source, target):
        raise OSError(errno.EROFS, "Read-only file system", target)

    monkeypatch.setattr(os, "replace", refuse)
    training = FeatureIndex(load_model(run_copy))
    np.testing.assert_allclose(training.features, expected.features, rtol=2e-3, atol=1e-3)


def test_neighbors_that_are_gone_or_damaged_are_not_drawn(run_copy, tmp_path, monkeypatch):
    """Oracle: the width of the picture, with all six, and with none."""
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
    """Oracle: gray has none; channels that cancel out have all; red alone has 2/3."""
    gray = np.ones((2, 2, 3)) * RANDOM.normal(size=(2, 2, 1))
    opposed = RANDOM.normal(size=(2, 2, 1)) * np.array([1.0, 1.0, -2.0])
    red = RANDOM.normal(size=(2, 2, 1)) * np.array([1.0, 0.0, 0.0])
    kernels = np.stack([gray, opposed, red, np.zeros((2, 2, 3))], axis=-1)
    np.testing.assert_allclose(plots.color_selectivity(kernels), [0, 1, 2 / 3, 0], atol=1e-12)


@pytest.mark.parametrize("colored", [False, True])
def test_kernels_show_the_colors_that_they_have(tmp_path, colored):
    """Oracle: gray kernels leave the picture gray but for the bars of the histogram."""
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
    """Oracle: names and order of the pictures; each has content; one folder as asked for."""
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
    """Oracle: the width of the red bar, in a picture whose other bars are empty."""
    for probability in (0.25, 1.0):
        bars = [("true", probability), *((f"class {n}", 0.0) for n in range(min(n_classes, 5) - 1))]
        image = np.zeros((64, 64, 3), np.uint8)
        plots.draw_predictions([(image, "true", bars)], tmp_path / "bars.png")
        shown = pixels(tmp_path / "bars.png")
        red = ((shown[..., 0] - shown[..., 1]) > 60).any(axis=0).sum()
        if probability == 0.25:
            quarter = red
    assert red == pytest.approx(4 * quarter, rel=0.03)


def test_one_mistake_among_a_thousand_classes_can_be_seen(tmp_path):
    """Oracle: the picture without the mistake; 1 image of 50 of a class far from the other."""
    matrix = np.eye(1000, dtype=np.int64) * 50
    plots.draw_confusion(matrix, ["class"] * 1000, tmp_path / "without.png", "a")
    matrix[990, 990], matrix[990, 10] = 49, 1
    plots.draw_confusion(matrix, ["class"] * 1000, tmp_path / "with.png", "a")
    changed = np.abs(pixels(tmp_path / "with.png") - pixels(tmp_path / "without.png")).sum(axis=2)
    rows, columns = np.nonzero(changed > 100)  # of 765
    assert len(rows) > 20
    assert rows.min() > 0.85 * len(changed)
    assert columns.max() < 0.1 * changed.shape[1]


def test_curves_mark_where_a_rate_drops_and_not_where_it_glides():
    """Oracle: the epochs of a schedule by hand; of warm-up and cosine none, however steep at the end."""
    steps = [1e-2] * 4 + [1e-3] * 3 + [1e-4] * 2
    gliding = [learning_rate(RECIPES["modern"], [None] * epoch) for epoch in range(90)]
    for rates, expected in ((steps, [5, 8]), (gliding, []), ([1e-2], [])):
        rows = [EpochRow(n, 1, 0.5, 1, 0.5, None, r, 9, 9) for n, r in enumerate(rates, start=1)]
        assert plots.rate_drops(rows) == expected
