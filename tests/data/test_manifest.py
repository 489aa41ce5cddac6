"""The manifest: written atomically, and validated when it is read."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from folders import make, planned, tree

from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.manifest import MANIFEST, read_manifest, write_manifest
from alexnet_cli.data.split_plan import group_files, plan_split
from alexnet_cli.errors import AlexNetError


def test_manifest_in_another_folder_finds_the_files(tmp_path: Path) -> None:
    """Oracle: equal after writing and reading, for a plan without copies and for a split."""
    plan = planned(tmp_path)
    make(tmp_path / "data", {"cat/bad.jpg": b"no"})
    plan = plan_split(scanning.scan(tmp_path / "data"), test=0.1, seed=-3)
    grouped = replace(group_files(plan, r"(\d)\."), seed=7)
    marked = [replace(f, fingerprint="aZ09+/++" * 32, copy_of="0" * 64) for f in plan.files]
    copies = replace(plan, files=tuple(marked))
    for manifest in (plan, grouped, copies, split_folders.write(plan, tmp_path / "out")):
        write_manifest(manifest, tmp_path / "run.jsonl")
        assert read_manifest(tmp_path / "run.jsonl") == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out", "run.jsonl"]


def test_manifest_is_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the bytes of the folder, before and after the disk was full."""
    plan = planned(tmp_path)
    write_manifest(plan, tmp_path / "run.jsonl")
    before = tree(tmp_path)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_manifest(replace(plan, seed=9), tmp_path / "run.jsonl")
    assert tree(tmp_path) == before
    with pytest.raises(AlexNetError, match=r"out: No space left on device\. .*out was not changed"):
        split_folders.write(plan, tmp_path / "out")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (1, None, "is not valid JSON"),
        (1, [], "is not a JSON object"),
        (1, {"alexnet_split": 2}, "'alexnet_split' must be 1, is 2"),
        (1, {"alexnet_split": None}, "'alexnet_split' must be 1"),
        (1, {"classes": "cat"}, "'classes' can't be 'cat'"),
        (1, {"classes": ["cat", "cat"]}, "'classes' must be distinct"),
        (1, {"classes": ["cat", {}]}, "'classes' must be distinct"),
        (1, {"rejected": [1]}, "'rejected' can't be"),
        (1, {"seed": "x"}, "'seed' can't be 'x'"),
        (1, {"n_ignored": None}, "'n_ignored' can't be None"),
        (3, None, "is not valid JSON"),
        (3, 7, "is not a JSON object"),
        (3, {"path": "/etc/passwd"}, "'path' '/etc/passwd' is outside the folder"),
        (3, {"path": "train/../../x"}, "is outside the folder"),
        (3, {"path": ""}, "is outside the folder"),
        (3, {"path": 5}, "'path' can't be 5"),
        (3, {"split": "training"}, "'split' 'training' is not one of train, val, test"),
        (3, {"class": "bird"}, "'class' 'bird' is not in the header"),
        (3, {"sha256": "00"}, "'sha256' '00'"),
        (3, {"group": 5}, "'group' can't be 5"),
        (3, {"copy_of": "0" * 63}, "'copy_of' '000"),
        (3, {"fingerprint": "A" * 255}, "'fingerprint' 'AAA"),
        (4, {"path": "val/cat/twice.png"}, "is listed twice"),
    ],
)
def test_invalid_manifests_are_refused(
    tmp_path: Path, number: int, change: object, message: str
) -> None:
    """Oracle: file, line and value in the message; the unchanged lines are accepted."""
    header: dict[str, object] = {"alexnet_split": 1, "root": "/r", "source": "/s", "seed": 0}
    header |= {"val": 0.1, "test": 0, "classes": ["cat", "dog"]}
    header |= {"n_files": 3, "n_ignored": 0, "rejected": {}}
    file = {"class": "cat", "split": "val", "sha256": "0" * 64}
    names = ("val/cat/0.png", "val/cat/twice.png", "val/cat/1.png")
    entries: list[object] = [header, *({**file, "path": name} for name in names)]
    path = tmp_path / MANIFEST
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert len(read_manifest(path).files) == 3
    lines = [json.dumps(entry) for entry in entries]
    old = entries[number - 1]
    new = {**old, **change} if isinstance(change, dict) and isinstance(old, dict) else change
    lines[number - 1] = "[" * 100_000 if change is None else json.dumps(new)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(AlexNetError) as caught:
        split_folders.open_data(tmp_path)
    assert str(caught.value).startswith(f"{path}:{number}: ")
    assert message in str(caught.value)


def test_truncated_manifest_is_refused(tmp_path: Path) -> None:
    """Oracle: the number of the first missing line, for every shorter length."""
    split_folders.write(planned(tmp_path, 2), tmp_path / "out")
    path = tmp_path / "out" / MANIFEST
    lines = path.read_bytes().splitlines(keepends=True)
    for n in range(len(lines)):
        path.write_bytes(b"".join(lines[:n]))
        with pytest.raises(AlexNetError, match=f":{n + 1}: "):
            read_manifest(path)
