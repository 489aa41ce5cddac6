"""Splits: writing, replacing and opening them, and splits by other tools."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from folders import make, planned, png, tree, two_classes

from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.manifest import MANIFEST
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError


@pytest.mark.parametrize("link", split_folders.LINKS)
def test_write_puts_every_file_into_its_split(tmp_path: Path, link: str) -> None:
    """Oracle: the bytes of source and copy; the folder contains nothing else."""
    plan = planned(tmp_path)
    calls: list[tuple[int, int]] = []
    out = tmp_path / "new/out"
    written = split_folders.write(plan, out, link=link, progress=lambda *call: calls.append(call))
    expected = {
        f"{file.split}/{file.path.relative_to(plan.root).as_posix()}": file.path.read_bytes()
        for file in plan.files
    }
    made = tree(out)
    lines = [json.loads(line) for line in made.pop(MANIFEST).splitlines()]
    assert made == expected
    assert calls == [(i, 21) for i in range(1, 22)]
    assert {file.path for file in written.files} == {out / name for name in expected}
    assert lines[0]["alexnet_split"] == 1
    assert {line["path"] for line in lines[1:]} == set(expected)
    assert split_folders.open_data(out) == written
    assert scanning.is_split(out)
    assert not scanning.is_split(plan.root)
    assert not scanning.is_split(tmp_path / "gone")
    one = written.files[0].path
    assert one.is_symlink() == (link == "symbolic")
    assert os.path.samefile(one, plan.files[0].path) == (link != "copy")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_names_that_differ_in_case_only_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Oracle: the bytes of the first file, on a file system that ignores case."""
    plan = planned(tmp_path)
    first, second = (file.path for file in plan.files[:2])
    split_folders._copy_or_link(first, tmp_path / "one", "copy")
    with pytest.raises(
        OSError, match="name of another file but for upper and lower case"
    ) as caught:
        split_folders._copy_or_link(second, tmp_path / "one", "copy")
    assert caught.value.filename == str(second)
    assert (tmp_path / "one").read_bytes() == first.read_bytes()


def test_force_refuses_a_split_with_a_damaged_manifest(tmp_path: Path) -> None:
    """Oracle: the message says what to do, and every byte is unchanged."""
    plan = planned(tmp_path)
    split_folders.write(plan, tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    manifest.write_bytes(manifest.read_bytes().rpartition(b"\n{")[0])
    before = tree(tmp_path / "out")
    with pytest.raises(
        AlexNetError, match=f"which files belong to this split: delete {tmp_path}/out yourself"
    ):
        split_folders.write(plan, tmp_path / "out", force=True)
    assert tree(tmp_path / "out") == before


def test_a_moved_split_opens(tmp_path: Path) -> None:
    """Oracle: the same counts, and paths below the new folder."""
    written = split_folders.write(planned(tmp_path), tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "data")
    moved = split_folders.open_data(tmp_path / "elsewhere")
    assert moved.counts() == written.counts()
    assert all(file.path.is_relative_to(tmp_path / "elsewhere") for file in moved.files)


@pytest.mark.parametrize("link", split_folders.LINKS)
def test_a_failed_write_leaves_nothing(tmp_path: Path, link: str) -> None:
    """Oracle: the listing of the parent folder, before the write and after it fails because a source file vanished."""
    plan = planned(tmp_path)
    plan.files[-1].path.unlink()
    with pytest.raises(AlexNetError, match=plan.files[-1].path.name):
        split_folders.write(plan, tmp_path / "out", link=link)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("when", ["copy", "manifest", "swap"])
def test_an_interrupted_replacement_keeps_the_old_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Oracle: every byte of the old split, after Ctrl-C at three moments."""
    plan = planned(tmp_path)
    split_folders.write(plan, tmp_path / "out")
    before = tree(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    rename = Path.rename
    if when == "manifest":
        monkeypatch.setattr(os, "fsync", interrupt)
    if when == "swap":
        monkeypatch.setattr(
            Path, "rename", lambda a, b: interrupt() if "partial" in a.name else rename(a, b)
        )
    with pytest.raises(KeyboardInterrupt):
        split_folders.write(
            plan, tmp_path / "out", force=True, progress=interrupt if when == "copy" else None
        )
    assert tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_force_replaces_an_earlier_split_completely(tmp_path: Path) -> None:
    """Oracle: the files that the other seed writes to an empty folder; an error without force."""
    found = scanning.scan(two_classes(tmp_path / "data", 20))
    one, two = (plan_split(found, val=0.3, seed=seed) for seed in (1, 2))
    split_folders.write(one, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(AlexNetError, match=r"out: already contains a split.*--force.*--out"):
        split_folders.write(two, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    split_folders.write(two, tmp_path / "out", force=True)
    split_folders.write(two, tmp_path / "fresh")
    replaced, fresh = tree(tmp_path / "out"), tree(tmp_path / "fresh")
    del replaced[MANIFEST], fresh[MANIFEST]  # they name their folders
    assert replaced == fresh
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "fresh", "out"]


@pytest.mark.parametrize("addition", ["train/cat/mine.png", "notes.txt", "extra/deep/x"])
def test_force_never_deletes_added_files(tmp_path: Path, addition: str) -> None:
    """Oracle: the added file is in the message, and every file still exists."""
    plan = planned(tmp_path)
    split_folders.write(plan, tmp_path / "out")
    make(tmp_path / "out", {addition: b"precious"})
    before = tree(tmp_path)
    with pytest.raises(AlexNetError, match=addition):
        split_folders.write(plan, tmp_path / "out", force=True)
    assert tree(tmp_path) == before


def test_force_never_replaces_other_folders(tmp_path: Path) -> None:
    """Oracle: a folder of other files, another program's manifest, and a file are unchanged."""
    plan = planned(tmp_path)
    make(tmp_path, {"out/thesis.txt": b"x", "other/manifest.jsonl": b'{"a": 1}\n', "file": b"x"})
    before = tree(tmp_path)
    for name in ("out", "other", "file"):
        with pytest.raises(AlexNetError, match=f"{name}: .*Choose another --out"):
            split_folders.write(plan, tmp_path / name, force=True)
    assert tree(tmp_path) == before


def test_files_created_during_copying_are_kept(tmp_path: Path) -> None:
    """Oracle: a file created in the target after the first check."""
    plan = planned(tmp_path)

    def intrude(done: int, total: int) -> None:
        make(tmp_path / "out", {"theirs.txt": b"x"})

    with pytest.raises(AlexNetError, match="out: is not empty"):
        split_folders.write(plan, tmp_path / "out", progress=intrude)
    assert tree(tmp_path / "out") == {"theirs.txt": b"x"}


def test_target_may_be_empty_but_not_overlap_the_source(tmp_path: Path) -> None:
    """Oracle: the files written; source and target may not contain each other."""
    plan = planned(tmp_path / "home")
    for bad in ("home", "home/data", "home/data/cat/out", "home/data/../data/out"):
        with pytest.raises(AlexNetError, match=r"the source.*Choose another --out"):
            split_folders.write(plan, tmp_path / bad, force=True)
    (tmp_path / "out").mkdir()
    split_folders.write(plan, tmp_path / "out")
    assert len(tree(tmp_path / "out")) == len(plan.files) + 1


def test_other_tools_see_every_class_in_every_split(tmp_path: Path) -> None:
    """Oracle: the folder names, although a class of one image has none in val."""
    source = make(two_classes(tmp_path / "data", 3), {"rare/0.png": png(44)})
    split_folders.write(plan_split(scanning.scan(source)), tmp_path / "out")
    for split in ("train", "val"):
        names = {path.name for path in (tmp_path / "out" / split).iterdir()}
        assert names == {"cat", "dog", "rare"}
    assert not (tmp_path / "out/test").exists()


def test_a_hard_link_across_file_systems_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: what to do about the system's EXDEV."""
    plan = planned(tmp_path)

    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(AlexNetError, match=r"data/.*file system than .*\. Use --link symbolic"):
        split_folders.write(plan, tmp_path / "out", link="hard")


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_splits_by_other_tools_are_used_unchanged(tmp_path: Path, val: str) -> None:
    """Oracle: the counts of the folders as created, by our names for the splits."""
    train = "Training" if val == "Val" else "train"
    shape = {(train, "a"): 4, (train, "b"): 3, (val, "a"): 2, (val, "b"): 1, ("test", "b"): 1}
    files = {
        f"{split}/{label}/{i}.png": png(len(split) * 100 + ord(label) * 10 + i)
        for (split, label), n in shape.items()
        for i in range(n)
    }
    root = make(tmp_path / "set", files)
    (root / "test/a").mkdir()
    manifest = split_folders.open_data(root)
    assert manifest.counts() == {
        "a": {"train": 4, "val": 2, "test": 0},
        "b": {"train": 3, "val": 1, "test": 1},
    }
    assert manifest.seed is None
    assert scanning.is_split(root)
    assert {file.path for file in manifest.files} == {root / name for name in files}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("train/a", "train/b", "val/a"), "val/b: not found, but train has this class"),
        (("train/a", "val/a", "val/b"), "train/b: not found, but val has this class"),
    ],
)
def test_splits_with_other_classes_are_refused(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    """Oracle: the message contains the class and the split that lacks it."""
    root = make(tmp_path / "set", {f"{name}/0.png": png(1) for name in files})
    with pytest.raises(AlexNetError, match=message):
        split_folders.open_data(root)


@pytest.mark.parametrize("test", ["test/a", "test", "Testing/of/it"])
def test_train_and_test_without_val_are_not_used_as_classes(tmp_path: Path, test: str) -> None:
    """Oracle: the command in the message, which splits the images in train."""
    names = ("train/a", "train/b", test)
    root = make(tmp_path / "set", {f"{name}/{i}.png": png(i) for name in names for i in (1, 2)})
    with pytest.raises(AlexNetError, match=f"but no val\\. .*: alexnet split {root}/train$"):
        split_folders.open_data(root)
    assert split_folders.open_data(root / "train").classes == ("a", "b")


def test_unsplit_folder_is_planned_without_copying(tmp_path: Path) -> None:
    """Oracle: the plan of its scan; the folder is unchanged. A class may be called train."""
    source = make(two_classes(tmp_path / "data"), {"train/0.png": png(300)})
    before = tree(source)
    assert split_folders.open_data(source, seed=4) == plan_split(scanning.scan(source), seed=4)
    assert tree(source) == before
