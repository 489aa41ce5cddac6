"""What lies in a folder of class folders: each file found, hashed and decoded once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from PIL import UnidentifiedImageError

from alexnet_cli import images
from alexnet_cli.errors import AlexNetError, ImageError
from alexnet_cli.manifest import ImageFile, Progress, Rejected, is_ours
from alexnet_cli.parallel import for_each

_SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_MAX_BYTES = 2**30  # a file is read whole, and `images.MAX_PIXELS` never need as much


@dataclass(frozen=True)
class Scan:
    """What lies in a folder of class folders; `n_ignored` files don't claim to be images."""

    source: Path
    classes: tuple[str, ...]
    images: tuple[ImageFile, ...]
    rejected: tuple[Rejected, ...]
    n_ignored: int


def scan(source: Path, progress: Progress | None = None) -> Scan:
    """Find, hash and decode every image below `source`, which holds one folder per class.

    Every file is read once. The images come sorted by class and path, whatever the directory
    order. Raises `AlexNetError` if the layout is another, or a class has no readable image.
    """
    source = require_folder(source)
    if is_split(source):
        raise AlexNetError(f"{source}: is a split already; train on it, or split its source")
    found = find(source)
    if len(found.classes) == 1:
        raise AlexNetError(f"{source}: holds one class, {found.classes[0]!r}; at least two needed")
    checked = read(found, progress)
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


def _claims_image(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in images.SUFFIXES


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
        if os.path.exists(path) and not _claims_image(path):
            n_ignored += 1
        else:
            reason = "lies in no class folder" if os.path.exists(path) else "is a dangling link"
            rejected.append(Rejected(path, reason))
    # A link back to the source or above it would bring every other class into this one.
    above = {_identity(folder) for folder in (source, *source.parents)}
    for folder in folders:
        for item in _walk(folder, set(above)):
            if isinstance(item, Rejected):
                rejected.append(item)
            elif item.name.startswith("."):
                n_ignored += 1
            else:
                candidates.append(ImageFile(item, folder.name, split, ""))
    classes = tuple(folder.name for folder in folders)
    return Scan(source, classes, tuple(candidates), tuple(rejected), n_ignored)


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path | Rejected]:
    """All files below `folder`, through links too, but into each folder once."""
    stack = [folder]
    while stack:
        folder = stack.pop()
        try:
            identity = _identity(folder)
            names = [] if identity in seen else sorted(os.listdir(folder))
        except OSError as error:
            yield Rejected(folder, error.strerror or str(error))
            continue
        seen.add(identity)
        for name in names:
            path = folder / name
            if not os.path.isdir(path):
                yield path
            elif not _skipped(name):
                stack.append(path)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def read(found: Scan, progress: Progress | None) -> Scan:
    """Hash and decode what `find` found, and sort it by class and path."""
    results = for_each(found.images, _inspect, progress)
    good = [item for item in results if isinstance(item, ImageFile)]
    bad = [item for item in results if isinstance(item, Rejected)]
    return replace(
        found,
        images=tuple(sorted(good, key=lambda file: (file.label, file.path.as_posix()))),
        rejected=tuple(sorted([*found.rejected, *bad], key=lambda item: item.path.as_posix())),
        n_ignored=found.n_ignored + results.count(None),
    )


def _inspect(file: ImageFile) -> ImageFile | Rejected | None:
    """Hash and decode one file; None if it neither is nor claims to be an image."""
    try:
        status = file.path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Rejected(file.path, "is not a regular file")  # a pipe would be read forever
        if status.st_size > _MAX_BYTES:
            too_large = Rejected(file.path, f"is larger than {_MAX_BYTES:,} bytes")
            return too_large if _claims_image(file.path) else None
        content = file.path.read_bytes()
        images.open_rgb(BytesIO(content))
    except ImageError as error:
        unknown = isinstance(error.__context__, UnidentifiedImageError)
        return None if unknown and not _claims_image(file.path) else Rejected(file.path, str(error))
    except OSError as error:
        return Rejected(file.path, error.strerror or str(error))
    return replace(file, sha256=hashlib.sha256(content).hexdigest())


def require_images(source: Path, classes: Iterable[str], files: Iterable[ImageFile]) -> None:
    """Raise `AlexNetError` that names a class without any of `files`."""
    labels = {file.label for file in files}
    for label in classes:
        if label not in labels:
            empty = source / label
            raise AlexNetError(f"{empty}: holds no readable image; add some, or remove the folder")


def is_split(path: Path) -> bool:
    """Whether `path` holds a split, by us or by another tool; False if there is nothing."""
    return is_ours(path) or foreign_splits(path) is not None


def foreign_splits(path: Path) -> dict[str, Path] | None:
    """Split → folder as other tools name them, if there are at least train and val with folders in them."""
    found = {}
    for split, names in _SPLIT_NAMES.items():
        folders = [path / name for name in names if os.path.isdir(path / name)]
        if folders and _entries(folders[0])[0]:
            found[split] = folders[0]
    return found if {"train", "val"} <= found.keys() else None
