"""Long scans: in processes, resumed from the cache, and by file extension only."""

from __future__ import annotations

import pytest
from helpers import paint

from alexnet_cli.data import scan_cache, scanning, split_folders
from alexnet_cli.data.scan_cache import FileCheck, check_files
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.system import workers


def test_processes_and_threads_give_the_same_scan(image_folder, monkeypatch):
    """Oracle: the scan in threads."""
    expected = scanning.scan(image_folder)
    monkeypatch.setattr(workers, "PROCESS_THRESHOLD", 1)
    assert scanning.scan(image_folder) == expected


def test_resumed_scan_reads_only_new_and_changed_files(tmp_path, monkeypatch):
    """Oracle: the files read the second time: one has changed, one has a truncated line in the cache."""
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    source = paint(tmp_path / "source", per_class=4)
    (source / "red" / "cache.txt").write_text("not an image")
    (source / "red" / "bad.jpg").write_text("not an image")
    expected = scanning.scan(source)
    cache = tmp_path / "cache.jsonl"

    def interrupt(done, total):
        if done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scanning.scan(source, scanning.ScanOptions(cache=cache, progress=interrupt))
    lines = cache.read_text().splitlines()
    cache.write_text("\n".join(lines)[:-20])  # as a crash may truncate the last line
    (source / "blue" / "0.png").write_bytes((source / "blue" / "0.png").read_bytes() + b"x")
    read = []

    def inspect(path):
        read.append(f"{path.parent.name}/{path.name}")
        return real(path)

    real = scanning._check_file
    monkeypatch.setattr(scanning, "_check_file", inspect)
    again = scanning.scan(source, scanning.ScanOptions(cache=cache))
    new = ["red/2.png", "red/3.png", "red/bad.jpg", "red/cache.txt"]  # of 14 files
    assert sorted(read) == ["blue/0.png", *new]
    changed = {file.path: file.sha256 for file in again.files}
    for file in expected.files:
        same = changed.pop(file.path) == file.sha256
        assert same == (file.path != source / "blue" / "0.png")
    assert not changed
    assert (again.rejected, again.n_ignored) == (expected.rejected, expected.n_ignored)


def test_cache_is_for_many_files_and_deleted_with_the_split(tmp_path, monkeypatch):
    """Oracle: whether the file exists: not for few files, and not after the split is written."""
    source = paint(tmp_path / "source", per_class=4)
    cache = scan_cache.cache_path(tmp_path / "out")
    scanning.scan(source, scanning.ScanOptions(cache=cache))
    assert not cache.exists()
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    found = scanning.scan(source, scanning.ScanOptions(cache=cache))
    assert cache.exists()
    split_folders.write(plan_split(found), tmp_path / "out")
    assert not cache.exists()
    assert scan_cache.cache_path(tmp_path / "nowhere" / "out") is None


def test_checks_come_in_order_whether_cached_or_new(tmp_path, monkeypatch):
    """Oracle: checks that contain the name of their file."""
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    paths = [tmp_path / name for name in "abcde"]
    for path in paths:
        path.write_text(path.name)

    def inspect(path):
        status = path.stat()
        return FileCheck(reason=path.name, size=status.st_size, modified=status.st_mtime_ns)

    cache = tmp_path / "cache.jsonl"
    assert len(list(check_files(paths[1::2], inspect, cache))) == 2
    assert [check.reason for check in check_files(paths, inspect, cache)] == list("abcde")
    assert [v.reason for v in check_files(paths, lambda path: 1 / 0, cache)] == list("abcde")


def test_without_check_extensions_decide_and_nothing_is_read(tmp_path):
    """Oracle: files that no decoder would accept; the plan follows from the names alone."""
    for folder in (tmp_path / "one", tmp_path / "other"):
        for label in ("cat", "dog"):
            (folder / label / "deep").mkdir(parents=True)
            for number in range(10):
                (folder / label / "deep" / f"{number}.JPG").write_bytes(b"")
            (folder / label / "cache.txt").write_text("")
    scans = [
        scanning.scan(tmp_path / name, scanning.ScanOptions(check=False))
        for name in ("one", "other")
    ]
    plans = [plan_split(scan, val=0.2, seed=4) for scan in scans]
    assert scans[0].n_ignored == 2
    assert [file.sha256 for file in plans[0].files] == [""] * 20
    assert {n for label in ("cat", "dog") for n in [tuple(plans[0].counts()[label].values())]} == {
        (8, 2, 0)
    }
    assert [f.split for f in plans[0].files] == [f.split for f in plans[1].files]
    assert plans[0].duplicates() == ()
    other = plan_split(scans[0], val=0.2, seed=5)
    assert [f.split for f in plans[0].files] != [f.split for f in other.files]


def test_without_a_writable_cache_every_file_is_read(image_folder, tmp_path, monkeypatch):
    """Oracle: the scan without a cache; one that can't be deleted is no error."""
    expected = scanning.scan(image_folder)
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    (tmp_path / "cache" / "in the way").mkdir(parents=True)
    for place in (tmp_path / "cache", tmp_path / "none" / "cache"):
        assert scanning.scan(image_folder, scanning.ScanOptions(cache=place)) == expected
    (tmp_path / ".runs.checked.jsonl" / "in the way").mkdir(parents=True)
    scan_cache.delete_cache(tmp_path / "runs")
