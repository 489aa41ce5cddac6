"""Tests of scanning, planning, writing and the manifest; every image is a few pixels."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from alexnet_cli.data import scanning, splitting
from alexnet_cli.data.manifest import (
    MANIFEST,
    SPLITS,
    ImageFile,
    Manifest,
    read_manifest,
    write_manifest,
)
from alexnet_cli.data.scanning import Scan
from alexnet_cli.errors import AlexNetError, UsageError

posix_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux file names and links")


def picture(number: int) -> bytes:
    """A PNG whose content differs for every number."""
    stream = BytesIO()
    Image.new("RGB", (2, 2), (number % 256, number // 256 % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def make(root: Path, files: dict[str, bytes]) -> Path:
    """Write files below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def two_classes(root: Path, n: int = 10) -> Path:
    """`n` cats and `n` dogs, all different."""
    cats = {f"cat/{i}.png": picture(i) for i in range(n)}
    return make(root, cats | {f"dog/{i}.png": picture(1000 + i) for i in range(n)})


def scan_of(contents: Mapping[str, Sequence[object]]) -> Scan:
    """A scan made up without files: class -> its contents, in any notation."""
    images = tuple(
        ImageFile(
            Path(f"/data/{label}/{i}"), label, "", hashlib.sha256(str(content).encode()).hexdigest()
        )
        for label, members in contents.items()
        for i, content in enumerate(members)
    )
    return Scan(Path("/data"), tuple(contents), images, (), 0)


def numbers(manifest: Manifest, label: str) -> tuple[int, ...]:
    """How many of a class are in train, val and test."""
    return tuple(manifest.counts()[label].values())


def by_content(manifest: Manifest) -> dict[str, str]:
    """Content -> split."""
    return {file.sha256: file.split for file in manifest.files}


def tree(root: Path) -> dict[str, bytes]:
    """Every file below `root` with its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


# Scanning


def test_scan_sorts_every_file_into_accepted_rejected_or_ignored(tmp_path: Path) -> None:
    """Oracle: a folder whose every file was put there for one of the three outcomes."""
    stream = BytesIO()
    Image.frombytes("RGB", (32, 32), random.Random(0).randbytes(32 * 32 * 3)).save(stream, "PNG")
    half = stream.getvalue()[:1500]
    source = make(
        two_classes(tmp_path / "data", 2),
        {
            "cat/UPPER.PNG": picture(3),
            "cat/below/deep/x.png": picture(4),
            "cat/no_suffix": picture(5),
            "cat/wrong.jpg": picture(6),  # PNG inside: the content decides
            "dog/TEXT.JPG": b"hello",
            "dog/empty.gif": b"",
            "dog/half.png": half,
            "dog/half_without_suffix": half,
            "stray.png": picture(7),
            "cat/Thumbs.db": b"\xd0\xcf\x11\xe0",
            "cat/.DS_Store": b"x",
            "cat/._0.png": picture(8),
            "cat/notes.txt": b"",
            "LICENSE.txt": b"free",
            "__MACOSX/cat/0.png": picture(10),
            ".hidden/0.png": picture(11),
            "cat/.thumbnails/0.png": picture(12),
        },
    )
    for name in ("cat/huge.png", "cat/film.mp4"):
        (source / name).touch()
        os.truncate(source / name, 2**30 + 1)  # takes no room on the disk
    found = scanning.scan(source)
    assert found.classes == ("cat", "dog")
    assert [file.path.relative_to(source).as_posix() for file in found.images] == [
        "cat/0.png",
        "cat/1.png",
        "cat/UPPER.PNG",
        "cat/below/deep/x.png",
        "cat/no_suffix",
        "cat/wrong.jpg",
        "dog/0.png",
        "dog/1.png",
    ]
    reasons = {item.path.relative_to(source).as_posix(): item.reason for item in found.rejected}
    assert reasons["dog/TEXT.JPG"] == "is not an image"
    assert reasons["dog/empty.gif"] == "is empty"
    assert reasons["dog/half.png"].startswith("does not decode")
    assert reasons["dog/half_without_suffix"].startswith("does not decode")
    assert reasons["stray.png"] == "lies in no class folder"
    assert reasons["cat/huge.png"] == "is larger than 1,073,741,824 bytes"
    assert len(reasons) == 6
    assert found.n_ignored == 6  # film.mp4, Thumbs.db, .DS_Store, ._0.png, notes.txt, LICENSE.txt


def test_hash_is_that_of_the_file_and_progress_counts_to_the_total(tmp_path: Path) -> None:
    """Oracle: hashlib over the bytes; the law that progress is 1..n of n."""
    calls: list[tuple[int, int]] = []
    reading = scanning.ScanOptions(progress=lambda done, total: calls.append((done, total)))
    found = scanning.scan(two_classes(tmp_path / "data", 3), reading)
    for file in found.images:
        assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert calls == [(i, 6) for i in range(1, 7)]


@posix_only
def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    """Oracle: each file once and in its own class, whatever the links."""
    source = two_classes(tmp_path / "data", 2)
    far = make(tmp_path / "far", {"x.png": picture(50), "y.png": picture(51)})
    (source / "linked").symlink_to(far)
    (source / "cat/loop").symlink_to(source / "cat")
    (source / "cat/up").symlink_to(source)
    (source / "cat/above").symlink_to(tmp_path)
    (far / "back").symlink_to(far)
    (source / "dog/self.png").symlink_to("self.png")
    (source / "dog/gone.png").symlink_to("nowhere.png")
    (source / "bird").symlink_to(tmp_path / "unmounted")
    os.mkfifo(source / "dog/pipe.png")
    os.mkfifo(source / "dog/socket")
    found = scanning.scan(source)
    assert Counter(file.label for file in found.images) == {"cat": 2, "dog": 2, "linked": 2}
    assert {item.path.name: item.reason for item in found.rejected} == {
        "bird": "is a dangling link",
        "gone.png": "No such file or directory",
        "pipe.png": "is not a regular file",
        "self.png": "Too many levels of symbolic links",
    }
    assert found.n_ignored == 1  # of which nothing says that it is an image


def test_unreadable_file_and_folder_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the operating system's own reason, for exactly those shut (faked: root reads all)."""
    source = make(two_classes(tmp_path / "data", 2), {"cat/shut/0.png": picture(70)})
    read_bytes, scandir = Path.read_bytes, os.scandir
    denied = PermissionError(13, "Permission denied")

    def read(path: Path) -> bytes:
        if path.name == "1.png":
            raise denied
        return read_bytes(path)

    def scan(path: Path) -> Iterator[os.DirEntry[str]]:
        if isinstance(path, Path) and path.name == "shut":
            raise denied
        return scandir(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.setattr(os, "scandir", scan)
    reasons = {
        item.path.relative_to(source).as_posix(): item.reason
        for item in scanning.scan(source).rejected
    }
    names = ("cat/1.png", "cat/shut", "dog/1.png")
    assert reasons == dict.fromkeys(names, "Permission denied")


@posix_only
def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    """Oracle: the raw bytes of the name, after scan, copy, manifest and reading again."""
    source = two_classes(tmp_path / "data", 3)
    raw = os.path.join(os.fsencode(source), b"caf\xe9")
    os.mkdir(raw)
    for i in range(3):
        with open(os.path.join(raw, b"\xff%d\n.png" % i), "wb") as stream:
            stream.write(picture(100 + i))
    splitting.write(splitting.plan(scanning.scan(source)), tmp_path / "out")
    again = splitting.open_data(tmp_path / "out")
    names = {os.fsencode(file.path.name) for file in again.files if file.label[:3] == "caf"}
    assert names == {b"\xff0\n.png", b"\xff1\n.png", b"\xff2\n.png"}
    assert os.fsencode(again.classes[0]) == b"caf\xe9"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"", "b.png": b""}, "2 files such as a.png; expected one folder per class"),
        ({}, "no class folders but nothing"),
        ({"cat/0.png": picture(0)}, "holds one class, 'cat'"),
        ({"cat/0.png": picture(0), "dog/0.png": b"no"}, "dog: holds no readable image"),
        (
            {f"{split}/{c}/0.png": picture(0) for split in ("train", "val") for c in "ab"},
            "is a split already",
        ),
        ({MANIFEST: b'{"alexnet_split": 1}\n', "train/a/0.png": b""}, "is a split already"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    """Oracle: the message names what was found, on one line."""
    source = tmp_path / "data"
    source.mkdir()
    with pytest.raises(AlexNetError) as caught:
        scanning.scan(make(source, files))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(source))
    assert "\n" not in str(caught.value)


def test_missing_folder_and_file_are_refused(tmp_path: Path) -> None:
    """Oracle: the message names the path and which of the two it is."""
    (tmp_path / "file").touch()
    with pytest.raises(AlexNetError, match=r"gone: no such folder"):
        scanning.scan(tmp_path / "gone")
    with pytest.raises(AlexNetError, match=r"file: is a file"):
        scanning.scan(tmp_path / "file")
    with pytest.raises(AlexNetError, match=r"gone: no such folder; `alexnet split FOLDER`"):
        splitting.open_data(tmp_path / "gone")


# Planning


@pytest.mark.parametrize(
    ("n", "val", "test", "expected"),
    [
        (9, 0.1, 0.1, (7, 1, 1)),  # 7.2 + .9 + .9
        (10, 0.1, 0.1, (8, 1, 1)),
        (100, 0.29, 0.14, (57, 29, 14)),  # .29 * 100 is 28.999999999999996 in binary
        (25, 0.1, 0.1, (20, 3, 2)),  # 20 + 2.5 + 2.5: the tie goes to val
        (15, 0.1, 0.0, (14, 1, 0)),  # 13.5 + 1.5: the tie goes to train
        (7, 0.2, 0.2, (4, 2, 1)),  # 4.2 + 1.4 + 1.4
        (1, 0.1, 0.1, (1, 0, 0)),
        (1, 0.9, 0.0, (1, 0, 0)),  # a single image is for training, whatever the fraction
        (2, 0.1, 0.1, (1, 1, 0)),
        (2, 0.1, 0.5, (1, 1, 0)),  # test gives way
        (3, 0.1, 0.1, (1, 1, 1)),
        (3, 0.1, 0.0, (2, 1, 0)),
        (3, 0.9, 0.0, (1, 2, 0)),
    ],
)
def test_quotas(n: int, val: float, test: float, expected: tuple[int, int, int]) -> None:
    """Oracle: largest remainders worked out by hand, then the promise of non-empty splits."""
    for seed in range(5):
        manifest = splitting.plan(scan_of({"a": list(range(n))}), val=val, test=test, seed=seed)
        assert numbers(manifest, "a") == expected


def test_splits_are_disjoint_exhaustive_and_stratified() -> None:
    """Oracle: laws. Every file once; each class within one file of its exact share."""
    sizes = dict(zip("abcdefgh", (3, 10, 11, 29, 57, 100, 333, 1000), strict=True))
    found = scan_of({label: [f"{label}{i}" for i in range(n)] for label, n in sizes.items()})
    manifest = splitting.plan(found, val=0.15, test=0.25, seed=3)
    parts = [{file.path for file in manifest.of(split)} for split in SPLITS]
    assert set.union(*parts) == {file.path for file in found.images}
    assert sum(map(len, parts)) == sum(sizes.values())
    for label, n in sizes.items():
        for count, share in zip(numbers(manifest, label), (0.6, 0.15, 0.25), strict=True):
            assert abs(count - n * share) < 1


def test_the_plan_depends_on_contents_and_seed_alone(tmp_path: Path) -> None:
    """Oracle: the same files under other names, in another order, give the same split."""
    found = scanning.scan(two_classes(tmp_path / "data", 20))
    first = by_content(splitting.plan(found, test=0.2, seed=5))
    backwards = replace(found, images=found.images[::-1])
    assert by_content(splitting.plan(backwards, test=0.2, seed=5)) == first
    other = make(
        tmp_path / "other",
        {
            f"{file.label}/sub/{file.sha256[:9]}.jpg": file.path.read_bytes()
            for file in found.images
        },
    )
    assert by_content(splitting.plan(scanning.scan(other), test=0.2, seed=5)) == first
    assert by_content(splitting.plan(found, test=0.2, seed=6)) != first


def test_directory_order_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the scan of the same folder listed backwards."""
    source = make(two_classes(tmp_path / "data", 5), {"cat/sub/x.png": picture(60)})
    first = scanning.scan(source)
    scandir, iterdir = os.scandir, Path.iterdir

    def backwards(path: Path) -> nullcontext[list[os.DirEntry[str]]]:
        return nullcontext(sorted(scandir(path), key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", backwards)
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=True)))
    assert scanning.scan(source) == first


def test_the_choice_is_pinned() -> None:
    """Oracle: the rule written out again: in hash order, to where most room is left."""
    found = scan_of({"a": list(range(10))})
    manifest = splitting.plan(found, val=0.3, seed=11)
    order = sorted(
        (file.sha256 for file in found.images),
        key=lambda content: hashlib.sha256(f"11:{content}".encode()).hexdigest(),
    )
    # Room for 7 + 3: train until both have 3 left, then turn by turn, ties to train.
    expected = ["train"] * 5 + ["val", "train", "val", "train", "val"]
    assert [by_content(manifest)[content] for content in order] == expected


def test_every_image_is_as_likely_in_val_as_any_other() -> None:
    """Oracle: a binomial law, mean and 5 sigma, for each of 20 images over 2000 seeds."""
    found = scan_of({"a": list(range(20)), "b": ["x", "y"]})
    n_seeds, share = 2000, 0.2
    hits = Counter(
        file.path
        for seed in range(n_seeds)
        for file in splitting.plan(found, val=share, seed=seed).of("val")
        if file.label == "a"
    )
    sigma = (n_seeds * share * (1 - share)) ** 0.5
    assert len(hits) == 20
    assert all(abs(n - n_seeds * share) < 5 * sigma for n in hits.values())


def test_equal_contents_share_a_split_across_classes_too() -> None:
    """Oracle: laws on random duplicates: one split a content, and nothing needed left empty."""
    chance = random.Random(1)
    for seed in range(60):
        pool = chance.choice((6, 15, 60))
        contents = {
            label: [chance.randrange(pool) for _ in range(chance.choice((1, 2, 5, 30)))]
            + [f"{label}{i}" for i in range(3)]
            for label in "abc"
        }
        manifest = splitting.plan(scan_of(contents), val=0.1, test=0.1, seed=seed)
        splits: dict[str, set[str]] = {}
        for file in manifest.files:
            splits.setdefault(file.sha256, set()).add(file.split)
        assert all(len(where) == 1 for where in splits.values())
        assert all(n > 0 for row in manifest.counts().values() for n in row.values())


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([1] * 5, (5, 0, 0)),  # one content: all of it for training
        ([1] * 5 + [2] * 5, (5, 5, 0)),  # quotas 9 and 1, but val must not stay empty
        ([1] * 8 + [2, 3], (8, 1, 1)),
        ([1] * 4 + [2] * 3 + [3] * 3, (4, 3, 3)),
    ],
)
def test_duplicates_never_leave_a_split_empty(
    members: list[object], expected: tuple[int, int, int]
) -> None:
    """Oracle: the only divisions that keep the promise, found by hand."""
    manifest = splitting.plan(scan_of({"a": members}), val=0.1, test=0.1)
    assert numbers(manifest, "a") == expected
    assert sum(map(len, manifest.duplicates())) == sum(
        n for n in Counter(members).values() if n > 1
    )


def test_classes_that_share_everything_are_refused_when_nothing_fits() -> None:
    """Oracle: three contents, each pair of them a class: two splits can't divide all the pairs."""
    with pytest.raises(AlexNetError, match=r"class '[abc]': shares so many images"):
        splitting.plan(scan_of({"a": [1, 2], "b": [1, 3], "c": [2, 3]}))


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (1.5, 0, "--val 1.5"),
        (0, 0, "--val 0"),
        (1.0, 0, "--val 1.0"),
        (float("nan"), 0, "--val nan"),
        (0.1, -0.1, "--test -0.1"),
        (0.1, float("inf"), "--test inf"),
        (0.6, 0.4, "--val 0.6 --test 0.4"),
    ],
)
def test_impossible_fractions_are_named(val: float, test: float, message: str) -> None:
    """Oracle: the option and the value stand in the message."""
    with pytest.raises(UsageError, match=message):
        splitting.plan(scan_of({"a": [1, 2]}), val=val, test=test)


# Writing


def planned(tmp_path: Path, n: int = 10) -> Manifest:
    """A plan for `2 * n + 1` images, one of them in a sub-folder."""
    source = make(two_classes(tmp_path / "data", n), {"cat/sub/x.PNG": picture(99)})
    return splitting.plan(scanning.scan(source), val=0.2, test=0.1)


@pytest.mark.parametrize("link", splitting.LINKS)
def test_write_makes_every_file_once_where_its_split_is(tmp_path: Path, link: str) -> None:
    """Oracle: the bytes of source and copy, and the law that the folder holds nothing else."""
    plan = planned(tmp_path)
    calls: list[tuple[int, int]] = []
    out = tmp_path / "new/out"
    written = splitting.write(plan, out, link=link, progress=lambda *call: calls.append(call))
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
    assert {line["path"]: line["original"] for line in lines[1:]} == {
        name: name.split("/", 1)[1] for name in expected
    }
    assert splitting.open_data(out) == written
    assert scanning.is_split(out)
    assert not scanning.is_split(plan.root)
    assert not scanning.is_split(tmp_path / "gone")
    one = written.files[0].path
    assert one.is_symlink() == (link == "symbolic")
    assert os.path.samefile(one, plan.files[0].path) == (link != "copy")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_two_names_for_one_file_are_not_written_over_each_other(tmp_path: Path) -> None:
    """Oracle: the bytes of the first, where a file system holds a.JPG for a.jpg."""
    plan = planned(tmp_path)
    first, second = (file.path for file in plan.files[:2])
    splitting._place(first, tmp_path / "one", "copy")
    with pytest.raises(OSError, match="differs from another in case only") as caught:
        splitting._place(second, tmp_path / "one", "copy")
    assert caught.value.filename == str(second)
    assert (tmp_path / "one").read_bytes() == first.read_bytes()


def test_a_split_whose_manifest_is_damaged_is_left_to_its_owner(tmp_path: Path) -> None:
    """Oracle: what to do, and every byte as it was."""
    plan = planned(tmp_path)
    splitting.write(plan, tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    manifest.write_bytes(manifest.read_bytes().rpartition(b"\n{")[0])
    before = tree(tmp_path / "out")
    with pytest.raises(
        AlexNetError, match=f"delete {tmp_path}/out yourself, as what is part of it"
    ):
        splitting.write(plan, tmp_path / "out", force=True)
    assert tree(tmp_path / "out") == before


def test_a_moved_split_opens(tmp_path: Path) -> None:
    """Oracle: the same counts, and paths below the new place."""
    written = splitting.write(planned(tmp_path), tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "data")
    moved = splitting.open_data(tmp_path / "elsewhere")
    assert moved.counts() == written.counts()
    assert all(file.path.is_relative_to(tmp_path / "elsewhere") for file in moved.files)


@pytest.mark.parametrize("link", splitting.LINKS)
def test_a_failed_write_leaves_nothing(tmp_path: Path, link: str) -> None:
    """Oracle: the listing of the parent folder, before and after a source file vanished."""
    plan = planned(tmp_path)
    plan.files[-1].path.unlink()
    with pytest.raises(AlexNetError, match=plan.files[-1].path.name):
        splitting.write(plan, tmp_path / "out", link=link)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("when", ["copy", "manifest", "swap"])
def test_an_interrupted_replacement_keeps_the_old_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Oracle: every byte of the old split, after Ctrl-C at three moments."""
    plan = planned(tmp_path)
    splitting.write(plan, tmp_path / "out")
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
        splitting.write(
            plan, tmp_path / "out", force=True, progress=interrupt if when == "copy" else None
        )
    assert tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_force_replaces_an_earlier_split_whole(tmp_path: Path) -> None:
    """Oracle: the tree that another seed makes in a fresh place; without force, a refusal."""
    found = scanning.scan(two_classes(tmp_path / "data", 20))
    one, two = (splitting.plan(found, val=0.3, seed=seed) for seed in (1, 2))
    splitting.write(one, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(AlexNetError, match=r"out: holds a split already.*--force.*--out"):
        splitting.write(two, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    splitting.write(two, tmp_path / "out", force=True)
    splitting.write(two, tmp_path / "fresh")
    replaced, fresh = tree(tmp_path / "out"), tree(tmp_path / "fresh")
    del replaced[MANIFEST], fresh[MANIFEST]  # they name their folders
    assert replaced == fresh
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "fresh", "out"]


@pytest.mark.parametrize("addition", ["train/cat/mine.png", "notes.txt", "extra/deep/x"])
def test_force_never_deletes_what_was_added(tmp_path: Path, addition: str) -> None:
    """Oracle: the added file is named, and everything is still there."""
    plan = planned(tmp_path)
    splitting.write(plan, tmp_path / "out")
    make(tmp_path / "out", {addition: b"precious"})
    before = tree(tmp_path)
    with pytest.raises(AlexNetError, match=addition):
        splitting.write(plan, tmp_path / "out", force=True)
    assert tree(tmp_path) == before


def test_force_never_replaces_what_is_not_ours(tmp_path: Path) -> None:
    """Oracle: a folder of somebody's, a foreign manifest, and a file are as they were."""
    plan = planned(tmp_path)
    make(tmp_path, {"out/thesis.txt": b"x", "other/manifest.jsonl": b'{"a": 1}\n', "file": b"x"})
    before = tree(tmp_path)
    for name in ("out", "other", "file"):
        with pytest.raises(AlexNetError, match=f"{name}: .*choose another --out"):
            splitting.write(plan, tmp_path / name, force=True)
    assert tree(tmp_path) == before


def test_what_appears_while_copying_survives(tmp_path: Path) -> None:
    """Oracle: a file that somebody else puts at the target after the first check."""
    plan = planned(tmp_path)

    def intrude(done: int, total: int) -> None:
        make(tmp_path / "out", {"theirs.txt": b"x"})

    with pytest.raises(AlexNetError, match="out: is not empty"):
        splitting.write(plan, tmp_path / "out", progress=intrude)
    assert tree(tmp_path / "out") == {"theirs.txt": b"x"}


def test_an_empty_target_is_fine_and_an_overlapping_one_is_not(tmp_path: Path) -> None:
    """Oracle: the tree; source and target may not contain one another."""
    plan = planned(tmp_path / "home")
    for bad in ("home", "home/data", "home/data/cat/out", "home/data/../data/out"):
        with pytest.raises(AlexNetError, match=r"the source.*choose another --out"):
            splitting.write(plan, tmp_path / bad, force=True)
    (tmp_path / "out").mkdir()
    splitting.write(plan, tmp_path / "out")
    assert len(tree(tmp_path / "out")) == len(plan.files) + 1


def test_other_tools_see_every_class_in_every_split(tmp_path: Path) -> None:
    """Oracle: folder names; a class of one image has none for val."""
    source = make(two_classes(tmp_path / "data", 3), {"rare/0.png": picture(44)})
    splitting.write(splitting.plan(scanning.scan(source)), tmp_path / "out")
    for split in ("train", "val"):
        names = {path.name for path in (tmp_path / "out" / split).iterdir()}
        assert names == {"cat", "dog", "rare"}
    assert not (tmp_path / "out/test").exists()


def test_an_unknown_link_and_a_hard_link_across_file_systems_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the value in the message, and the way out of the system's EXDEV."""
    plan = planned(tmp_path)
    with pytest.raises(UsageError, match=r"--link soft.*copy, hard, symbolic"):
        splitting.write(plan, tmp_path / "out", link="soft")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(AlexNetError, match=r"data/.*file system; use --link symbolic"):
        splitting.write(plan, tmp_path / "out", link="hard")


# The manifest and opening


def test_a_manifest_kept_in_a_run_folder_finds_the_files(tmp_path: Path) -> None:
    """Oracle: equality after writing and reading, for a plan in place and for a split."""
    plan = planned(tmp_path)
    make(tmp_path / "data", {"cat/bad.jpg": b"no"})
    plan = splitting.plan(scanning.scan(tmp_path / "data"), test=0.1, seed=-3)
    for manifest in (plan, splitting.write(plan, tmp_path / "out")):
        write_manifest(manifest, tmp_path / "run.jsonl")
        assert read_manifest(tmp_path / "run.jsonl") == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out", "run.jsonl"]


def test_a_manifest_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the bytes of the folder, before and after the disk is full."""
    plan = planned(tmp_path)
    write_manifest(plan, tmp_path / "run.jsonl")
    before = tree(tmp_path)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_manifest(replace(plan, seed=9), tmp_path / "run.jsonl")
    assert tree(tmp_path) == before
    with pytest.raises(AlexNetError, match=r"out: No space left on device; .*out is as it was"):
        splitting.write(plan, tmp_path / "out")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (1, None, "is not JSON"),
        (1, [], "is not a JSON object"),
        (1, {"alexnet_split": 2}, "'alexnet_split' must be 1, is 2"),
        (1, {"alexnet_split": None}, "'alexnet_split' must be 1"),
        (1, {"classes": "cat"}, "'classes' can't be 'cat'"),
        (1, {"classes": ["cat", "cat"]}, "'classes' must be different"),
        (1, {"classes": ["cat", {}]}, "'classes' must be different"),
        (1, {"rejected": [1]}, "'rejected' can't be"),
        (1, {"seed": "x"}, "'seed' can't be 'x'"),
        (1, {"n_ignored": None}, "'n_ignored' can't be None"),
        (3, None, "is not JSON"),
        (3, 7, "is not a JSON object"),
        (3, {"path": "/etc/passwd"}, "'path' '/etc/passwd' leaves the folder"),
        (3, {"path": "train/../../x"}, "leaves the folder"),
        (3, {"path": ""}, "leaves the folder"),
        (3, {"path": 5}, "'path' can't be 5"),
        (3, {"split": "training"}, "'split' 'training' is none of train, val, test"),
        (3, {"class": "bird"}, "'class' 'bird' is none of the header's"),
        (3, {"sha256": "00"}, "'sha256' '00'"),
        (4, {"path": "val/cat/twice.png"}, "is listed twice"),
    ],
)
def test_hostile_manifests_are_refused(
    tmp_path: Path, number: int, change: object, message: str
) -> None:
    """Oracle: the message names file, line and value; the unchanged lines are accepted."""
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
        splitting.open_data(tmp_path)
    assert str(caught.value).startswith(f"{path}:{number}: ")
    assert message in str(caught.value)


def test_a_manifest_cut_short_is_refused(tmp_path: Path) -> None:
    """Oracle: the first line that is missing, for every length but the whole."""
    splitting.write(planned(tmp_path, 2), tmp_path / "out")
    path = tmp_path / "out" / MANIFEST
    lines = path.read_bytes().splitlines(keepends=True)
    for n in range(len(lines)):
        path.write_bytes(b"".join(lines[:n]))
        with pytest.raises(AlexNetError, match=f":{n + 1}: "):
            read_manifest(path)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_splits_by_other_tools_are_taken_as_they_are(tmp_path: Path, val: str) -> None:
    """Oracle: the counts of the folders as made, under our names for the splits."""
    train = "Training" if val == "Val" else "train"
    shape = {(train, "a"): 4, (train, "b"): 3, (val, "a"): 2, (val, "b"): 1, ("test", "b"): 1}
    files = {
        f"{split}/{label}/{i}.png": picture(len(split) * 100 + ord(label) * 10 + i)
        for (split, label), n in shape.items()
        for i in range(n)
    }
    root = make(tmp_path / "set", files)
    (root / "test/a").mkdir()
    manifest = splitting.open_data(root)
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
        (("train/a", "train/b", "val/a"), "val/b: missing, although train has this class"),
        (("train/a", "val/a", "val/b"), "train/b: missing, although val has this class"),
    ],
)
def test_splits_with_other_classes_are_refused(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    """Oracle: the class and the split that lacks it are named."""
    root = make(tmp_path / "set", {f"{name}/0.png": picture(1) for name in files})
    with pytest.raises(AlexNetError, match=message):
        splitting.open_data(root)


@pytest.mark.parametrize("test", ["test/a", "test", "Testing/of/it"])
def test_train_and_test_without_val_are_not_taken_for_classes(tmp_path: Path, test: str) -> None:
    """Oracle: the command that helps, which divides what is in train."""
    names = ("train/a", "train/b", test)
    root = make(tmp_path / "set", {f"{name}/{i}.png": picture(i) for name in names for i in (1, 2)})
    with pytest.raises(AlexNetError, match=f"but no val; `alexnet split {root}/train` divides"):
        splitting.open_data(root)
    assert splitting.open_data(root / "train").classes == ("a", "b")


def test_an_undivided_folder_is_planned_in_place(tmp_path: Path) -> None:
    """Oracle: the plan of its scan; the folder is untouched. Classes may be called train."""
    source = make(two_classes(tmp_path / "data"), {"train/0.png": picture(300)})
    before = tree(source)
    assert splitting.open_data(source, seed=4) == splitting.plan(scanning.scan(source), seed=4)
    assert tree(source) == before
