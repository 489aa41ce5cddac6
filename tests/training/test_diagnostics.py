"""The diagnostics on runs that fail in different ways, and on healthy runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from helpers import QUICK, run
from PIL import Image

from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.manifest import ImageFile, Manifest
from alexnet_cli.data.near_copies import fingerprint
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.presets import MODERN, PAPER
from alexnet_cli.recipes.variants import vary
from alexnet_cli.runs import metrics
from alexnet_cli.runs.checkpoint import EpochProgress
from alexnet_cli.runs.records import EpochRow, Finding
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.training import diagnostics, scoring, start_and_resume
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import choose_devices
from alexnet_cli.training.diagnostics import EpochDiagnostics

LN3 = 1.0986


def row(epoch, sample_loss=0.5, val_loss=0.6, train_loss=0.7):
    """A row; the running loss stays where label smoothing and CutMix keep it."""
    rest = (val_loss, 0.5, None, 0.01, 100.0, 1.0)
    return EpochRow(epoch, train_loss, 0.5, sample_loss, 0.5, *rest)


def measured(**changes):
    healthy = {
        "n_steps": 1000,
        "baseline_loss": LN3,
        "worst_loss": 1.2,
        "predicted": {"blue": 10, "green": 12, "red": 9},
        "dead": {"relu1": 0.0, "fc7": 0.1},
    }
    return EpochDiagnostics(**{**healthy, **changes})


def test_a_small_last_batch_does_not_count_as_an_exploding_loss():
    """Oracle: by hand: a full batch, then one image with a loss of more than 3 ln 3."""
    whole = EpochProgress().add_batch(32, 32, 32 * 0.4, 28, 1.0, full=32)
    assert whole.add_batch(1, 1, 3.5, 0, 1.0, full=32).worst_loss == pytest.approx(0.4)
    assert EpochProgress().add_batch(3, 3, 3 * 9.0, 0, 1.0, full=3).worst_loss == pytest.approx(9.0)


def kinds(history, measured, recipe=PAPER, known=()):
    return [finding.kind for finding in diagnostics.find_problems(history, measured, recipe, known)]


HISTORY = [row(epoch) for epoch in range(1, 6)]


def test_a_healthy_epoch_gives_no_finding():
    assert kinds(HISTORY, measured()) == []


@pytest.mark.parametrize(
    ("history", "changes", "kind"),
    [
        ([row(e, train_loss=1.08) for e in range(1, 4)], {}, "no progress"),
        (HISTORY, {"predicted": {"blue": 0, "green": 31, "red": 0}}, "one class predicted"),
        (HISTORY, {"dead": {"relu5": 0.74, "fc7": 0.75}}, "dead ReLUs"),
        (HISTORY, {"worst_loss": 4.5}, "exploding loss"),
        (
            [row(1, 1.0, 1.0), *(row(e, 0.5, 1.25) for e in range(2, 12))],
            {},
            "overfitting",
        ),
    ],
)
def test_each_problem_is_found_once(history, changes, kind):
    """Oracle: thresholds by hand: ln 3 − 2 %, all of 31, 3/4, 4 ln 3, + 25 % at half the loss."""
    (found,) = diagnostics.find_problems(history, measured(**changes), PAPER)
    assert found.kind == kind
    assert found.epoch == history[-1].epoch
    assert kinds(history, measured(**changes), known=[found]) == []


@pytest.mark.parametrize(
    ("history", "changes"),
    [
        ([row(e, train_loss=1.07) for e in range(1, 4)], {}),  # the loss has begun to fall
        ([row(e, train_loss=1.09) for e in range(1, 3)], {}),  # too early: epochs
        ([row(e, train_loss=1.09) for e in range(1, 4)], {"n_steps": 59}),  # too early: updates
        (HISTORY, {"predicted": {"blue": 1, "green": 30, "red": 0}}),
        (HISTORY, {"predicted": {"blue": 0, "green": 8, "red": 0}}),  # may be chance
        (HISTORY[:2], {"predicted": {"blue": 0, "green": 31, "red": 0}}),
        (HISTORY, {"dead": {"fc7": 0.74}}),
        (HISTORY, {"worst_loss": 4.3}),
        ([row(1, 1.0, 1.0), *(row(e, 0.5, 1.25) for e in range(2, 11))], {}),  # nine epochs
        (
            [row(1, 1.0, 1.0), *(row(e, 0.6, 1.25) for e in range(2, 12))],
            {},
        ),  # the training loss has not halved
        (
            [row(1, 1.0, 1.0), *(row(e, 0.4, 1.2) for e in range(2, 12))],
            {},
        ),  # 20 % above the minimum
        (
            [row(1, 0.02, 0.02), *(row(e, 0.0, 0.06) for e in range(2, 12))],
            {},
        ),  # three times the minimum, but 0.04 more
    ],
)
def test_no_finding_below_the_thresholds(history, changes):
    assert kinds(history, measured(**changes)) == []


@pytest.mark.parametrize(
    ("warmup", "epochs", "first"), [(0.05, 200, 13), (0.05, 5, 3), (0.05, 2, None), (0.9, 5, 5)]
)
def test_epochs_of_warmup_are_too_early(warmup, epochs, first):
    """Oracle: by hand: 0.05 × 200 epochs of warm-up, and 3 at the full rate, are 13.

    Of 5 epochs 0.25 are none, and a training that ends within the warm-up is judged at its end.
    """
    slow = replace(PAPER, warmup=warmup, epochs=epochs)
    one_class = measured(predicted={"blue": 0, "green": 31, "red": 0})
    for n in range(1, epochs + 1):
        flat = [row(e, train_loss=1.09) for e in range(1, n + 1)]
        both = ["no progress", "one class predicted"] if first and n >= first else []
        assert kinds(flat, one_class, slow) == both, n


def test_the_remedy_fits_the_recipe():
    """Oracle: smaller biases for the biases of the paper, else a tenth of the learning rate.

    A rate above the recipe's own comes down to that, however far above it is.
    """
    assert "--variant biases-0.1" in diagnostics.suggest_remedy(vary(PAPER, "biases-1"))
    assert diagnostics.suggest_remedy(PAPER) == "try --learning-rate 0.001"
    for rate in (0.02, 1e20):
        for recipe in (PAPER, vary(PAPER, "biases-1"), vary(vary(PAPER, "tanh"), "no-lrn")):
            remedy = diagnostics.suggest_remedy(replace(recipe, learning_rate=rate))
            assert remedy == "try --learning-rate 0.01, which is the recipe's own"
    ours = replace(PAPER, name="ours", learning_rate=1e20)
    assert diagnostics.suggest_remedy(ours) == "try --learning-rate 0.01"


def test_known_images_are_those_of_equal_content_near_copies_and_equal_paths_unread(tmp_path):
    """Oracle: by hand: which of seven images judge, and which of them trained the other network."""
    cells = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), np.uint8)
    prints = [fingerprint(Image.fromarray(one)) for one in cells]

    def file(name, split, sha256="", number=None):
        mark = "" if number is None else prints[number]
        return ImageFile(tmp_path / name, "red", split, sha256=sha256, fingerprint=mark)

    def manifest(*files):
        return Manifest(tmp_path, tmp_path, ("red",), files, (), 0)

    known = manifest(
        file("a", "train", "1", 0),
        file("b", "train", "2", 1),
        file("c", "train"),
        file("d", "val", "4"),
    )
    new = manifest(
        file("x", "train", "1", 0),  # trains again
        file("y", "val", "2", 1),  # equal content
        file("z", "val", "9", 1),  # a near copy
        file("c", "test", "3", 2),  # its path was trained on, unread
        file("a", "test", "8", 3),  # another image at a path that was read
        file("d", "test", "4"),  # did not train
    )
    (found,) = diagnostics.find_known_images(new, known)
    assert found.evidence.startswith("2 of 2 val and 1 of 3 test images were training images")
    assert diagnostics.find_known_images(new, None) == ()
    assert diagnostics.find_known_images(manifest(file("x", "train", "1", 0)), known) == ()


# Real runs


class _Recorder(Callback):
    def __init__(self):
        self.findings: list[Finding] = []

    def on_finding(self, finding):
        self.findings.append(finding)


def test_the_problems_of_biases_of_1_are_found_and_reported(image_folder, tmp_path):
    """Oracle: known effects: the loss explodes, fc7 dies, the loss stays at that of a constant."""
    recorder = _Recorder()
    wide = tuple(replace(layer, units=1024, stddev=0.01, dropout=0.5) for layer in QUICK.dense)
    recipe = replace(QUICK, dense=wide, output_stddev=0.01, epochs=12, learning_rate=0.02)
    literal = vary(recipe, "biases-1")
    data = tmp_path / "data"
    split_folders.write(plan_split(scanning.scan(image_folder), val=0.3), data)
    report = run(data, tmp_path / "runs", literal, callback=recorder)
    found_by_kind = {finding.kind: finding for finding in recorder.findings}
    assert {
        "exploding loss",
        "dead ReLUs",
        "no progress",
        "one class predicted",
    } <= found_by_kind.keys()
    assert "fc7" in found_by_kind["dead ReLUs"].evidence
    assert "a constant prediction" in found_by_kind["no progress"].evidence
    assert all("--variant biases-0.1" in finding.remedy for finding in recorder.findings)
    assert (
        report.findings == tuple(recorder.findings) == RunFolder(report.run).checkpoint().findings
    )
    text = (report.run / "report.md").read_text()
    assert all(finding.evidence in text for finding in recorder.findings)
    recorder.findings.clear()
    start_and_resume.resume(report.run, devices=choose_devices(0), epochs=13, callback=recorder)
    assert recorder.findings == []  # each problem is reported once, also after an interruption


@pytest.mark.parametrize(
    ("n", "balance", "expected"),
    [(30, False, ["class imbalance"]), (29, False, []), (300, True, [])],
)
def test_class_imbalance_is_found_before_the_first_epoch(n, balance, expected):
    """Oracle: ten times three, by hand; no finding if the remedy is already applied."""
    found = diagnostics.find_class_imbalance(
        {"a": 3, "b": n, "c": 9}, replace(PAPER, balance=balance)
    )
    assert [finding.kind for finding in found] == expected
    for finding in found:
        assert finding.evidence == "b has 30 training images, a 3"
        assert finding.remedy.endswith("try --set balance=true")


def test_class_imbalance_is_reported_unless_balanced(image_folder, tmp_path):
    """Oracle: by hand: 1 training image of red and more than 10 of the other classes."""
    source = tmp_path / "imbalanced"
    for path in sorted(image_folder.rglob("*.png")):
        if path.parent.name != "red" or path.name in ("0.png", "1.png"):
            copy = source / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    recorder = _Recorder()
    report = run(source, tmp_path / "runs", replace(QUICK, epochs=1), callback=recorder)
    assert [finding.kind for finding in report.findings] == ["class imbalance"]
    assert recorder.findings == list(report.findings)
    assert "red 1" in recorder.findings[0].evidence
    balanced = replace(QUICK, epochs=1, balance=True)
    assert run(source, tmp_path / "runs", balanced).findings == ()


def test_the_baseline_loss_is_the_entropy_of_the_mean_target():
    """Oracle: by hand. Of 2000 and 100 images with smoothing 0.1, shares 0.907 and 0.093.

    A run that learns these perfectly keeps the entropy of its smoothed targets, 0.199, which must not
    count as no progress compared with 0.191, the entropy without smoothing.
    """
    counts = np.array([2000, 100])
    bare = -(20 / 21 * np.log(20 / 21) + 1 / 21 * np.log(1 / 21))
    assert metrics.baseline_loss(counts, 0.0, balance=False) == pytest.approx(bare)
    smoothed = metrics.baseline_loss(counts, 0.1, balance=False)
    q = 0.9 / 21 + 0.05
    assert smoothed == pytest.approx(-q * np.log(q) - (1 - q) * np.log(1 - q))
    perfect = -(0.95 * np.log(0.95) + 0.05 * np.log(0.05))
    assert bare < perfect < 0.7 * smoothed
    assert metrics.baseline_loss(counts, 0.1, balance=True) == pytest.approx(np.log(2))


def test_a_healthy_run_has_no_findings(image_folder, tmp_path):
    """Oracle: an accuracy of 1 and no findings, however near to 0 both losses come."""
    recorder = _Recorder()
    # At the usual rate of 0.01 a batch of four explodes now and then, by the seed.
    recipe = replace(QUICK, epochs=16, learning_rate=0.003)
    report = run(image_folder, tmp_path, recipe, callback=recorder)
    assert report.best.val.top1 == 1.0
    assert recorder.findings == []
    assert "The diagnostics found no problem" in (report.run / "report.md").read_text()


def test_overfitting_to_random_labels_is_found(tmp_path):
    """Oracle: random labels, which can be memorized but not predicted."""
    random = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            color = random.integers(0, 256, 3)
            image = Image.fromarray(np.full((80, 80, 3), color, np.uint8))
            image.save(tmp_path / "data" / name / f"{number}.png")
    dense = tuple(replace(layer, dropout=0.0) for layer in QUICK.dense)
    recipe = replace(QUICK, dense=dense, color_noise=0.0, crop_size=72, rate_drops=0)
    recipe = replace(recipe, learning_rate=0.003, epochs=60)
    recorder = _Recorder()
    run(tmp_path / "data", tmp_path / "runs", recipe, callback=recorder)
    (overfitting,) = (finding for finding in recorder.findings if finding.kind == "overfitting")
    assert "while that of training images fell" in overfitting.evidence
    assert "add images" in overfitting.remedy


def test_overfitting_is_found_in_training_like_the_default_recipe(tmp_path):
    """Oracle: labels without meaning, which can be memorized but not predicted.

    Label smoothing, CutMix, jitter, random crops and dropout are those of `modern`; the network is
    tiny. Each color has one class in training and both in validation, where a constant is best.
    """
    random = np.random.default_rng(0)
    for number, color in enumerate(product((30, 225), repeat=3)):
        own = "ab"[number >= 4]
        images = [("train", own, 4), ("val", "a", 1), ("val", "b", 1)]
        for split, label, count in images:
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for copy in range(count):
                pixels = np.array(color) + random.normal(0, 10, (80, 80, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / f"{number} {copy}.png")
    sizes = {"resize_size": 72, "crop_size": 64, "batch_size": 8, "convs": QUICK.convs}
    dense = tuple(replace(layer, units=128, stddev=None) for layer in MODERN.dense)
    recipe = replace(MODERN, **sizes, dense=dense, learning_rate=0.002, epochs=14)
    recorder = _Recorder()
    report = run(tmp_path / "data", tmp_path / "runs", recipe, callback=recorder)
    assert "overfitting" in {finding.kind for finding in recorder.findings}
    last = RunFolder(report.run).checkpoint().history[-1]
    assert last.train_sample_loss < last.train_loss / 2 < last.val_loss / 2


def test_a_nan_loss_stops_with_the_remedy(image_folder, tmp_path):
    with pytest.raises(AlexNetError, match=r"the loss after .*try --learning-rate 0\.01\b"):
        run(image_folder, tmp_path, replace(QUICK, learning_rate=1e12))


def test_a_nan_loss_later_on_does_not_offer_to_continue(run_copy, monkeypatch):
    """Oracle: continuing would end the same way, as a run is resumed with its own hyperparameters."""
    validate = scoring.validate

    def diverged(*arguments):
        score, predicted = validate(*arguments)
        return replace(score, loss=np.nan), predicted

    monkeypatch.setattr(scoring, "validate", diverged)
    with pytest.raises(AlexNetError, match=r"validation loss is nan.*, in a new training$"):
        start_and_resume.resume(run_copy, devices=choose_devices(0), epochs=9)


def test_dead_units_are_counted_by_layer(image_folder, tmp_path):
    """Oracle: large negative biases, set by hand, in half of fc6 and a quarter of conv3."""
    from alexnet_cli.data.statistics import Statistics
    from alexnet_cli.network.architecture import build_alexnet
    from alexnet_cli.network.keras_network import KerasNetwork
    from alexnet_cli.training.scoring import probabilities_and_dead_units

    model = build_alexnet(QUICK, 3, seed=0)
    for name, share in (("fc6", 2), ("conv3", 4)):
        layer = model.get_layer(name)
        bias = np.full(layer.bias.shape, 1.0, np.float32)
        bias[: len(bias) // share] = -1e9
        layer.bias.assign(bias)
    zeros = Statistics(np.zeros((72, 72, 3), np.float32), np.eye(3))
    crops = np.random.default_rng(0).normal(0, 1, (4, 1, 64, 64, 3)).astype(np.float32)
    network = KerasNetwork(model, QUICK, zeros)
    probabilities, dead = probabilities_and_dead_units(network, list(crops))
    np.testing.assert_allclose(probabilities, np.concatenate(network.probabilities([*crops])))
    assert dead["fc6"] == 0.5
    assert dead["relu3"] == 0.25
    assert dead.keys() == {*(f"relu{number}" for number in range(1, 6)), "fc6", "fc7"}
