"""Locks where they work as on a local disk, as on NFS, and not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from folders import planned, tree
from helpers import HANG, QUICK, run

from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError, AlexNetWarning
from alexnet_cli.system.locks import own_lock_file
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import choose_devices


@pytest.fixture
def nfs(monkeypatch):
    """Locks as flock(2) describes them for NFS: an exclusive one needs a file open for writing."""
    local = fcntl.flock

    def flock(descriptor, operation):
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and access == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        local(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_on_nfs_a_run_and_its_split_are_locked_during_training(nfs, image_folder, tmp_path):
    """Oracle: a second training of the run, and a new split, which locks of a local disk refuse."""
    plan = plan_split(scanning.scan(image_folder), val=0.3)
    split_folders.write(plan, tmp_path / "data")
    refused = []

    class Rival(Callback):
        def on_epoch_end(self, row, best):
            (path,) = (p for p in (tmp_path / "runs").iterdir() if not p.is_symlink())
            with pytest.raises(AlexNetError, match="another alexnet is training this run"):
                start_and_resume.resume(path, devices=choose_devices(0), epochs=2)
            with pytest.raises(AlexNetError, match="data: a training run is reading it"):
                split_folders.write(replace(plan, seed=9), tmp_path / "data", force=True)
            refused.append(row.epoch)

    report = run(tmp_path / "data", tmp_path / "runs", replace(QUICK, epochs=1), callback=Rival())
    assert refused == [1]
    assert not list(report.run.glob(".*"))
    split_folders.write(replace(plan, seed=9), tmp_path / "data", force=True)


def test_on_nfs_two_splits_can_not_be_written_to_one_target(nfs, image_folder, tmp_path):
    """Oracle: the second write, which a lock of a local disk refuses."""
    plan = plan_split(scanning.scan(image_folder), val=0.3)

    def intrude(done, total):
        if done == 1:
            with pytest.raises(AlexNetError, match="another alexnet process is writing it"):
                split_folders.write(plan, tmp_path / "out")

    split_folders.write(plan, tmp_path / "out", progress=intrude)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_missing_lock_is_a_warning_and_no_error(tmp_path, monkeypatch):
    """Oracle: the reason of the system, once, and the split that a disk with locks has."""

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    plan = planned(tmp_path)
    split_folders.write(plan, tmp_path / "locked")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(AlexNetWarning, match=r"-lock: can't be locked \(No locks") as warned:
        split_folders.write(plan, tmp_path / "unlocked")
    assert len(warned) == 1
    files = [tree(tmp_path / name) for name in ("locked", "unlocked")]
    for found in files:
        del found["manifest.jsonl"]  # which holds the path of the split
    assert files[0] == files[1]
    assert not list(tmp_path.glob(".*"))


def test_the_command_line_shows_a_missing_lock_as_one_line(tmp_path):
    """Oracle: standard error, word by word."""
    plan = planned(tmp_path)
    code = """
import errno, fcntl, os
def refuse(descriptor, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = refuse
from alexnet_cli.__main__ import main
main()
"""
    command = [sys.executable, "-c", code, "split", plan.root, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True)
    assert done.stderr == (
        f"alexnet: {tmp_path}/.out.alexnet-lock: can't be locked (No locks available). "
        f"Let no other alexnet process write to {tmp_path} meanwhile\n"
    )


def test_a_lock_file_that_its_holder_deletes_meanwhile_is_made_anew(tmp_path, monkeypatch):
    """Oracle: a third process is refused, as the second holds the file at the path.

    The second opens the file of the first, which deletes it and ends before the second locks it.
    """
    path, local, deleted = tmp_path / "lock", fcntl.flock, []

    def delete_first(descriptor, operation):
        if not deleted:
            deleted.append(os.fstat(descriptor).st_ino)
            path.unlink()
        local(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", delete_first)
    with own_lock_file(path, "second"):
        assert deleted
        with pytest.raises(AlexNetError, match="third"), own_lock_file(path, "third"):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_lock_file_is_no_way_out_of_a_run(run_copy, tmp_path):
    """Oracle: the link's target is not made; one line, with how to go on."""
    (run_copy / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(AlexNetError, match=r"\.lock: Too many .* links.* Saved up to epoch 4"):
        start_and_resume.resume(run_copy, devices=choose_devices(0), epochs=5)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_only_the_manifest_of_a_split_is_locked_and_nothing_is_written(tmp_path, kind):
    """Oracle: every byte; readers share the lock, a writer has it alone; without manifest none."""
    plan = planned(tmp_path)
    root = split_folders.write(plan, tmp_path / "out").root
    before, shared = tree(root), kind == "shared"
    for path in (root, root / "manifest.jsonl"):
        path.chmod(0o555)
    with split_folders.lock_split(root, "first", shared=shared):
        assert tree(root) == before
        with (
            pytest.raises(AlexNetError, match="out: second"),
            split_folders.lock_split(root, "second"),
        ):
            pass
        if shared:
            with split_folders.lock_split(root, "third", shared=True):
                pass
    before = tree(plan.root)
    with split_folders.lock_split(plan.root, "a"), split_folders.lock_split(plan.root, "b"):
        assert tree(plan.root) == before
