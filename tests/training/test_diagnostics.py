"""The doctor on runs made to fail, each in its own way, and on healthy ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import QUICK, run
from PIL import Image

from alexnet_cli.data import scanning, splitting
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.recipes.variants import vary
from alexnet_cli.runs import metrics
from alexnet_cli.runs.checkpoint import EpochProgress
from alexnet_cli.runs.records import EpochRow, Finding
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.training import diagnostics, start_and_resume
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import choose_devices
from alexnet_cli.training.diagnostics import EpochDiagnostics

LN3 = 1.0986


def row(epoch, train_loss=0.5, val_loss=0.6):
    return EpochRow(epoch, train_loss, 0.5, val_loss, 0.5, None, 0.01, 100.0, 1.0)


def vitals(**changes):
    healthy = {
        "n_steps": 1000,
        "guess_loss": LN3,
        "worst_loss": 1.2,
        "predicted": {"blue": 10, "green": 12, "red": 9},
        "dead": {"relu1": 0.0, "fc7": 0.1},
    }
    return EpochDiagnostics(**{**healthy, **changes})


def test_a_batch_of_one_image_is_no_explosion():
    """Oracle: by hand: a full batch, and one image that costs more than three blind guesses."""
    whole = EpochProgress().add_batch(32, 32, 32 * 0.4, 28, 1.0, full=32)
    assert whole.add_batch(1, 1, 3.5, 0, 1.0, full=32).worst_loss == pytest.approx(0.4)
    assert EpochProgress().add_batch(3, 3, 3 * 9.0, 0, 1.0, full=3).worst_loss == pytest.approx(9.0)


def kinds(history, vitals, recipe=PAPER, known=()):
    return [finding.kind for finding in diagnostics.examine(history, vitals, recipe, known)]


HISTORY = [row(epoch) for epoch in range(1, 6)]


def test_a_healthy_epoch_gives_no_finding():
    assert kinds(HISTORY, vitals()) == []


@pytest.mark.parametrize(
    ("history", "changes", "kind"),
    [
        ([row(e, train_loss=1.08) for e in range(1, 4)], {}, "flat"),
        (HISTORY, {"predicted": {"blue": 0, "green": 31, "red": 0}}, "one class"),
        (HISTORY, {"dead": {"relu5": 0.74, "fc7": 0.75}}, "dead"),
        (HISTORY, {"worst_loss": 4.5}, "exploded"),
        (
            [row(1, 1.0, 1.0), *(row(e, 0.5, 1.25) for e in range(2, 12))],
            {},
            "turned",
        ),
    ],
)
def test_each_trouble_has_its_evidence_and_is_told_once(history, changes, kind):
    """Oracle: thresholds by hand: ln 3 − 2 %, all of 31, 3/4, 4 ln 3, + 25 % at half the loss."""
    (found,) = diagnostics.examine(history, vitals(**changes), PAPER)
    assert found.kind == kind
    assert found.epoch == history[-1].epoch
    assert kinds(history, vitals(**changes), known=[found]) == []


@pytest.mark.parametrize(
    ("history", "changes"),
    [
        ([row(e, train_loss=1.07) for e in range(1, 4)], {}),  # it has begun to move
        ([row(e, train_loss=1.09) for e in range(1, 3)], {}),  # too early: epochs
        ([row(e, train_loss=1.09) for e in range(1, 4)], {"n_steps": 59}),  # too early: updates
        (HISTORY, {"predicted": {"blue": 1, "green": 30, "red": 0}}),
        (HISTORY, {"predicted": {"blue": 0, "green": 8, "red": 0}}),  # may be chance
        (HISTORY[:2], {"predicted": {"blue": 0, "green": 31, "red": 0}}),
        (HISTORY, {"dead": {"fc7": 0.74}}),
        (HISTORY, {"worst_loss": 4.3}),
        ([row(1, 1.0, 1.0), *(row(e, 0.5, 1.25) for e in range(2, 11))], {}),  # nine epochs
        ([row(1, 1.0, 1.0), *(row(e, 0.6, 1.25) for e in range(2, 12))], {}),  # it learns on
        ([row(1, 1.0, 1.0), *(row(e, 0.4, 1.2) for e in range(2, 12))], {}),  # hardly turned
    ],
)
def test_what_lies_below_the_thresholds_is_no_finding(history, changes):
    assert kinds(history, vitals(**changes)) == []


def test_the_remedy_fits_the_recipe():
    """Oracle: the paper's biases if they are the paper's; else the rate, by ten."""
    assert "--variant biases-0.1" in diagnostics.remedy(vary(PAPER, "biases-1"))
    assert diagnostics.remedy(PAPER) == "try --learning-rate 0.001"


# Real runs


class _Hear(Callback):
    def __init__(self):
        self.findings: list[Finding] = []

    def on_finding(self, finding):
        self.findings.append(finding)


def test_the_papers_biases_of_1_are_found_and_reported(image_folder, tmp_path):
    """Oracle: what is known of them: the loss leaps, fc7 dies, the loss stays at a guess's."""
    ears = _Hear()
    wide = tuple(replace(layer, units=1024, stddev=0.01, dropout=0.5) for layer in QUICK.dense)
    recipe = replace(QUICK, dense=wide, output_stddev=0.01, epochs=12, learning_rate=0.02)
    literal = vary(recipe, "biases-1")
    data = tmp_path / "data"
    splitting.write(plan_split(scanning.scan(image_folder), val=0.3), data)
    report = run(data, tmp_path / "runs", literal, callback=ears)
    told = {finding.kind: finding for finding in ears.findings}
    assert {"exploded", "dead", "flat", "one class"} <= told.keys()
    assert "fc7" in told["dead"].evidence
    assert "guessing without a look" in told["flat"].evidence
    assert all("--variant biases-0.1" in finding.remedy for finding in ears.findings)
    assert report.findings == tuple(ears.findings) == RunFolder(report.run).checkpoint().findings
    text = (report.run / "report.md").read_text()
    assert all(finding.evidence in text for finding in ears.findings)
    ears.findings.clear()
    start_and_resume.resume(report.run, devices=choose_devices(0), epochs=13, callback=ears)
    assert ears.findings == []  # told once, also over an interruption


@pytest.mark.parametrize(
    ("n", "balance", "expected"),
    [(30, False, ["unequal"]), (29, False, []), (300, True, [])],
)
def test_a_class_that_dwarfs_another_is_found_before_the_first_epoch(n, balance, expected):
    """Oracle: ten times three, by hand; and silence where the remedy is taken already."""
    found = diagnostics.examine_classes({"a": 3, "b": n, "c": 9}, replace(PAPER, balance=balance))
    assert [finding.kind for finding in found] == expected
    for finding in found:
        assert finding.evidence == "b has 30 training images, a 3"
        assert finding.remedy.endswith("try --set balance=true")


def test_unequal_classes_are_told_and_balance_keeps_the_rare_one(image_folder, tmp_path):
    """Oracle: 1 in 12 of the images is what a constant guess of the others would lose."""
    source = tmp_path / "unequal"
    for path in sorted(image_folder.rglob("*.png")):
        if path.parent.name != "red" or path.name in ("0.png", "1.png"):
            copy = source / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    ears = _Hear()
    report = run(source, tmp_path / "runs", replace(QUICK, epochs=1), callback=ears)
    assert [finding.kind for finding in report.findings] == ["unequal"]
    assert ears.findings == list(report.findings)
    assert "red 1" in ears.findings[0].evidence
    balanced = replace(QUICK, epochs=1, balance=True)
    assert run(source, tmp_path / "runs", balanced).findings == ()


def test_the_best_guess_without_a_look_is_the_entropy_of_the_mean_target():
    """Oracle: by hand. Of 2000 and 100 images with smoothing 0.1, shares 0.907 and 0.093.

    A run that learns these perfectly keeps the entropy of its smoothed targets, 0.199, which must not
    look flat beside the 0.191 of the bare shares.
    """
    counts = np.array([2000, 100])
    bare = -(20 / 21 * np.log(20 / 21) + 1 / 21 * np.log(1 / 21))
    assert metrics.guess_loss(counts, 0.0, balance=False) == pytest.approx(bare)
    smoothed = metrics.guess_loss(counts, 0.1, balance=False)
    q = 0.9 / 21 + 0.05
    assert smoothed == pytest.approx(-q * np.log(q) - (1 - q) * np.log(1 - q))
    perfect = -(0.95 * np.log(0.95) + 0.05 * np.log(0.05))
    assert bare < perfect < 0.7 * smoothed
    assert metrics.guess_loss(counts, 0.1, balance=True) == pytest.approx(np.log(2))


def test_a_healthy_run_stays_silent(image_folder, tmp_path):
    """Oracle: a run that learns its colors."""
    ears = _Hear()
    report = run(image_folder, tmp_path, replace(QUICK, epochs=8), callback=ears)
    assert report.best.val.top1 == 1.0
    assert ears.findings == []
    assert "found no problem" in (report.run / "report.md").read_text()


def test_a_run_that_learns_labels_by_heart_has_turned(tmp_path):
    """Oracle: labels drawn at random, which can be learned and never guessed."""
    random = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            color = random.integers(0, 256, 3)
            image = Image.fromarray(np.full((80, 80, 3), color, np.uint8))
            image.save(tmp_path / "data" / name / f"{number}.png")
    dense = tuple(replace(layer, dropout=0.0) for layer in QUICK.dense)
    recipe = replace(QUICK, dense=dense, color_noise=0.0, crop_size=72, rate_drops=0)
    recipe = replace(recipe, learning_rate=0.003, epochs=30)
    ears = _Hear()
    run(tmp_path / "data", tmp_path / "runs", recipe, callback=ears)
    (turned,) = (finding for finding in ears.findings if finding.kind == "turned")
    assert "while the training loss fell" in turned.evidence
    assert "more images" in turned.remedy


def test_a_loss_that_is_no_number_names_the_remedy(image_folder, tmp_path):
    with pytest.raises(AlexNetError, match=r"the loss after .*try --learning-rate 1e\+11"):
        run(image_folder, tmp_path, replace(QUICK, learning_rate=1e12))


def test_dead_units_are_counted_by_layer(image_folder, tmp_path):
    """Oracle: biases by hand that no input overcomes, in half of fc6 and a quarter of conv3."""
    from alexnet_cli.data.statistics import Statistics
    from alexnet_cli.network.architecture import build_alexnet
    from alexnet_cli.network.keras_network import KerasNetwork
    from alexnet_cli.training.scoring import dead_units_of

    model = build_alexnet(QUICK, 3, seed=0)
    for name, share in (("fc6", 2), ("conv3", 4)):
        layer = model.get_layer(name)
        bias = np.full(layer.bias.shape, 1.0, np.float32)
        bias[: len(bias) // share] = -1e9
        layer.bias.assign(bias)
    zeros = Statistics(np.zeros((72, 72, 3), np.float32), np.eye(3))
    crops = np.random.default_rng(0).normal(0, 1, (4, 1, 64, 64, 3)).astype(np.float32)
    dead = dead_units_of(KerasNetwork(model, QUICK, zeros), list(crops))
    assert dead["fc6"] == 0.5
    assert dead["relu3"] == 0.25
    assert dead.keys() == {*(f"relu{number}" for number in range(1, 6)), "fc6", "fc7"}
