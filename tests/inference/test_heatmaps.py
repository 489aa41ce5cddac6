"""Heat maps: agreement with occlusion, and what their numbers mean."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import UsageError
from alexnet_cli.inference import heatmaps
from alexnet_cli.runs.models import load_model

SQUARE = 16  # side of the gray square, in pixels of a crop of 64


@pytest.fixture(scope="module")
def model(trained):
    """The shared run."""
    return load_model(trained)


@pytest.fixture
def image(image_folder):
    """An image of the class red."""
    return ImageFile(image_folder / "red" / "3.png")


def ranks(values):
    return np.argsort(np.argsort(values, axis=None))


def log_odds(model, crops, index):
    """Return log(p / (1 − p)) from the logits, as p is nearly 1."""
    logits = model.keras_network.model(crops).numpy().astype(np.float64)
    return logits[:, index] - np.log(np.exp(np.delete(logits, index, axis=1)).sum(axis=1))


def test_it_ranks_squares_as_occlusion_does(model, image_folder, monkeypatch):
    """Oracle: a gray square slid over the crop (Zeiler and Fergus 2014, section 4.2); Spearman's ρ."""
    monkeypatch.setattr(heatmaps, "SPREAD", 1e-3)  # without blur, to add up squares exactly
    cropper = Cropper(model.recipe, model.statistics)
    gray = model.statistics.mean_image.mean(axis=(0, 1)) - cropper.center_mean()
    starts = range(0, 64 - SQUARE + 1, 8)
    places = [np.s_[r : r + SQUARE, c : c + SQUARE] for r in starts for c in starts]
    correlations = []
    for index, name in enumerate(model.classes):
        for number in (1, 5, 9):
            file = ImageFile(image_folder / name / f"{number}.png")
            crop = cropper(load_image(file, model.recipe))
            covered = np.repeat(crop, len(places), axis=0)
            for one, place in zip(covered, places):
                one[place] = gray[place]
            fallen = -log_odds(model, covered, index)
            evidence = heatmaps.compute(model, file, name).evidence
            summed = [evidence[place].sum() for place in places]
            correlations.append(np.corrcoef(ranks(summed), ranks(fallen))[0, 1])
    assert np.mean(correlations) > 0.6  # measured: 0.77


def test_both_networks_draw_the_same(model, image):
    """Oracle: TensorFlow, which many images are left to."""
    one, other = heatmaps.compute(model, image), heatmaps.compute(model, image, n_images=None)
    largest = np.abs(one.evidence).max()
    np.testing.assert_allclose(one.evidence, other.evidence, atol=1e-3 * largest)
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_it_shows_the_center_crop_and_the_likeliest_class(model, image):
    """Oracle: the window of the decoded image, and the map of the class that `predict` names."""
    found = heatmaps.compute(model, image)
    np.testing.assert_array_equal(found.pixels, load_image(image, model.recipe)[4:68, 4:68])
    np.testing.assert_array_equal(found.evidence, heatmaps.compute(model, image, "red").evidence)
    assert (found.evidence != heatmaps.compute(model, image, "blue").evidence).any()
    with pytest.raises(UsageError, match="the model has no such class"):
        heatmaps.compute(model, image, "rose")


def test_the_blur_keeps_the_sum(model, image, monkeypatch):
    """Oracle: the sum without blur; the log-odds that the whole crop would lose, to first order."""
    blurred = heatmaps.compute(model, image).evidence
    monkeypatch.setattr(heatmaps, "SPREAD", 1e-3)
    exact = heatmaps.compute(model, image).evidence
    assert np.ptp(blurred) < np.ptp(exact) / 2
    assert blurred.sum() == pytest.approx(exact.sum(), rel=1e-3)
