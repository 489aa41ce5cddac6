"""Suspect labels: against hand-made probabilities, cleanlab, and swapped labels."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from helpers import paint
from typer.testing import CliRunner

import alexnet_cli as alexnet
from alexnet_cli.cli import app
from alexnet_cli.inference.label_errors import find_label_errors


def test_candidates_by_hand():
    """Oracle: the thresholds, (0.6 + 0.4 + 0.2) / 3 = 0.4, 0.7 and 0.5; class 3 has no images."""
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    probabilities = np.array(
        [
            [0.60, 0.10, 0.20, 0.10],
            [0.40, 0.55, 0.03, 0.02],  # 1 is likelier, but not as likely as on average of class 1
            [0.20, 0.05, 0.70, 0.05],  # wrong: 2
            [0.05, 0.80, 0.10, 0.05],
            [0.10, 0.60, 0.20, 0.10],
            [0.42, 0.01, 0.10, 0.47],  # wrong: 0, as the unlabeled class 3 is never proposed
            [0.03, 0.05, 0.90, 0.02],
        ]
    )
    found, proposed = find_label_errors(labels, probabilities)
    assert found.tolist() == [2, 5]  # margins 0.20 - 0.70 and 0.10 - 0.47
    assert proposed.tolist() == [2, 0]


@pytest.mark.parametrize("seed", range(5))
def test_candidates_and_order_are_those_of_cleanlab(seed):
    """Oracle: the authors' package, which pads thresholds by 1e-6, here far below every distance."""
    random = np.random.default_rng(seed)
    n_classes = 3 + seed
    labels = np.arange(400) % n_classes
    logits = random.normal(0, 1.5, (400, n_classes)) + 2 * np.eye(n_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = find_label_issues(
        labels,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    )
    found, _ = find_label_errors(labels, probabilities)
    assert 20 < len(expected) < 200
    assert found.tolist() == expected.tolist()


def test_five_percent_of_the_labels_swapped():
    """Oracle: of 10 swapped labels the network is sure of 9, and it is sure of 3 errors: 9 of 12."""
    true = np.repeat(np.arange(4), 50)
    labels, seen = true.copy(), true.copy()
    swapped = np.arange(0, 200, 20)
    labels[swapped] = (true[swapped] + 1) % 4
    seen[[5, 75, 145]] = (true[[5, 75, 145]] + 2) % 4  # the network's own errors
    probabilities = np.where(np.arange(4) == seen[:, None], 0.91, 0.03)
    probabilities[40] = np.where(np.arange(4) == true[40], 0.4, 0.2)  # swapped, but unsure of it
    found, proposed = find_label_errors(labels, probabilities)
    assert {*found} == {*swapped, 5, 75, 145} - {40}
    assert proposed.tolist() == seen[found].tolist()


@pytest.fixture
def mislabeled(image_folder, trained, tmp_path):
    """Six new images, one in the wrong class folder, and a training image in a wrong one."""
    folder = paint(tmp_path / "new", per_class=2, seed=9)
    (folder / "blue" / "0.png").rename(folder / "green" / "wrong.png")
    red = next(f for f in alexnet.Run(trained)._folder.manifest.of("train") if f.label == "red")
    shutil.copy(red.path, folder / "green" / "trained-on.png")
    return folder


def test_a_wrong_label_is_listed_and_shown(mislabeled, run_copy, tmp_path):
    """Oracle: the folder into which the image was put, and its color; a training image is left out."""
    listed, page = tmp_path / "suspects.csv", tmp_path / "report.html"
    command = ["evaluate", str(mislabeled), "--model", str(run_copy), "--suspects", str(listed)]
    done = CliRunner().invoke(app.app, [*command, "--report", str(page)])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(listed.read_text().splitlines()))
    assert [row["file"] for row in rows] == [str(mislabeled / "green" / "wrong.png")]
    assert (rows[0]["label"], rows[0]["proposed"]) == ("green", "blue")
    model = alexnet.load(run_copy)
    expected = dict(zip(model.classes, model.probabilities(rows[0]["file"])[0]))
    assert float(rows[0]["label_probability"]) == pytest.approx(expected["green"], abs=1e-4)
    assert float(rows[0]["proposed_probability"]) == pytest.approx(expected["blue"], abs=1e-4)
    assert "1 of 6 labels are suspect" in " ".join(done.output.split())
    text = page.read_text()
    section = text[text.index("Suspect labels") : text.index("with a threshold")]
    assert "1 of 6 images" in section
    assert section.count("<img") == 1
    assert "labeled green" in section
    assert "wrong.png" in section


def test_images_that_were_trained_on_have_no_suspects(trained, tmp_path):
    """Oracle: the training split, all of which was trained on; nothing is written."""
    report = alexnet.load(trained).evaluate(split="train")
    assert report.details.suspects is None
    with pytest.raises(alexnet.AlexNetError, match="all images of train were trained on"):
        report.save_suspects(tmp_path / "suspects.csv")
    assert not (tmp_path / "suspects.csv").exists()
