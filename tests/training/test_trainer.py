"""Training: results, run folder, schedule, resuming, devices and signals."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    HANG,
    QUICK,
    TESTS,
    TINY,
    assert_close,
    assert_same_run,
    evaluate,
    paint,
    predict,
    run,
    sign,
)
from noise import picture
from PIL import Image
from rich.console import Console

from alexnet_cli.cli import training_view
from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.near_copies import fingerprint
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.inference import evaluation
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.recipes.presets import RELEASED
from alexnet_cli.runs.checkpoint import CheckpointMeta
from alexnet_cli.runs.models import load_model
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.runs.run_folder import BEST, LAST, METRICS, RunFolder
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays
from alexnet_cli.system.signals import Interrupted
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.callbacks import Callback, TrainPlan
from alexnet_cli.training.devices import choose_devices
from alexnet_cli.training.schedule import count_drops, learning_rate, rate_factor

# Results


def test_training_learns_colors(training_report):
    """Oracle: chance is 1/3, and the probability of guessing 3 of 3 and 30 of 33 is below 1e-9."""
    assert training_report.best.val.top1 == 1.0
    assert training_report.best.train.top1 > 0.9


def test_the_contents_of_the_run_folder(trained, training_report, image_folder):
    names = {path.name for path in trained.iterdir()}
    expected = "best.safetensors curves.png history.csv last.safetensors manifest.jsonl metrics.json report.md"
    assert names == {*expected.split(), "config.json", "statistics.safetensors"}
    assert (trained.parent / "latest").resolve() == trained.resolve()
    config = RunFolder(trained).config
    assert config.recipe == QUICK
    assert config.classes == ("blue", "green", "red")
    assert config.data == str(image_folder)
    assert config.versions.keys() >= {"alexnet", "python", "tensorflow", "keras", "numpy", "pillow"}
    with (trained / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    kept = rows[training_report.best.epoch - 1]
    assert float(kept["val_top1"]) == training_report.best.val.top1
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_training_sample_is_measured_as_validation_is(trained):
    """Oracle: the network in NumPy, with the last weights, on single images at equal distances."""
    model = replace(load_model(trained), weights=RunFolder(trained).weights(LAST))
    files, n = model.trained_on.of("train"), len(model.trained_on.of("val"))
    crop, scores, hits = Cropper(model.recipe, model.statistics), [], []
    for number in range(n):
        file = files[round(number * (len(files) - 1) / (n - 1))]
        ((found,),) = model.numpy_network.probabilities([crop(load_image(file, model.recipe))])
        scores.append(found[model.classes.index(file.label)])
        hits.append(scores[-1] == found.max())
    row = RunFolder(trained).checkpoint().history[-1]
    assert row.train_sample_loss == pytest.approx(-np.log(scores).mean(), abs=1e-4)
    assert row.train_sample_top1 == pytest.approx(np.mean(hits))


def test_the_final_metrics_are_in_float32_whatever_the_training(image_folder, tmp_path):
    """Oracle: `evaluate`, and the spacing of bfloat16, 1/256, for the row of the epoch."""
    devices = choose_devices(0, "bfloat16")
    recipe = replace(QUICK, epochs=1)
    folder = start_and_resume.train(image_folder, recipe=recipe, devices=devices, out=tmp_path)
    final, (row,) = folder.metrics().best.val, folder.checkpoint().history
    found = evaluate([folder.path], split="val").one_crop.loss
    assert final.loss == pytest.approx(found, rel=1e-5)
    assert row.val_loss != pytest.approx(found, rel=1e-5)
    assert row.val_loss == pytest.approx(found, rel=0.1)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A run with temperature scaling; 3 of its 60 validation images lie in the wrong class."""
    data = tmp_path_factory.mktemp("calibrated")
    paint(data / "train", per_class=12)
    paint(data / "val", per_class=20, seed=1)
    for name, other in (("blue", "green"), ("green", "red"), ("red", "blue")):
        image = data / "val" / name / "0.png"
        image.rename(data / "val" / other / f"{name}.png")
    recipe = replace(QUICK, epochs=2, temperature_scaling=True)
    return run(data, data / "runs", recipe)


def test_the_temperature_is_fitted_and_the_saved_weights_are_not_scaled(calibrated, tmp_path):
    """Oracle: `evaluate` on validation; a resumed run, whose weights are those of a longer one."""
    metrics, found = calibrated, evaluate([calibrated.run], split="val").one_crop
    assert metrics.calibration.temperature != 1
    assert metrics.calibration.loss < metrics.calibration.uncalibrated_loss
    assert metrics.calibration.uncalibrated_loss == pytest.approx(metrics.best.val.loss, rel=1e-6)
    assert found.loss == pytest.approx(metrics.calibration.loss, rel=1e-4)
    assert found.uncalibrated_loss == pytest.approx(metrics.best.val.loss, rel=1e-4)
    config = RunFolder(calibrated.run).config
    plain = replace(config.recipe, temperature_scaling=False)
    other = run(Path(config.data), tmp_path, plain)
    assert_same_run(calibrated.run, other.run)
    for name in (BEST, LAST):
        ours, theirs = (load_arrays(path / name) for path in (calibrated.run, other.run))
        np.testing.assert_array_equal(ours["fc8/kernel"], theirs["fc8/kernel"])
    assert other.calibration is None
    assert other.best == metrics.best


def test_a_network_with_logits_times_three_is_mended(calibrated, tmp_path):
    """Oracle: a network whose best temperature is 1, before its last layer is multiplied by 3.

    A run without metrics.json is scored when it is resumed.
    """
    copy = Path(shutil.copytree(calibrated.run, tmp_path / "run"))
    arrays, notes = dict(load_arrays(copy / BEST)), read_notes(copy / BEST)
    expected = calibrated.calibration
    for name in ("fc8/kernel", "fc8/bias"):
        arrays[name] = arrays[name] * np.float32(3 / expected.temperature)
    save_arrays(copy / BEST, arrays, notes)
    (copy / METRICS).unlink()
    devices = choose_devices(0, "float32")
    found = start_and_resume.resume(copy, devices=devices).metrics().calibration
    assert found.temperature == pytest.approx(3, rel=0.02)
    assert found.loss == pytest.approx(expected.loss, rel=0.02)
    assert found.uncalibrated_loss > 1.1 * expected.loss


def test_evaluate_and_predict_agree_with_the_final_metrics(image_folder, tmp_path):
    """Oracle: three ways to compute the same metrics, the last from single files in another order.

    After one epoch, as the logarithm of a probability near 1 has few digits left in float32.
    """
    one = run(image_folder, tmp_path, replace(QUICK, epochs=1)).run
    metrics = json.loads((one / "metrics.json").read_text())
    for split in ("train", "val"):
        report = evaluate([one], split=split)
        kept = metrics["best"][split]
        assert report.one_crop.n == kept["n"]
        assert report.one_crop.top1 == kept["top1"]
        assert report.one_crop.loss == pytest.approx(kept["loss"], rel=1e-5)
        assert report.matrix.sum() == kept["n"]
    manifest = RunFolder(one).manifest
    for ten_crop in (False, True):
        report = evaluate([one], split="train", ten_crop=ten_crop)
        files = manifest.of("train")[::-1]
        outcomes = list(predict([f.path for f in files], [one], ten_crop=ten_crop))
        assert [outcome.file.path for outcome in outcomes] == [file.path for file in files]
        true = [
            outcome.probabilities[outcome.classes.index(file.label)]
            for outcome, file in zip(outcomes, files)
        ]
        assert -np.log(true).mean() == pytest.approx(report.score.loss, rel=1e-5)
        assert all(sum(o.probabilities) == pytest.approx(1, abs=1e-6) for o in outcomes)


def test_evaluate_counts_images_that_were_trained_on(
    trained, training_report, image_folder, tmp_path
):
    """Oracle: copies of the images in another folder: 36, of which 33 were trained on."""
    copy = tmp_path / "copy"
    for path in image_folder.rglob("*.png"):
        target = copy / path.relative_to(image_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    report = evaluate([trained], copy)
    assert (report.split, report.one_crop.n, report.n_trained_on) == (
        "all",
        36,
        training_report.best.train.n,
    )


def test_evaluate_counts_near_copies_of_training_images(trained, tmp_path):
    """Oracle: of nine pictures saved again, the four that are in the manifest as trained on."""
    pictures = [picture(seed) for seed in range(9)]
    for number, label in enumerate(["blue", "green", "red"] * 3):
        (tmp_path / "again" / label).mkdir(parents=True, exist_ok=True)
        pictures[number].save(tmp_path / "again" / label / f"{number}.jpg", quality=60)
    model = load_model(trained)
    manifest = model.run.manifest
    chosen = {file: pictures[number] for number, file in enumerate(manifest.of("train")[:4])}
    chosen[manifest.of("val")[0]] = pictures[4]
    model.run.manifest = replace(
        manifest,
        files=tuple(
            replace(file, fingerprint=fingerprint(chosen[file]) if file in chosen else "")
            for file in manifest.files
        ),
    )
    assert evaluation.evaluate([model], tmp_path / "again").n_trained_on == 4


def test_evaluate_refuses_other_classes(trained, image_folder, tmp_path):
    for name in ("blue", "mauve"):
        (tmp_path / "data" / name).mkdir(parents=True)
        image = (image_folder / "blue" / "0.png").read_bytes()
        for number in range(2):
            (tmp_path / "data" / name / f"{number}.png").write_bytes(image + bytes(number))
    with pytest.raises(AlexNetError, match=r"not know mauve; the data lacks green, red"):
        evaluate([trained], tmp_path / "data")


# The schedule


def epoch_row(epoch, val_top1, val_loss=1.0):
    return EpochRow(epoch, 1.0, 0.5, 1.0, 0.5, val_loss, val_top1, None, 0.01, 100.0, 1.0)


def rates_of(recipe, tops):
    """Return the learning rate of every epoch for validation accuracies `tops`."""
    history = [epoch_row(epoch, top1) for epoch, top1 in enumerate(tops, start=1)]
    return [learning_rate(recipe, history[:n]) for n in range(len(tops))]


def test_the_rate_drops_by_ten_three_times_at_most():
    """Oracle: a run by hand with patience 2; the count restarts at each drop."""
    tops = [0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    rates = rates_of(replace(TINY, patience=2), tops)
    assert rates == pytest.approx([1e-2] * 4 + [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 4)


@pytest.mark.parametrize(
    ("n_val", "tops", "expected"),
    [
        (100, [0.5, 0.80, 0.77, 0.75], 3),  # 0.04 is one standard error of 0.8; 0.75 is worse
        (10_000, [0.5, 0.80, 0.77, 0.797], 4),  # 0.004
        (10_000, [0.5, 0.80, 0.77, 0.795], 2),
        (20, [0.75, 0.75, 0.70, 0.5], 3),
        (4, [1.0, 1.0, 0.75], 2),  # without an error, one of four is worse
        (4, [0.75, 0.5], 2),  # (1 + z²/2 + √(1 · 3 / 4 + z²/4)) / (4 + z²) is 0.5 with z = 1
        (100, [0.0, 0.0], 2),
        (4, [], 0),
    ],
)
def test_the_latest_epoch_within_a_standard_error_of_the_lowest_error_is_best(
    n_val, tops, expected
):
    """Oracle: by hand, the standard error √(p (1 − p) / n) of a share p of n images; Wilson 1927."""
    history = tuple(epoch_row(epoch, top1) for epoch, top1 in enumerate(tops, start=1))
    assert CheckpointMeta(9, history).epoch_to_keep(n_val) == expected


@pytest.mark.parametrize("n_val", [1, 6, 20, 100, 331])
def test_the_weights_on_disk_are_those_that_the_whole_history_names(n_val):
    """Law: weights are kept epoch by epoch, and the last ones kept are those of the final best."""
    shares = np.random.default_rng(n_val).integers(0, n_val, 60, endpoint=True) / n_val
    history = tuple(epoch_row(epoch, top1) for epoch, top1 in enumerate(shares.tolist(), start=1))
    kept = [n for n in range(1, 61) if CheckpointMeta(60, history[:n]).epoch_to_keep(n_val) == n]
    assert kept[-1] == CheckpointMeta(60, history).epoch_to_keep(n_val)
    assert all(
        CheckpointMeta(60, (epoch_row(1, 0.0),)).epoch_to_keep(n) == 1 for n in range(1, 400)
    )


def test_a_lower_loss_is_no_improvement():
    """Oracle: by hand: with patience 3 the rate drops after epoch 4."""
    history = [epoch_row(n, 0.5, loss) for n, loss in enumerate([1.0, 0.9, 0.95, 0.8], start=1)]
    recipe = replace(TINY, patience=3)
    assert [count_drops(recipe, history[:n]) for n in range(5)] == [0, 0, 0, 0, 1]


def test_a_recipe_without_drops_keeps_its_rate():
    recipe = replace(TINY, patience=1, rate_drops=0, learning_rate=0.001)
    assert rates_of(recipe, [0.5] * 9) == [0.001] * 9


def test_the_rate_drops_at_the_fractions_in_the_recipe():
    """Oracle: the released log: rates of 91 epochs that fall after 25, 51 and 79."""
    expected = [1e-2] * 25 + [1e-3] * 26 + [1e-4] * 28 + [1e-5] * 12
    assert rates_of(RELEASED, [0.5] * 91) == pytest.approx(expected)


def test_the_rate_rises_and_then_falls_along_a_cosine():
    """Oracle: Loshchilov and Hutter's formula, at the middle of each of ten epochs, in NumPy."""
    recipe = replace(TINY, epochs=10, learning_rate=0.4, warmup=0.2, cosine=True)
    middles = (np.arange(10) + 0.5) / 10
    falling = 0.2 * (1 + np.cos(np.pi * (middles - 0.2) / 0.8))
    expected = np.where(middles < 0.2, 0.4 * middles / 0.2, falling)
    np.testing.assert_allclose(rates_of(recipe, [0.5] * 10), expected, rtol=1e-12)
    constant = rates_of(replace(recipe, cosine=False), [0.5] * 10)
    assert [constant[n] for n in (0, 1, 2, 8)] == pytest.approx([0.1, 0.3, 0.4, 0.4])


def test_a_warm_up_does_not_change_the_later_drops():
    """Oracle: by hand, patience 2 and validation that never improves after the first epoch."""
    rates = rates_of(replace(TINY, epochs=10, warmup=0.1, patience=2), [0.5] * 8)
    assert rates == pytest.approx([5e-3, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5])
    planned = replace(RELEASED, epochs=91, warmup=0.01)
    assert rates_of(planned, [0.5] * 60)[59] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, [0.01]), (2, [0.01, 1e-4]), (3, [0.01, 1e-3, 1e-4])]
)
def test_no_drop_comes_before_the_first_epoch(epochs, expected):
    """Oracle: by hand; 0.1 of two epochs is before the first, 0.6 is after the first."""
    recipe = replace(TINY, epochs=epochs, drop_at=(0.1, 0.6, 1.0))
    assert rates_of(recipe, [0.5] * epochs) == pytest.approx(expected)


def test_first_layers_are_slowed_then_frozen_and_biases_learn_at_twice_the_rate(
    image_folder, tmp_path
):
    """Oracle: the initial weights, bit for bit; ε of each variable by hand."""
    late = replace(QUICK, epochs=4, bias_rate=2.0, weight_decay=0.0)
    frozen = run(image_folder, tmp_path / "a", replace(late, freeze_from=0.0, momentum=0.0))
    start = build_alexnet(late, 3, seed=0)
    arrays = load_arrays(frozen.run / "last.safetensors")
    for variable in start.weights:
        same = np.array_equal(variable.numpy(), arrays[variable.path])
        assert same == variable.path.startswith(("conv1/", "conv2/")), variable.path
    for slow, freeze, factor in ((1.0, 1.0, 1.0), (0.0, 1.0, 0.1), (0.0, 0.0, 0.0)):
        slowed = replace(late, slow_from=slow, freeze_from=freeze)
        for variable in start.trainable_variables:
            expected = 2.0 if variable.path.endswith("bias") else 1.0
            first = variable.path.startswith(("conv1/", "conv2/"))
            expected *= factor if first else 1
            assert rate_factor(slowed, 1, variable.path) == pytest.approx(expected)


# Resuming


def test_resuming_gives_the_weights_of_an_uninterrupted_run(
    trained, training_report, image_folder, tmp_path
):
    """Oracle: four epochs at once, bit for bit, dropout, order and velocities included."""
    half = run(image_folder, tmp_path, replace(QUICK, epochs=2))
    whole = start_and_resume.resume(half.run, devices=choose_devices(0), epochs=4)
    assert_same_run(trained, whole.path)
    assert whole.metrics().best == training_report.best


def test_the_weights_that_are_kept_are_those_of_the_best_epoch(tmp_path):
    """Oracle: the history, and the number in the file; the labels are random, so accuracy hops."""
    random = np.random.default_rng(0)
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            color = np.full((80, 80, 3), random.integers(0, 256, 3), np.uint8)
            Image.fromarray(color).save(tmp_path / "data" / name / f"{number}.png")
    marked = []

    class Marks(Callback):
        def on_epoch_end(self, row, best):
            marked.append(row.epoch if best else 0)

    recipe = replace(QUICK, epochs=8, learning_rate=0.02)
    report = run(tmp_path / "data", tmp_path / "runs", recipe, callback=Marks())
    folder = RunFolder.find(report.run)
    history = folder.checkpoint().history
    assert marked == [
        n if CheckpointMeta(8, history[:n]).epoch_to_keep(24) == n else 0 for n in range(1, 9)
    ]
    assert max(marked) == folder.best_epoch() == report.best.epoch
    assert report.best.val.top1 == pytest.approx(history[max(marked) - 1].val_top1)


def test_the_final_metrics_name_the_epoch_of_the_weights_on_disk(run_copy, training_report):
    """Oracle: the file, whatever the history says; the last epoch is scored by its own weights."""
    arrays = {name: array * 0 for name, array in load_arrays(run_copy / BEST).items()}
    save_arrays(run_copy / BEST, arrays, {"epoch": 2})
    (run_copy / METRICS).unlink()
    scored = start_and_resume.resume(run_copy, devices=choose_devices(0)).metrics()
    assert (scored.best.epoch, scored.last.epoch) == (2, 4)
    assert scored.best.val.top1 == pytest.approx(1 / 3)  # all weights are 0: always the first class
    assert scored.last == training_report.last


class _Leave(Callback):
    """Presses Ctrl-C after an epoch."""

    def __init__(self, after):
        self.after = after

    def on_epoch_end(self, row, best):
        if row.epoch == self.after:
            raise KeyboardInterrupt


def test_an_extended_run_continues_to_its_new_end(image_folder, tmp_path):
    """Oracle: the cosine of two epochs, then that of four, in NumPy; the second resume does not repeat the number."""
    run(image_folder, tmp_path, replace(QUICK, epochs=2, cosine=True))
    device = choose_devices(0, "float32")
    with pytest.raises(Interrupted, match="Saved up to epoch 3"):
        start_and_resume.resume(
            tmp_path / "latest", devices=device, epochs=4, callback=_Leave(after=3)
        )
    resumed = start_and_resume.resume(tmp_path / "latest", devices=device)
    parts = np.array([0.5 / 2, 1.5 / 2, 2.5 / 4, 3.5 / 4])
    rates = [row.learning_rate for row in resumed.checkpoint().history]
    np.testing.assert_allclose(rates, 0.01 * (1 + np.cos(np.pi * parts)) / 2, rtol=1e-6)


def test_a_run_can_be_ended_early(image_folder, tmp_path):
    """Oracle: final metrics without further training; no more epochs than requested."""
    device = choose_devices(0, "float32")
    with pytest.raises(Interrupted, match="Saved up to epoch 2"):
        run(image_folder, tmp_path, replace(QUICK, epochs=5), callback=_Leave(after=2))
    weights = load_arrays(tmp_path / "latest" / "last.safetensors")["fc6/kernel"].copy()
    resumed = start_and_resume.resume(tmp_path / "latest", devices=device, epochs=2)
    assert resumed.metrics().last.epoch == resumed.recipe().epochs == 2
    np.testing.assert_array_equal(
        load_arrays(resumed.path / "last.safetensors")["fc6/kernel"], weights
    )
    with pytest.raises(UsageError, match="already trained to epoch 2"):
        start_and_resume.resume(tmp_path / "latest", devices=device)
    with pytest.raises(Interrupted, match="Saved up to epoch 3"):
        start_and_resume.resume(
            tmp_path / "latest", devices=device, epochs=4, callback=_Leave(after=3)
        )
    assert start_and_resume.resume(tmp_path / "latest", devices=device).metrics().last.epoch == 4


def test_a_run_is_resumed_from_within_its_folder(image_folder, tmp_path, monkeypatch):
    """Oracle: the run that `latest` points to, and its last epoch."""
    one = run(image_folder, tmp_path, replace(QUICK, epochs=1)).run
    monkeypatch.chdir(one)
    resumed = start_and_resume.resume(Path(), devices=choose_devices(0, "float32"), epochs=2)
    assert resumed.metrics().last.epoch == 2
    assert (tmp_path / "latest").resolve() == one.resolve()
    (tmp_path / ".latest").mkdir()  # the link can't be created, which must not stop the training
    resumed.write_records(resumed.checkpoint(), resumed.recipe())


class _StopInside(Callback):
    """Sends SIGTERM after the first step of the second epoch."""

    def on_batch_end(self, epoch, done, total):
        if epoch == 2:
            signal.raise_signal(signal.SIGTERM)


def test_a_run_can_not_be_ended_within_an_epoch(image_folder, tmp_path):
    """Oracle: an error with the epoch; the same run then continues to its end."""
    device = choose_devices(0, "float32")
    with pytest.raises(Interrupted, match="of epoch 2"):
        run(image_folder, tmp_path, replace(QUICK, epochs=2), callback=_StopInside())
    with pytest.raises(UsageError, match=r"must be at least 2: .* stopped inside that epoch"):
        start_and_resume.resume(tmp_path / "latest", devices=device, epochs=1)
    assert start_and_resume.resume(tmp_path / "latest", devices=device).metrics().last.epoch == 2


def test_another_seed_gives_another_result(trained, image_folder, tmp_path):
    """Oracle: the loss of the first epoch with seed 0."""
    other = run(image_folder, tmp_path, replace(QUICK, epochs=1), seed=1).run
    (one, *_), (first,) = (RunFolder(path).checkpoint().history for path in (trained, other))
    assert one.train_loss != first.train_loss


def test_resuming_a_finished_run_is_an_error(trained):
    with pytest.raises(UsageError, match="already trained to epoch 4"):
        start_and_resume.resume(trained, devices=choose_devices(0))


@pytest.mark.parametrize("damage", ["cut", "shape"])
def test_a_damaged_checkpoint_is_refused(trained, tmp_path, damage):
    copy = tmp_path / "run"
    copy.mkdir()
    for path in trained.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    if damage == "cut":
        (copy / "last.safetensors").write_bytes((copy / "last.safetensors").read_bytes()[:-100])
    else:
        config = json.loads((copy / "config.json").read_text())
        config["recipe"]["dense"][0]["units"] = 17
        (copy / "config.json").write_text(json.dumps(config))
        sign(copy)
    with pytest.raises(AlexNetError, match=r"last\.safetensors: "):
        start_and_resume.resume(copy, devices=choose_devices(0), epochs=9)


def test_a_diverging_run_stops_and_leaves_nothing(image_folder, tmp_path):
    wild = replace(QUICK, learning_rate=1e12)
    with pytest.raises(AlexNetError, match=r"epoch 1: the loss after .*, at learning rate 1e\+12"):
        run(image_folder, tmp_path, wild)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_earlier_runs_survive_a_failed_start(image_folder, tmp_path, monkeypatch):
    """Oracle: a file of an earlier run, after a start on a full disk."""
    earlier = tmp_path / "earlier" / "best.safetensors"
    earlier.parent.mkdir()
    earlier.write_bytes(b"weights")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("alexnet_cli.runs.run_folder._new_folder", full)
    with pytest.raises(AlexNetError, match="No space left"):
        run(image_folder, tmp_path)
    assert earlier.read_bytes() == b"weights"


# Processes: devices and signals

SCRIPT = """
import dataclasses, sys
import tensorflow as tf
sys.path.insert(0, {tests!r})
n = int(sys.argv[3])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * n)
import helpers
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.devices import Devices
from pathlib import Path
names = [f"/cpu:{{i}}" for i in range(n)]
strategy = (
    tf.distribute.MirroredStrategy(names) if n > 1 else tf.distribute.OneDeviceStrategy(names[0])
)
recipe = dataclasses.replace(helpers.{recipe}, **{changes})
class Wait(start_and_resume.Callback):
    def on_batch_end(self, epoch, done, total):
        if (str(epoch), done) == (sys.argv[4], recipe.batch_size):
            print("within epoch", epoch, flush=True)
            sys.stdin.readline()
start_and_resume.train(
    Path(sys.argv[1]), recipe=recipe, devices=Devices(strategy, tuple(names), "float32"),
    out=Path(sys.argv[2]), callback=Wait(),
)
"""


def start(data, out, *, n_devices=1, wait_in_epoch=0, recipe="QUICK", changes="{}"):
    """Train in a process that can report the start of an epoch and wait for a line of input."""
    script = SCRIPT.format(tests=str(TESTS), recipe=recipe, changes=changes)
    arguments = [data, out, n_devices, wait_in_epoch]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


@pytest.mark.parametrize(
    ("post_ops", "counts"),
    [(("relu", "pool"), (1, 2, 4)), (("relu", "batch_norm", "pool"), (1, 2))],
)
def test_several_devices_reach_the_weights_of_one(image_folder, tmp_path, post_ops, counts):
    """Oracle: one device, dropout included. Batches of 4 from 33 images: the last is a single image.

    Then one device continues what one, and what two began.
    """
    convs = f"tuple(dataclasses.replace(c, post_ops={post_ops}) for c in helpers.PLAIN.convs)"
    changes = f"dict(epochs=1, kmeans_init=True, convs={convs})"
    options = {"recipe": "PLAIN", "changes": changes}
    processes = {n: start(image_folder, tmp_path / str(n), n_devices=n, **options) for n in counts}
    for process in processes.values():
        _, errors = process.communicate(timeout=HANG)
        assert process.returncode == 0, errors
    last = {n: tmp_path / str(n) / "latest" / "last.safetensors" for n in processes}
    states = {n: load_arrays(path) for n, path in last.items()}
    for n_devices in counts[1:]:
        assert_close(states[n_devices], states[1])
    assert np.abs(states[1]["velocity/fc8/kernel"]).max() > 1e-5  # large enough to show differences
    for n_devices in (1, 2):
        path = last[n_devices].parent
        start_and_resume.resume(path, devices=choose_devices(0, "float32"), epochs=2)
    assert_close(load_arrays(last[2]), load_arrays(last[1]))


def test_ctrl_c_saves_up_to_the_last_step(trained, image_folder, tmp_path):
    """Oracle: an uninterrupted run, bit for bit."""
    process = start(image_folder, tmp_path, wait_in_epoch=2)
    assert process.stdout.readline() == "within epoch 2\n", process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate("\n", timeout=HANG)
    assert re.search(
        r"Saved up to image \d+ of epoch 2; continue with: alexnet train --resume", errors
    )
    (cut,) = (path for path in tmp_path.iterdir() if not path.is_symlink())
    start_and_resume.resume(cut, devices=choose_devices(0))
    assert_same_run(cut, trained)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_three_times_equals_an_uninterrupted_run(
    trained, image_folder, tmp_path, number
):
    """Oracle: an uninterrupted run: weights, velocities, dropout and sums bit for bit."""
    moments = [(1, 8), (2, 4), (2, 33)]  # within the first epoch, and after all of an epoch's steps

    class StopRequest(Callback):
        def on_batch_end(self, epoch, done, total):
            if moments and (epoch, done) == moments[0]:
                moments.pop(0)
                os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="up to image 8 of epoch 1") as stopped:
        run(image_folder, tmp_path, callback=StopRequest())
    assert stopped.value.exit_code == 128 + number
    (path,) = tmp_path.iterdir()
    with pytest.raises(AlexNetError, match=r"best.safetensors is missing; resume it"):
        RunFolder.find(path)
    while moments:
        with pytest.raises(Interrupted, match="Saved up to image"):
            start_and_resume.resume(path, devices=choose_devices(0), callback=StopRequest())
    start_and_resume.resume(path, devices=choose_devices(0))
    assert_same_run(path, trained)
    again, whole = (load_arrays(p / "best.safetensors") for p in (path, trained))
    assert {n: a.tobytes() for n, a in again.items()} == {n: a.tobytes() for n, a in whole.items()}


def test_a_second_ctrl_c_in_the_first_epoch_leaves_nothing(image_folder, tmp_path):
    class StopRequest(Callback):
        def on_batch_end(self, epoch, done, total):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="Nothing was saved"):
        run(image_folder, tmp_path, callback=StopRequest())
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_killed_process_can_be_resumed(trained, image_folder, tmp_path):
    """Oracle: as above, after SIGKILL within a later epoch."""
    process = start(image_folder, tmp_path, wait_in_epoch=3)
    assert process.stdout.readline() == "within epoch 3\n", process.stderr.read()
    process.kill()
    process.communicate(timeout=HANG)
    cut = (tmp_path / "latest").resolve()
    assert RunFolder(cut).checkpoint().epoch == 2
    start_and_resume.resume(cut, devices=choose_devices(0))
    assert_same_run(cut, trained)


def test_progress_counts_images_of_this_process_only(trained, training_report, monkeypatch):
    """Oracle: by hand. Resumed after 90 of 100 images; 10 more in a second are 10 images/s."""
    now, console = [0.0], Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(training_view.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training_view.TrainingView, "SILENCE_SECONDS", 0)
    plan = TrainPlan(
        run=trained,
        config=RunFolder(trained).config,
        n_images={"train": 100, "val": 9},
        n_parameters=1,
        devices=("CPU",),
        workers=(),
        rank=0,
        first_epoch=3,
        n_done=90,
        transferred=(),
        decoded_in=None,
    )
    shown = training_view.TrainingView(console)
    shown.on_train_begin(plan)
    now[0] = 1.0
    shown.on_batch_end(3, 100, 100)
    assert "epoch 3/4: 100 of 100, 10 images/s, 10 s left" in console.file.getvalue()
    row = EpochRow(100, 12.3456, 0.1234, 9.9, 0.9, 12.3456, 0.1234, None, 0.000123, 1234.5, 1234.5)
    shown.on_epoch_end(row, best=True)
    shown.on_epoch_end(row, best=False)
    *_, head, _, best, row = (line for line in console.file.getvalue().splitlines() if line)
    assert len(head) == len(row) < len(best) < 80  # a terminal's width
    assert " ".join(best.split()) == "100 12.3456 0.1234 12.3456 0.1234 0.00012 1234.5 best"
    final = RunFolder(trained).metrics()
    for epoch, n_rows in ((final.best.epoch, 2), (final.best.epoch + 1, 4)):
        shown = replace(final, last=replace(final.last, epoch=epoch))
        training_view.show_training(console, trained, shown)
        table = console.file.getvalue().rpartition("final metrics")[2]
        assert table.count("best ") + table.count("last ") == n_rows
    for folder, model in (("runs/r", ""), ("elsewhere/r", " --model elsewhere/r")):
        training_view.show_training(console, Path(folder), RunFolder(trained).metrics())
        assert f"next: alexnet evaluate{model}, or" in console.file.getvalue().splitlines()[-1]
