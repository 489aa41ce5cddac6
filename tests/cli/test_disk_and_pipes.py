"""Full disks, locks and closed pipes: one line, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from helpers import HANG, QUICK, assert_same_run, run

from alexnet_cli.data import scan_cache, scanning, split_folders, tfrecords
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError, AlexNetWarning
from alexnet_cli.system.locks import lock_file, own_lock_file
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import choose_devices


@pytest.fixture
def disk(tmp_path):
    """A separate file system of 4 MB, if the machine allows mounting one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine mounts no file systems for us")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk):
    """Fill the disk; return the file to delete to free space."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def alexnet(*arguments, **options):
    command = [sys.executable, "-m", "alexnet_cli", *map(str, arguments)]
    return subprocess.run(command, text=True, timeout=HANG, check=False, **options)


def tree(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


# Full disks


@pytest.mark.parametrize("form", ["files", "shards"])
def test_a_split_that_does_not_fit_on_the_disk_keeps_the_earlier_one(image_folder, disk, form):
    """Oracle: every byte of the earlier split, and no other files after the shards are removed."""
    write = split_folders.write if form == "files" else tfrecords.write
    write(plan_split(scanning.scan(image_folder), val=0.3), disk / "data")
    before = tree(disk / "data")
    filler = fill(disk)
    other = plan_split(scanning.scan(image_folder), val=0.2, seed=1)
    with pytest.raises(AlexNetError, match=r"No space left on device\. .*data was not changed"):
        write(other, disk / "data", force=True)
    assert tree(disk / "data") == before
    filler.unlink()
    write(other, disk / "data", force=True)
    assert sorted(path.name for path in disk.iterdir()) == ["data"]
    assert split_folders.open_data(disk / "data").seed == 1


def test_a_disk_that_fills_within_a_shard_gets_one_line(image_folder, disk):
    """Oracle: the reason from the system through TensorFlow; the same plan, after space is freed."""
    plan = plan_split(scanning.scan(image_folder))
    fillers = []

    def progress(done, total):
        if done == 2:
            fillers.append(fill(disk))

    with pytest.raises(AlexNetError, match=r"No space left on device\. .*data was not changed"):
        tfrecords.write(plan, disk / "data", progress=progress)
    assert not (disk / "data").exists()
    fillers[0].unlink()
    assert len(tfrecords.write(plan, disk / "data").files) == 36
    assert [path.name for path in disk.iterdir()] == ["data"]


def test_a_scan_goes_on_when_its_cache_fills_the_disk(image_folder, disk, monkeypatch):
    """Oracle: the scan without a cache; what the cache took is free again for the output."""
    expected = scanning.scan(image_folder)
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    cache = disk / "cache.jsonl"
    options = scanning.ScanOptions(cache=cache, progress=lambda done, _: done == 3 and fill(disk))
    with pytest.warns(AlexNetWarning, match=r"cache\.jsonl: No space left on device\. ") as warned:
        assert scanning.scan(image_folder, options) == expected
    assert len(warned) == 1
    assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_training_whose_disk_fills_keeps_the_last_epoch(trained, image_folder, disk):
    """Oracle: an undisturbed run, after space is freed and training is resumed."""
    fillers = []

    class Filler(Callback):
        def on_epoch_end(self, row, best):
            if row.epoch == 2:
                fillers.append(fill(disk))

    with pytest.raises(AlexNetError, match=r"No space left .* Saved up to epoch 2; continue with"):
        run(image_folder, disk / "runs", QUICK, callback=Filler())
    fillers[0].unlink()
    assert len(list((disk / "runs").iterdir())) == 2
    cut = (disk / "runs" / "latest").resolve()
    start_and_resume.resume(cut, devices=choose_devices(0))
    assert_same_run(cut, trained)


def test_a_training_whose_disk_becomes_read_only_keeps_the_last_epoch(image_folder, disk):
    """Oracle: the error of the kernel, and the bytes of the last checkpoint."""
    kept = {}

    class Remounter(Callback):
        def on_epoch_end(self, row, best):
            if row.epoch == 2:
                kept.update(tree(disk))
                subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    try:
        with pytest.raises(
            AlexNetError, match=r"Read-only file system\. Saved up to epoch 2; continue"
        ):
            run(image_folder, disk / "runs", QUICK, callback=Remounter())
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert tree(disk) == kept


def test_a_run_folder_deleted_during_training_is_an_error(image_folder, tmp_path):
    class Deleter(Callback):
        def on_epoch_end(self, row, best):
            shutil.rmtree((tmp_path / "latest").resolve())

    with pytest.raises(AlexNetError, match=r"No such file .* The run folder was deleted"):
        run(image_folder, tmp_path, QUICK, callback=Deleter())


def test_a_training_that_can_not_start_on_a_full_disk_leaves_nothing(image_folder, disk):
    filler = fill(disk)
    with pytest.raises(AlexNetError, match="No space left on device"):
        run(image_folder, disk / "runs", QUICK)
    filler.unlink()
    assert not list(disk.rglob("*.*"))


def test_figures_that_do_not_fit_get_one_line(trained, disk):
    """Oracle: the exit code, one line, and no incomplete file."""
    filler = fill(disk)
    done = alexnet("evaluate", "--model", trained, "--report", disk / "x.html", capture_output=True)
    filler.unlink()
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("No space left on device. Free some space")
    assert "Traceback" not in done.stderr
    assert list(disk.iterdir()) == []


def test_output_to_a_full_device_gets_one_line():
    with open("/dev/full", "w") as full:
        done = alexnet("recipes", "paper", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "alexnet: output: No space left on device. Free some space\n"


@pytest.mark.parametrize("command", [["recipes", "paper"], ["predict", "{photo}", "--csv"]])
def test_a_closed_pipe_gives_no_traceback(trained, image_folder, command):
    """Oracle: a pipe that is closed at once, for output by Rich and by print."""
    photo = next(image_folder.rglob("*.png"))
    words = [word.format(photo=photo) for word in command]
    words += ["--model", str(trained)] if words[0] == "predict" else []
    command = [sys.executable, "-m", "alexnet_cli", *words]
    # Without the variable that this process has set and that asks TensorFlow to speak.
    quiet = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, bufsize=0, env=quiet) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


# Locks


def test_a_run_can_not_be_resumed_by_two_processes(image_folder, tmp_path):
    """Oracle: a second process that resumes the run during training."""
    seen = []

    class Rival(Callback):
        def on_epoch_end(self, row, best):
            if row.epoch == 1:
                path = next(p for p in tmp_path.iterdir() if not p.is_symlink())
                seen.append(alexnet("train", "--resume", path, "--gpus", 0, capture_output=True))

    run(image_folder, tmp_path, QUICK, callback=Rival())
    assert seen[0].returncode == 1
    assert "another alexnet is training this run" in seen[0].stderr


def test_a_split_can_not_be_replaced_during_training(image_folder, tmp_path):
    plan = plan_split(scanning.scan(image_folder), val=0.3)
    split_folders.write(plan, tmp_path / "data")
    other = replace(plan, seed=9)
    refused = []

    class Replacer(Callback):
        def on_epoch_end(self, row, best):
            with pytest.raises(AlexNetError, match="data: a training run is reading it"):
                split_folders.write(other, tmp_path / "data", force=True)
            refused.append(row.epoch)

    run(tmp_path / "data", tmp_path / "runs", replace(QUICK, epochs=1), callback=Replacer())
    assert refused == [1]
    split_folders.write(other, tmp_path / "data", force=True)
    assert split_folders.open_data(tmp_path / "data").seed == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "runs"]


def test_two_splits_can_not_be_written_to_one_target(image_folder, tmp_path):
    plan = plan_split(scanning.scan(image_folder), val=0.3)

    def intrude(done, total):
        if done == 1:
            with pytest.raises(AlexNetError, match="out: another alexnet process is writing it"):
                split_folders.write(plan, tmp_path / "out")

    split_folders.write(plan, tmp_path / "out", progress=intrude)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_a_killed_split_are_removed_by_the_next(image_folder, tmp_path):
    """Oracle: a process that is killed while it writes; the counts of the next split."""
    code = f"""
import os
from pathlib import Path
from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.split_plan import plan_split
plan = plan_split(scanning.scan(Path({str(image_folder)!r})), val=0.5)
out = Path({str(tmp_path / "out")!r})
split_folders.write(plan, out, progress=lambda done, total: done < 9 or os._exit(9))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    left = {".out.alexnet-partial", ".out.alexnet-lock"}
    assert {path.name for path in tmp_path.iterdir()} == left
    split_folders.write(plan_split(scanning.scan(image_folder)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sum(path.suffix == ".png" for path in (tmp_path / "out").rglob("*")) == 36


def test_a_lock_ends_with_its_process(tmp_path):
    """Oracle: the lock is held by a live process and free after it is killed, its file gone."""
    path = tmp_path / "lock"
    code = f"""
from pathlib import Path
from alexnet_cli.system.locks import own_lock_file
with own_lock_file(Path({str(path)!r}), "x"):
    print("held", flush=True)
    input()
"""
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(AlexNetError, match="mine"), own_lock_file(path, "mine"):
            pass
        process.kill()
        process.wait()
    assert path.exists()
    with own_lock_file(path, "mine"):
        pass
    assert not path.exists()
    path.touch()
    with lock_file(path, "a", shared=True), lock_file(path, "b", shared=True):
        pass
