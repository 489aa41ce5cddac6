"""A training that was killed at any moment can be resumed with the same result.

`benchmarks/kill_and_resume.py` kills processes at random; here every moment of writing is tried in turn.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import HANG, PLAIN, assert_same_run, run

from alexnet_cli.api.runs import draw_curves
from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.runs.weights_file import load_arrays
from alexnet_cli.system.signals import Interrupted
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import choose_devices

WRITTEN = ["best.safetensors", "last.safetensors", "history.csv", "report.md", "latest"]
AT_THE_END = ["curves.png", "metrics.json"]


@pytest.fixture(scope="module")
def moments(image_folder, tmp_path_factory):
    """An undisturbed run, and copies of its folder from before each file was renamed.

    That, temporary file included, is what SIGKILL would leave then. Two lists of them, by whether
    an epoch had been saved; of those after it only the last for each file.
    """
    place, real = tmp_path_factory.mktemp("killed"), os.replace
    before, after = {}, {}

    def copy_and_replace(source, target):
        name = Path(target).name
        if name in WRITTEN + AT_THE_END:
            (path,) = (path for path in (place / "whole").iterdir() if not path.is_symlink())
            saved = (path / "last.safetensors").exists()
            copy = place / f"{saved}-{name}" / "run"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(path, copy, symlinks=True)
            (after if saved else before)[name] = copy
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", copy_and_replace)
        whole = run(image_folder, place / "whole", PLAIN).run
    assert list(before) == WRITTEN[:2]
    assert sorted(after) == sorted(WRITTEN + AT_THE_END)
    return whole, before, after


def test_a_kill_before_the_first_checkpoint_asks_to_train_again(moments):
    """Oracle: the name of the missing file."""
    _, before, _ = moments
    for killed in before.values():
        with pytest.raises(AlexNetError, match=r"last\.safetensors is missing; train again"):
            start_and_resume.resume(killed, devices=choose_devices(0))


@pytest.mark.parametrize("name", WRITTEN + AT_THE_END)
def test_a_kill_before_any_rename_does_not_change_the_result(moments, name):
    """Oracle: the undisturbed run: states bit for bit, metrics, and no other files."""
    whole, _, after = moments
    killed = after[name]
    hidden = [path.name for path in killed.glob(".*") if path.name != ".lock"]
    assert len(hidden) == 1  # the temporary folder of the file
    start_and_resume.resume(killed, devices=choose_devices(0), draw=draw_curves)
    assert_same_run(killed, whole)
    best = [load_arrays(path / "best.safetensors") for path in (killed, whole)]
    assert {n: a.tobytes() for n, a in best[0].items()} == {
        n: a.tobytes() for n, a in best[1].items()
    }
    found, expected = (json.loads((path / "metrics.json").read_text()) for path in (killed, whole))
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
    assert (killed.parent / "latest").resolve() == killed
    with pytest.raises(UsageError, match="already trained to epoch"):
        start_and_resume.resume(killed, devices=choose_devices(0))


@pytest.mark.parametrize("moment", ["os.rename", "shutil.rmtree"])
def test_a_split_killed_while_replacing_another_can_be_repeated(image_folder, tmp_path, moment):
    """Oracle: kills when neither split is in place and when both are; the folder at the end."""
    code = f"""
import os, signal, sys
from pathlib import Path
from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.split_plan import plan_split
out = Path({str(tmp_path / "out")!r})
plan = plan_split(scanning.scan(Path({str(image_folder)!r})), val=0.5)
split_folders.write(plan, out)
def strike(event, arguments):
    if event == {moment!r} and Path(out.parent, ".out.alexnet-old", "train").exists():
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(strike)
split_folders.write(plan, out, force=True)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=HANG)
    assert killed.returncode == -signal.SIGKILL
    left = {".out.alexnet-old", ".out.alexnet-lock"}
    left.add(".out.alexnet-partial" if moment == "os.rename" else "out")
    assert {path.name for path in tmp_path.iterdir()} == left
    split_folders.write(plan_split(scanning.scan(image_folder)), tmp_path / "out", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(split_folders.open_data(tmp_path / "out").files) == 36


def test_final_metrics_interrupted_are_computed_when_resumed(moments, tmp_path):
    """Oracle: as above; metrics of fewer epochs are not reported for more epochs."""
    whole, _, _ = moments
    shutil.copytree(whole, tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.json"
    old = json.loads(metrics.read_text())

    class StopRequest(Callback):
        def on_score_progress(self, done, total):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="Saved up to epoch 4; continue with") as stopped:
        start_and_resume.resume(
            tmp_path / "run", devices=choose_devices(0), epochs=4, callback=StopRequest()
        )
    assert stopped.value.exit_code == 143
    assert not metrics.exists()
    resumed = start_and_resume.resume(tmp_path / "run", devices=choose_devices(0))
    assert (old["last"]["epoch"], resumed.metrics().last.epoch) == (3, 4)
    assert json.loads(metrics.read_text())["last"]["epoch"] == 4
