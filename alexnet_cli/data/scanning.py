"""What lies in a folder of class folders: each file found, hashed and decoded once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from alexnet_cli.data import images
from alexnet_cli.data.manifest import ImageFile, Progress, Rejected, is_alexnet_split
from alexnet_cli.data.scan_cache import FileCheck, judge
from alexnet_cli.errors import AlexNetError, ImageError

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Scan:
    """What lies in a folder of class folders; `n_ignored` files don't claim to be images."""

    source: Path
    classes: tuple[str, ...]
    images: tuple[ImageFile, ...]
    rejected: tuple[Rejected, ...]
    n_ignored: int


@dataclass(frozen=True)
class ScanOptions:
    """How to read files: at all or trusting their names, where to note what came of it, whom to tell.

    With a `journal`, a file that is written meanwhile, an interrupted scan goes on where it stopped.
    """

    check: bool = True
    journal: Path | None = None
    progress: Progress | None = None


DEFAULT_SCAN = ScanOptions()


def scan(source: Path, reading: ScanOptions = DEFAULT_SCAN) -> Scan:
    """Find, hash and decode every image below `source`, which holds one folder per class.

    Every file is read at most once. The images come sorted by class and path, whatever the
    directory order. Raises `AlexNetError` if the layout is another, or a class has no readable
    image.
    """
    source = require_folder(source)
    if is_split(source):
        raise AlexNetError(f"{source}: is a split already; train on it, or split its source")
    found = find(source)
    if len(found.classes) == 1:
        raise AlexNetError(f"{source}: holds one class, {found.classes[0]!r}; at least two needed")
    checked = read(found, reading)
    require_images(source, checked.classes, checked.images)
    return checked


def require_folder(path: Path) -> Path:
    """Return the absolute path; raises `AlexNetError` if it is no folder."""
    if not os.path.isdir(path):
        wrong = "is a file" if os.path.exists(path) else "no such folder"
        raise AlexNetError(f"{path}: {wrong}; expected a folder that holds one folder per class")
    return path.resolve()


def _skipped(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # what archives and desktops leave behind


def _entries(source: Path) -> tuple[list[Path], list[Path]]:
    """The class folders in `source`, and the files beside them."""
    try:
        paths = sorted(source.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise AlexNetError(f"{source}: {error.strerror}") from error
    folders = [path for path in paths if os.path.isdir(path) and not _skipped(path.name)]
    return folders, [path for path in paths if not os.path.isdir(path)]


def find(source: Path, split: str = "") -> Scan:
    """List the candidates, unread and without hashes."""
    folders, loose = _entries(source)
    if not folders:
        found = f"{len(loose)} files such as {loose[0].name}" if loose else "nothing"
        raise AlexNetError(
            f"{source}: holds no class folders but {found}; expected one folder per class, "
            f"such as {source.name}/cat and {source.name}/dog"
        )
    candidates: list[ImageFile] = []
    rejected: list[Rejected] = []
    n_ignored = 0
    for path in loose:
        if not images.claims(path):
            n_ignored += 1
        else:
            reason = "lies in no class folder" if os.path.exists(path) else "is a dangling link"
            rejected.append(Rejected(path, reason))
    for folder in folders:
        for item in walk(folder):
            if isinstance(item, Rejected):
                rejected.append(item)
            elif item.name.startswith("."):
                n_ignored += 1
            else:
                candidates.append(ImageFile(item, folder.name, split))
    classes = tuple(folder.name for folder in folders)
    return Scan(source, classes, tuple(candidates), tuple(rejected), n_ignored)


def walk(folder: Path) -> Iterator[Path | Rejected]:
    """Yield all files below `folder`, through links too, but into each folder once.

    A folder that can't be read is `Rejected`; hidden ones are passed over.
    """
    # A link to what lies above would bring what lies beside: every other class into this one.
    seen = {_identity(above) for above in folder.absolute().parents}
    stack = [folder]
    while stack:
        folder = stack.pop()
        try:
            if (identity := _identity(folder)) in seen:
                continue
            with os.scandir(folder) as entries:
                inside = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError as error:
            yield Rejected(folder, error.strerror or str(error))
            continue
        seen.add(identity)
        for name, is_folder in inside:
            if not is_folder:
                yield folder / name
            elif not _skipped(name):
                stack.append(folder / name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def read(found: Scan, reading: ScanOptions) -> Scan:
    """Hash and decode what `find` found, if so wanted, and sort it by class and path."""
    if not reading.check:
        return _trust(found)
    good: list[ImageFile] = []
    bad: list[Rejected] = []
    n_ignored = found.n_ignored
    verdicts = judge([file.path for file in found.images], _inspect, reading.journal)
    for done, (file, verdict) in enumerate(zip(found.images, verdicts), start=1):
        if verdict.sha256:
            good.append(replace(file, sha256=verdict.sha256))
        elif verdict.reason:
            bad.append(Rejected(file.path, verdict.reason))
        else:
            n_ignored += 1
        if reading.progress:
            reading.progress(done, len(found.images))
    return _sorted(found, good, bad, n_ignored)


def _trust(found: Scan) -> Scan:
    good = [file for file in found.images if images.is_named_like_one(file.path)]
    return _sorted(found, good, [], found.n_ignored + len(found.images) - len(good))


def _sorted(found: Scan, good: list[ImageFile], bad: list[Rejected], n_ignored: int) -> Scan:
    return replace(
        found,
        images=tuple(sorted(good, key=lambda file: (file.label, file.path.as_posix()))),
        rejected=tuple(sorted([*found.rejected, *bad], key=lambda item: item.path.as_posix())),
        n_ignored=n_ignored,
    )


def _inspect(path: Path) -> FileCheck:
    """Hash and decode one file."""
    try:
        status = path.stat()
        size, modified = status.st_size, status.st_mtime_ns
        content = images.read(path)
        images.open_rgb(BytesIO(content))
    except ImageError as error:
        reason = str(error) if images.claims(path) else None
        return FileCheck(reason=reason, size=size, modified=modified)
    except OSError as error:
        return FileCheck(reason=error.strerror or str(error))
    return FileCheck(sha256=hashlib.sha256(content).hexdigest(), size=size, modified=modified)


def require_images(source: Path, classes: Iterable[str], files: Iterable[ImageFile]) -> None:
    """Raise `AlexNetError` that names a class without any of `files`."""
    labels = {file.label for file in files}
    for label in classes:
        if label not in labels:
            empty = source / label
            raise AlexNetError(f"{empty}: holds no readable image; add some, or remove the folder")


def is_split(path: Path) -> bool:
    """Whether `path` holds a split, by us or by another tool; False if there is nothing."""
    return is_alexnet_split(path) or foreign_splits(path) is not None


def foreign_splits(path: Path) -> dict[str, Path] | None:
    """Split → folder as other tools name them, if there are at least train and val with folders in them.

    Raises `AlexNetError` for train and test without val: they would be taken for classes.
    """
    folders = _entries(path)[0] if os.path.isdir(path) else []
    by_name = {folder.name.lower(): folder for folder in folders}
    found = {}
    for split, names in _SPLIT_NAMES.items():
        of_split = [by_name[name] for name in names if name in by_name]
        if of_split and _entries(of_split[0])[0]:
            found[split] = of_split[0]
    if "train" in found and "val" not in found and by_name.keys() & _SPLIT_NAMES["test"]:
        raise AlexNetError(
            f"{path}: holds train and test but no val; `alexnet split {found['train']}` divides train"
        )
    return found if {"train", "val"} <= found.keys() else None
