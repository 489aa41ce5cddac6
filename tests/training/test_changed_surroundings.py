"""Changes after the split or the start: damaged images, a new split, another recipe, memory."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import QUICK, evaluate, run

from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.runs import config
from alexnet_cli.system import memory
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import choose_devices
from alexnet_cli.training.step_memory import step_bytes


class Recorder(Callback):
    """Stores what it is notified of."""

    def __init__(self):
        self.rejected, self.plan = [], None

    def on_image_rejected(self, rejected):
        self.rejected.append(rejected)

    def on_train_begin(self, plan):
        self.plan = plan


def resume(path, callback=None, epochs=5):
    return start_and_resume.resume(
        path, devices=choose_devices(0), epochs=epochs, callback=callback
    )


@pytest.fixture
def data(image_folder, tmp_path):
    return split_folders.write(plan_split(scanning.scan(image_folder)), tmp_path / "data").root


# Images


def test_images_damaged_after_the_split_are_skipped_and_listed(data, tmp_path):
    """Oracle: 33 and 3 images in the manifest, minus one damaged image each."""
    train, val = (sorted((data / split).rglob("*.png"))[1] for split in ("train", "val"))
    train.write_bytes(train.read_bytes()[:500])
    val.unlink()
    recorder = Recorder()
    report = run(data, tmp_path / "runs", replace(QUICK, epochs=2), callback=recorder)
    assert {rejected.path for rejected in recorder.rejected} == {train, val}
    assert (report.best.train.n, report.best.val.n) == (32, 2)
    metrics = json.loads((report.run / "metrics.json").read_text())
    assert metrics["best"]["train"]["n"] == 32
    assert metrics["skipped"] == report.skipped
    assert report.skipped.keys() == {str(train), str(val)}
    for split, bad, n in (("train", train, 32), ("val", val, 2)):
        report = evaluate([tmp_path / "runs" / "latest"], split=split)
        assert [rejected.path for rejected in report.rejected] == [bad]
        assert report.one_crop.n == report.matrix.sum() == n
        assert report.one_crop.top1 == metrics["best"][split]["top1"]


def test_training_uses_the_other_images_only(data, tmp_path):
    """Oracle: the top-1 accuracy of the first epoch is a multiple of 1/32, for the 32 other images."""
    sorted((data / "train").rglob("*.png"))[7].unlink()
    report = run(data, tmp_path / "runs", replace(QUICK, epochs=1))
    (row,) = (report.run / "history.csv").read_text().splitlines()[1:]
    hits = float(row.split(",")[2]) * 32
    assert hits == pytest.approx(round(hits), abs=1e-9)


def test_too_many_damaged_images_stop_the_run(data, tmp_path):
    """Oracle: 5 % of 33 is 1, so 2 are too many."""
    for path in sorted((data / "train").rglob("*.png"))[:2]:
        path.unlink()
    with pytest.raises(
        AlexNetError, match=r"2 of 33 images have become unreadable .* more than 5%. Restore"
    ):
        run(data, tmp_path / "runs")
    assert not (tmp_path / "runs" / "latest").exists()


# Resuming


@pytest.fixture
def begun(data, tmp_path):
    return run(data, tmp_path / "runs", replace(QUICK, epochs=2)).run


def test_a_new_split_is_not_used_to_resume(data, begun, image_folder):
    plan = plan_split(scanning.scan(image_folder), seed=1)
    split_folders.write(plan, data, force=True)
    with pytest.raises(AlexNetError, match=r"data: was split anew since .* began; split it"):
        resume(begun)
    split_folders.write(replace(plan, files=plan_again(image_folder).files), data, force=True)
    assert resume(begun).metrics().last.epoch == 5


def plan_again(image_folder):
    return plan_split(scanning.scan(image_folder))


@pytest.mark.parametrize(("key", "value"), [("momentum", 0.8), ("classes", ["blue", "green", "x"])])
def test_an_edited_configuration_is_refused(begun, key, value):
    path = begun / "config.json"
    config = json.loads(path.read_text())
    (config if key in config else config["recipe"])[key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(AlexNetError, match=r"config\.json: damaged, or changed since the run b"):
        resume(begun)


def test_changed_versions_are_reported(begun, monkeypatch):
    """Oracle: the version that differs, and nothing if none does."""
    recorder = Recorder()
    resume(begun, recorder, epochs=3)
    assert recorder.plan.changed == ()
    versions = config.current_versions()
    before = versions["keras"]
    monkeypatch.setattr(config, "current_versions", lambda: versions | {"keras": "99"})
    resume(begun, recorder, epochs=4)
    assert recorder.plan.changed == (f"keras {before}, now 99",)


# Memory


def test_memory_is_that_of_the_machine_or_of_the_container(tmp_path, monkeypatch):
    """Oracle: the text of /proc/meminfo; a limit of 1 GiB in a parent cgroup, and a limit "max".

    So it is whether the groups are those of version 2, or a tree for each kind of limit.
    """
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    physical = int(lines["MemTotal"].split()[0]) * 1024
    own = tmp_path / "own"
    monkeypatch.setattr(memory, "_OWN_CGROUPS", own)
    monkeypatch.setattr(memory, "_CGROUP_ROOT", tmp_path)
    for line, name in (
        ("0::/job/step", "job/memory.max"),
        ("4:cpu,memory:/job/step", "memory/job/memory.limit_in_bytes"),
        ("0::/", "memory.max"),
    ):
        limit = tmp_path / name
        limit.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(f"9:name=systemd:/\n{line}\n")
        for text, expected in (("max", physical), (str(2**30), 2**30)):
            limit.write_text(text)
            assert memory.total() == pytest.approx(expected, rel=0.01)
            assert memory.available() < memory.total()
        limit.unlink()


def test_a_batch_too_large_for_the_memory_is_refused(image_folder, tmp_path, monkeypatch):
    """Oracle: memory for a step of 4 images but not of 8, by the estimate; no run folder is left."""
    model = build_alexnet(QUICK, 3)
    four, eight = (step_bytes(model, n) for n in (4, 8))
    monkeypatch.setattr(memory, "available", lambda: (four + eight) // 2)
    with pytest.raises(
        AlexNetError, match="out of memory with batches of 32: --batch-size 4 would"
    ):
        run(image_folder, tmp_path, replace(QUICK, batch_size=32))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(AlexNetError, match="batches of 32: not even one image would fit"):
        run(image_folder, tmp_path, replace(QUICK, batch_size=32))


def test_the_estimated_memory_of_a_step():
    """Oracle: 60,965,224 parameters; the layers' outputs, from the paper's Figure 2, summed by hand.

    A batch in use, and one ahead for each processor, but at least 4 and at most 16.
    """
    conv = [55 * 55 * 96, 27 * 27 * 256, 13 * 13 * 384, 13 * 13 * 384, 13 * 13 * 256]
    pools = [27 * 27 * 96, 13 * 13 * 256, 6 * 6 * 256]
    crop = 224 * 224 * 3
    # conv, ReLU and normalization in blocks 1 and 2, conv and ReLU in the others
    hidden = 3 * (conv[0] + conv[1]) + 2 * sum(conv[2:]) + sum(pools)
    padded = 227 * 227 * 3
    dense = 6 * 6 * 256 + 2 * 4096 + 2 * 4096 + 2 * 1000  # flat, fc6 and fc7 with dropout, logits
    ahead = sorted((4, os.cpu_count(), 16))[1]
    expected = 4 * (60_965_224 + 10 * (crop + padded + hidden + dense + (1 + ahead) * crop))
    assert step_bytes(build_alexnet(PAPER, 1000), 10) == pytest.approx(expected, rel=0.01)
