"""Scans: which files are images, rejected or ignored, and which folders are refused."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import pytest
from folders import make, png, two_classes
from PIL import Image

from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.manifest import MANIFEST
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError, WrongPathError

posix_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux file names and links")


def test_every_file_is_an_image_rejected_or_ignored(tmp_path: Path) -> None:
    """Oracle: a folder with files made for each of the three outcomes."""
    stream = BytesIO()
    Image.frombytes("RGB", (32, 32), random.Random(0).randbytes(32 * 32 * 3)).save(stream, "PNG")
    half = stream.getvalue()[:1500]
    source = make(
        two_classes(tmp_path / "data", 2),
        {
            "cat/UPPER.PNG": png(3),
            "cat/below/deep/x.png": png(4),
            "cat/no_suffix": png(5),
            "cat/wrong.jpg": png(6),  # PNG inside: the content decides
            "dog/TEXT.JPG": b"hello",
            "dog/empty.gif": b"",
            "dog/half.png": half,
            "dog/half_without_suffix": half,
            "stray.png": png(7),
            "cat/Thumbs.db": b"\xd0\xcf\x11\xe0",
            "cat/.DS_Store": b"x",
            "cat/._0.png": png(8),
            "cat/notes.txt": b"",
            "LICENSE.txt": b"free",
            "__MACOSX/cat/0.png": png(10),
            ".hidden/0.png": png(11),
            "cat/.thumbnails/0.png": png(12),
        },
    )
    for name in ("cat/huge.png", "cat/film.mp4"):
        (source / name).touch()
        os.truncate(source / name, 2**30 + 1)  # takes no room on the disk
    found = scanning.scan(source)
    assert found.classes == ("cat", "dog")
    assert [file.path.relative_to(source).as_posix() for file in found.files] == [
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
    assert reasons["stray.png"] == "is not in a class folder"
    assert reasons["cat/huge.png"] == "is larger than 1,073,741,824 bytes"
    assert len(reasons) == 6
    assert found.n_ignored == 6  # film.mp4, Thumbs.db, .DS_Store, ._0.png, notes.txt, LICENSE.txt


def test_sha256_and_progress_of_a_scan(tmp_path: Path) -> None:
    """Oracle: hashlib over the bytes; progress counts 1 to n of n."""
    calls: list[tuple[int, int]] = []
    reading = scanning.ScanOptions(progress=lambda done, total: calls.append((done, total)))
    found = scanning.scan(two_classes(tmp_path / "data", 3), reading)
    for file in found.files:
        assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert calls == [(i, 6) for i in range(1, 7)]


@posix_only
def test_links_are_followed_but_each_folder_entered_once(tmp_path: Path) -> None:
    """Oracle: each file once and in its own class, whatever the links."""
    source = two_classes(tmp_path / "data", 2)
    far = make(tmp_path / "far", {"x.png": png(50), "y.png": png(51)})
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
    assert Counter(file.label for file in found.files) == {"cat": 2, "dog": 2, "linked": 2}
    assert {item.path.name: item.reason for item in found.rejected} == {
        "bird": "is a broken link",
        "gone.png": "No such file or directory",
        "pipe.png": "is not a regular file",
        "self.png": "Too many levels of symbolic links",
    }
    assert found.n_ignored == 1  # of which nothing says that it is an image


def test_unreadable_file_and_folder_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the operating system's own reason, for exactly the unreadable ones (simulated, as root can read everything)."""
    source = make(two_classes(tmp_path / "data", 2), {"cat/shut/0.png": png(70)})
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
def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    """Oracle: the raw bytes of the name, after scan, copy, manifest and reading again."""
    source = two_classes(tmp_path / "data", 3)
    raw = os.path.join(os.fsencode(source), b"caf\xe9")
    os.mkdir(raw)
    for i in range(3):
        with open(os.path.join(raw, b"\xff%d\n.png" % i), "wb") as stream:
            stream.write(png(100 + i))
    split_folders.write(plan_split(scanning.scan(source)), tmp_path / "out")
    again = split_folders.open_data(tmp_path / "out")
    names = {os.fsencode(file.path.name) for file in again.files if file.label[:3] == "caf"}
    assert names == {b"\xff0\n.png", b"\xff1\n.png", b"\xff2\n.png"}
    assert os.fsencode(again.classes[0]) == b"caf\xe9"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"", "b.png": b""}, "2 files such as a.png. Expected one folder per class"),
        ({}, "no class folders, it is empty"),
        ({"cat/0.png": png(0)}, "contains only one class, 'cat'"),
        ({"cat/0.png": png(0), "dog/0.txt": b"no"}, "dog: contains no readable image. Add some"),
        (
            {"cat/a.png": b"", "cat/1.png": png(0), "dog/0.png": png(0)[:40], "dog/1.png": b""},
            "dog: contains no readable image (0.png: ",
        ),
        (
            {f"{split}/{c}/0.png": png(0) for split in ("train", "val") for c in "ab"},
            "is already split",
        ),
        ({MANIFEST: b'{"alexnet_split": 1}\n', "train/a/0.png": b""}, "is already split"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    """Oracle: the message contains what was found, in one line."""
    source = tmp_path / "data"
    source.mkdir()
    with pytest.raises(AlexNetError) as caught:
        scanning.scan(make(source, files))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(source))
    assert "\n" not in str(caught.value)


WRAPPED = {
    "class folders": ("cat", "dog"),
    "a split": ("train/cat", "train/dog", "val/cat", "val/dog"),
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("wrappers", ["a", "a/b/c"])
def test_a_folder_around_the_images_is_named(tmp_path: Path, kind: str, wrappers: str) -> None:
    """Oracle: the folder that was meant, which is then accepted; loose files do not hide it."""
    files = {f"{wrappers}/{name}/{i}.png": png(i) for name in WRAPPED[kind] for i in (0, 1)}
    source = make(tmp_path / "data", files | {"README": b"x", "__MACOSX/a/b/._0.png": b"x"})
    make(source / wrappers, {"LICENSE.txt": b"x"})
    with pytest.raises(WrongPathError) as caught:
        split_folders.open_data(source)
    assert caught.value.meant == source / wrappers
    assert f"give {source / wrappers}" in str(caught.value)
    assert split_folders.open_data(caught.value.meant).classes == ("cat", "dog")
    message = "If cat, dog are the classes" if kind == "class folders" else "c: is already split"
    message = message.replace("c:", f"{wrappers[-1]}:")
    with pytest.raises(AlexNetError, match=message):
        scanning.scan(source)


@pytest.mark.parametrize("extra", ["cat/0.png", "cat/x/y/0.png"])
def test_a_single_class_is_no_folder_around_others(tmp_path: Path, extra: str) -> None:
    """Oracle: images beside folders make a class; so does a single folder of images."""
    files = {extra: png(1)}
    if extra == "cat/0.png":
        files |= {"cat/1/a.png": png(2), "cat/2/b.png": png(3)}
    with pytest.raises(AlexNetError, match=r"only one class, 'cat'\. Add a folder for at least"):
        scanning.scan(make(tmp_path / "data", files))


def test_a_folder_that_holds_itself_ends(tmp_path: Path) -> None:
    """Oracle: the message, after a bounded number of folders."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    with pytest.raises(AlexNetError, match="contains only one class, 'cat'"):
        scanning.scan(tmp_path)


def test_missing_folder_and_file_are_refused(tmp_path: Path) -> None:
    """Oracle: the message contains the path and which of the two it is."""
    (tmp_path / "file").touch()
    with pytest.raises(AlexNetError, match=r"gone: not found"):
        scanning.scan(tmp_path / "gone")
    with pytest.raises(AlexNetError, match=r"file:1: no column file, .* or a folder with one"):
        scanning.scan(tmp_path / "file")
    with pytest.raises(
        AlexNetError, match=r"gone: not found\. Create it with: alexnet split FOLDER"
    ):
        split_folders.open_data(tmp_path / "gone")


def test_directory_order_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the scan of the same folder listed backwards."""
    source = make(two_classes(tmp_path / "data", 5), {"cat/sub/x.png": png(60)})
    first = scanning.scan(source)
    scandir, iterdir = os.scandir, Path.iterdir

    def backwards(path: Path) -> nullcontext[list[os.DirEntry[str]]]:
        return nullcontext(sorted(scandir(path), key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", backwards)
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=True)))
    assert scanning.scan(source) == first
