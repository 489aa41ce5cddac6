"""Long scans: from processes, and continued where they stopped; names trusted."""

from __future__ import annotations

import os

import pytest
from conftest import paint

from alexnet_cli.data import scan_cache, scanning, splitting
from alexnet_cli.data.scan_cache import FileCheck, judge
from alexnet_cli.system import workers
from alexnet_cli.system.workers import map_in_processes


def _process_of(number: int) -> tuple[int, int]:
    return number, os.getpid()


def test_many_items_are_worked_on_in_other_processes(monkeypatch):
    """Oracle: the order of the items, and the numbers of the processes."""
    monkeypatch.setattr(workers, "PROCESS_THRESHOLD", 100)
    found = list(map_in_processes(range(100), _process_of))
    assert [number for number, _ in found] == list(range(100))
    assert os.getpid() not in {process for _, process in found}
    few = list(map_in_processes(range(99), _process_of))
    assert {process for _, process in few} == {os.getpid()}


def test_a_scan_by_processes_is_that_by_threads(photographs, monkeypatch):
    expected = scanning.scan(photographs)
    monkeypatch.setattr(workers, "PROCESS_THRESHOLD", 1)
    assert scanning.scan(photographs) == expected


def test_an_interrupted_scan_reads_only_what_is_new(tmp_path, monkeypatch):
    """Oracle: the files that were read the second time, one having changed and one being cut off."""
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    source = paint(tmp_path / "source", per_class=4)
    (source / "red" / "notes.txt").write_text("not an image")
    (source / "red" / "bad.jpg").write_text("not an image")
    expected = scanning.scan(source)
    notes = tmp_path / "notes.jsonl"

    def interrupt(done, total):
        if done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scanning.scan(source, scanning.ScanOptions(journal=notes, progress=interrupt))
    lines = notes.read_text().splitlines()
    notes.write_text("\n".join(lines)[:-20])  # as a crash may leave the last line
    (source / "blue" / "0.png").write_bytes((source / "blue" / "0.png").read_bytes() + b"x")
    read = []

    def inspect(path):
        read.append(f"{path.parent.name}/{path.name}")
        return real(path)

    real = scanning._inspect
    monkeypatch.setattr(scanning, "_inspect", inspect)
    again = scanning.scan(source, scanning.ScanOptions(journal=notes))
    new = ["red/2.png", "red/3.png", "red/bad.jpg", "red/notes.txt"]  # of 14 files
    assert sorted(read) == ["blue/0.png", *new]
    changed = {file.path: file.sha256 for file in again.images}
    for file in expected.images:
        same = changed.pop(file.path) == file.sha256
        assert same == (file.path != source / "blue" / "0.png")
    assert not changed
    assert (again.rejected, again.n_ignored) == (expected.rejected, expected.n_ignored)


def test_a_journal_is_kept_for_many_files_only_and_goes_with_the_split(tmp_path, monkeypatch):
    source = paint(tmp_path / "source", per_class=4)
    notes = scan_cache.beside(tmp_path / "out")
    scanning.scan(source, scanning.ScanOptions(journal=notes))
    assert not notes.exists()
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    found = scanning.scan(source, scanning.ScanOptions(journal=notes))
    assert notes.exists()
    splitting.write(splitting.plan(found), tmp_path / "out")
    assert not notes.exists()
    assert scan_cache.beside(tmp_path / "nowhere" / "out") is None


def test_verdicts_come_in_order_whether_known_or_new(tmp_path, monkeypatch):
    """Oracle: a verdict that names its file."""
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    paths = [tmp_path / name for name in "abcde"]
    for path in paths:
        path.write_text(path.name)

    def inspect(path):
        status = path.stat()
        return FileCheck(reason=path.name, size=status.st_size, modified=status.st_mtime_ns)

    notes = tmp_path / "notes.jsonl"
    assert len(list(judge(paths[1::2], inspect, notes))) == 2
    assert [verdict.reason for verdict in judge(paths, inspect, notes)] == list("abcde")
    assert [v.reason for v in judge(paths, lambda path: 1 / 0, notes)] == list("abcde")


def test_without_check_names_are_trusted_and_nothing_is_read(tmp_path):
    """Oracle: files that no decoder would accept; the plan follows from the names alone."""
    for folder in (tmp_path / "one", tmp_path / "other"):
        for label in ("cat", "dog"):
            (folder / label / "deep").mkdir(parents=True)
            for number in range(10):
                (folder / label / "deep" / f"{number}.JPG").write_bytes(b"")
            (folder / label / "notes.txt").write_text("")
    scans = [
        scanning.scan(tmp_path / name, scanning.ScanOptions(check=False))
        for name in ("one", "other")
    ]
    plans = [splitting.plan(scan, val=0.2, seed=4) for scan in scans]
    assert scans[0].n_ignored == 2
    assert [file.sha256 for file in plans[0].files] == [""] * 20
    assert {n for label in ("cat", "dog") for n in [tuple(plans[0].counts()[label].values())]} == {
        (8, 2, 0)
    }
    assert [f.split for f in plans[0].files] == [f.split for f in plans[1].files]
    assert plans[0].duplicates() == ()
    other = splitting.plan(scans[0], val=0.2, seed=5)
    assert [f.split for f in plans[0].files] != [f.split for f in other.files]


def test_where_no_journal_can_be_kept_all_is_read(photographs, tmp_path, monkeypatch):
    """Oracle: the scan without a journal; forgetting one that can't be removed does no harm."""
    expected = scanning.scan(photographs)
    monkeypatch.setattr(scan_cache, "PROCESS_THRESHOLD", 1)
    (tmp_path / "notes" / "in the way").mkdir(parents=True)
    for place in (tmp_path / "notes", tmp_path / "none" / "notes"):
        assert scanning.scan(photographs, scanning.ScanOptions(journal=place)) == expected
    (tmp_path / ".runs.checked.jsonl" / "in the way").mkdir(parents=True)
    scan_cache.forget(tmp_path / "runs")
