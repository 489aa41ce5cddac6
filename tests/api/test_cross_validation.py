"""A cross-validation: every image judged once, interrupted at any moment, and used as one model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import HANG, PLAIN, TESTS, assert_same_run
from typer.testing import CliRunner

import alexnet_cli as alexnet
from alexnet_cli.cli import app
from alexnet_cli.data.manifest import read_manifest
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.reports.reproduce import train_commands

RECIPE = replace(PLAIN, epochs=8, learning_rate=1e-3)
OPTIONS = {"folds": 2, "recipe": RECIPE, "gpus": 0, "precision": "float32", "seed": 3}


@pytest.fixture(scope="module")
def data(image_folder, tmp_path_factory):
    """A split of the images, whose division a cross-validation ignores."""
    return alexnet.split(image_folder, tmp_path_factory.mktemp("split") / "data").root


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A cross-validation that nothing disturbed, and its report; do not write into it."""
    out = tmp_path_factory.mktemp("crossval") / "whole"
    return out, alexnet.crossval(data, out=out, **OPTIONS)


def test_the_pooled_figures_are_those_of_each_image_judged_by_its_fold(whole, data):
    """Oracle: the models of the runs, loaded one by one, and hits counted here."""
    out, report = whole
    matrix, hits = np.zeros((3, 3), int), 0
    for fold in ("fold-1", "fold-2"):
        model = alexnet.load(out / fold)
        files = alexnet.Run(out / fold)._folder.manifest.of("test")
        predicted = model.probabilities([file.path for file in files]).argmax(axis=1)
        for file, number in zip(files, predicted):
            matrix[model.classes.index(file.label), number] += 1
            hits += model.classes[number] == file.label
    assert report.details.matrix.tolist() == matrix.tolist()
    assert (report.score.n, report.score.top1) == (36, hits / 36)
    z, p = 1.959964, hits / 36  # Wilson 1927, written out
    center, half = p + z**2 / 72, z * np.sqrt(p * (1 - p) / 36 + z**2 / (4 * 36**2))
    expected = [(center + sign * half) / (1 + z**2 / 36) for sign in (-1, 1)]
    assert report.details.top1_interval == pytest.approx(expected, abs=1e-9)
    saved = json.loads((out / "metrics.json").read_text())
    assert saved["matrix"] == matrix.tolist()
    assert [Path(member["path"]).name for member in saved["members"]] == ["fold-1", "fold-2"]
    assert {"report.html", "suspects.csv", "confusion-folds.png"} <= {p.name for p in out.iterdir()}
    page = " ".join((out / "report.html").read_text().split())
    assert "judged once, by the network of its fold" in page
    assert f"alexnet evaluate {data} --model {out} --report" in page
    assert "averaged" not in page
    assert page.count("hyperparameters differ from the paper") == 1  # all folds have one recipe


def test_evaluate_pools_its_own_images_and_averages_for_others(whole, data, image_folder, tmp_path):
    """Oracle: the pooled report; for a copy of one image elsewhere, the mean computed here."""
    out, report = whole
    copied = Path(shutil.copytree(out, tmp_path / "crossval", symlinks=True))
    done = CliRunner().invoke(app.app, ["evaluate", str(data), "--model", str(copied)])
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    assert f"folds: top-1 {report.score.top1:.4f}" in shown
    assert "fold 2, one crop" in shown
    assert "averaged" not in shown
    model = alexnet.load(copied)
    picture = next((data / "train" / "red").iterdir())
    alone = [alexnet.load(out / f).probabilities(picture) for f in ("fold-1", "fold-2")]
    np.testing.assert_allclose(model.probabilities(picture), np.mean(alone, axis=0), rtol=1e-6)
    with pytest.raises(alexnet.AlexNetError, match="split='val': leave it out"):
        model.evaluate(split="val")
    elsewhere = model.evaluate(shutil.copytree(image_folder, tmp_path / "elsewhere")).details
    manifests = [alexnet.Run(out / fold)._folder.manifest for fold in ("fold-1", "fold-2")]
    trained_on = {file.sha256 for manifest in manifests for file in manifest.of("train")}
    assert (elsewhere.split, elsewhere.n_trained_on) == ("all", len(trained_on))


def test_the_command_that_repeats_it(whole, data):
    """Oracle: the options as they are typed; a recipe that the command line knows by name."""
    run = alexnet.Run(whole[0] / "fold-1")
    config = replace(run.config, recipe=PAPER)
    _, command = train_commands(config, run._folder.manifest, PAPER.epochs, folds=2)
    expected = f"alexnet crossval {data} --folds 2 --recipe paper --seed 3"
    assert command == f"{expected} --precision float32"


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
from test_cross_validation import OPTIONS
import alexnet_cli as alexnet

class Kill(alexnet.Callback):
    def on_epoch_end(self, row, *, best):
        os.kill(os.getpid(), signal.SIGKILL)

alexnet.crossval(sys.argv[3], out=sys.argv[4], callback=Kill(), **OPTIONS)
"""


def test_a_cross_validation_that_is_killed_goes_on(whole, data, tmp_path):
    """Oracle: the undisturbed one, bit for bit; SIGKILL after the first epoch of fold 2."""
    out = Path(shutil.copytree(whole[0], tmp_path / "killed", symlinks=True))
    shutil.rmtree(out / "fold-2")
    places = [str(TESTS), str(TESTS / "api"), str(data), str(out)]
    command = [sys.executable, "-c", KILLED, *places]
    killed = subprocess.run(command, check=False, timeout=HANG, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(alexnet.AlexNetError, match="fold-2: not trained yet"):
        alexnet.load(out)
    first = (out / "fold-1" / "last.safetensors").stat().st_mtime_ns
    alexnet.crossval(data, out=out, **OPTIONS)
    assert (out / "fold-1" / "last.safetensors").stat().st_mtime_ns == first
    assert_same_run(out / "fold-2", whole[0] / "fold-2")
    (a, b) = (json.loads((path / "metrics.json").read_text()) for path in (out, whole[0]))
    assert (a["matrix"], a["one_crop"]) == (b["matrix"], b["one_crop"])


def test_a_fold_without_a_checkpoint_begins_again_and_a_signal_asks_for_the_same_command(
    whole, data, tmp_path
):
    """Oracle: what a kill before the first checkpoint leaves; the exit code of SIGTERM."""
    out = Path(shutil.copytree(whole[0], tmp_path / "out", symlinks=True))
    for name in ("last.safetensors", "best.safetensors", "metrics.json", "statistics.safetensors"):
        (out / "fold-2" / name).unlink()
    plans = []

    class Stop(alexnet.Callback):
        def on_train_begin(self, plan):
            plans.append(plan)

        def on_batch_end(self, epoch, done, total):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(alexnet.AlexNetError, match="fold-2; the same command continues") as stopped:
        alexnet.crossval(data, out=out, callback=Stop(), **OPTIONS)
    assert stopped.value.exit_code == 143
    assert [(plan.run, plan.first_epoch) for plan in plans] == [(out / "fold-2", 1)]
    assert (out / "fold-2" / "last.safetensors").exists()


def test_other_settings_images_and_folders_are_refused(whole, data, tmp_path):
    """Oracle: the name of what differs; nothing is changed."""
    out = Path(shutil.copytree(whole[0], tmp_path / "out", symlinks=True))
    fewer = {"recipe": replace(RECIPE, epochs=7)}
    other = "fold-1: began with other options or images"
    for changed, what in (fewer, other), ({"seed": 4}, other), ({"folds": 3}, "began with 2 folds"):
        with pytest.raises(alexnet.AlexNetError, match=what):
            alexnet.crossval(data, out=out, **OPTIONS | changed)
    with pytest.raises(alexnet.AlexNetError, match=r"is inside .*, whose folders are classes"):
        alexnet.crossval(data, out=data / "train" / "red" / "x", **OPTIONS)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("mine")
    with pytest.raises(alexnet.AlexNetError, match="is not empty and no cross-validation"):
        alexnet.crossval(data, out=tmp_path / "own", **OPTIONS)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["letter.txt"]


def test_a_list_with_groups_is_cross_validated(image_folder, tmp_path):
    """Oracle: the rows of the list; it is interrupted in the first epoch, as folds are planned by then."""
    images = sorted(image_folder.rglob("*.png"))
    rows = [f"{path};{path.parent.name};group {number // 3}" for number, path in enumerate(images)]
    table = tmp_path / "images.csv"
    table.write_text("\n".join(["Image;Class;Group", *rows]))

    class Stop(alexnet.Callback):
        def on_batch_end(self, epoch, done, total):
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "out"
    with pytest.raises(alexnet.AlexNetError, match="the same command continues it"):
        alexnet.crossval(table, out=out, callback=Stop(), **OPTIONS)
    files = read_manifest(out / "fold-1" / "manifest.jsonl").files
    assert sorted((str(file.path), file.label) for file in files) == sorted(
        tuple(row.split(";")[:2]) for row in rows
    )
    splits = {row.split(";")[2]: set() for row in rows}
    for file in files:
        splits[file.group].add(file.split)
    assert [len(found) for found in splits.values()] == [1] * 12
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}
