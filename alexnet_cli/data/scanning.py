"""Scan a folder of class folders, or a list: find the files, hash and decode each once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import NoReturn

from alexnet_cli.data import image_list, images, near_copies
from alexnet_cli.data.manifest import (
    SPLIT_NAMES,
    ImageFile,
    Manifest,
    Rejected,
    is_alexnet_split,
)
from alexnet_cli.data.scan_cache import FileCheck, check_files
from alexnet_cli.errors import AlexNetError, ImageError, WrongPathError
from alexnet_cli.system.workers import Progress

_MOST_WRAPPERS = 4  # folders around the class folders; a link to itself would have no end


@dataclass(frozen=True)
class ScanOptions:
    """How to scan a folder.

    `check`: decode and hash every file; otherwise select images by file extension, without reading
    them. `cache`: the path of the scan cache, with which an interrupted scan can resume.
    `progress`: called with (done, total) after each file. `processes`: read very many files with a
    process for each core, which a script without a main guard can't have.
    """

    check: bool = True
    cache: Path | None = None
    progress: Progress | None = None
    processes: bool = False


DEFAULT_SCAN = ScanOptions()


def scan(source: Path, options: ScanOptions = DEFAULT_SCAN) -> Manifest:
    """Return the images of `source`, a folder with one folder per class or a list, not yet split.

    Every file is read at most once. The images are sorted by class and path, whatever the directory
    order. Raises `AlexNetError` if `source` is a split or has another layout, has fewer than two
    classes, or has a class without a readable image.
    """
    source = require_source(source)
    for folder in (source, source.is_dir() and _find_wrapped(source)):
        if folder and is_split(folder):
            raise AlexNetError(
                f"{folder}: is already split. Train on it, or split the original folder"
            )
    return scan_classes(source, options)


def scan_classes(source: Path, options: ScanOptions) -> Manifest:
    """Return what `scan` does for a folder or list that is known to be no split."""
    found = find_candidates(source)
    if len(found.classes) == 1:
        _refuse_one_class(source, found.classes[0])
    checked = check_candidates(found, options)
    require_images(source, checked.classes, checked.files, checked.rejected)
    return checked


def _refuse_one_class(source: Path, only: str) -> NoReturn:
    """Raise `AlexNetError`, with the folder that was meant if `source` is one around it."""
    problem = f"{source}: contains only one class, {only!r}"
    inner = _find_wrapped(source)
    if inner is None:
        raise AlexNetError(f"{problem}. Add a folder for at least one more class")
    names = [folder.name for folder in _entries(inner)[0]]
    some = f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
    what = "the splits" if is_split(inner) else "the classes"
    raise WrongPathError(f"{problem}. If {some} are {what}, give {inner}", source, inner)


def _find_wrapped(source: Path) -> Path | None:
    """Return the folder of several folders inside the only folder of `source`, as archives have it.

    None for a class folder, which holds images itself, and if `source` has several folders.
    """
    inner, folders, loose = source, *_entries(source)
    for _ in range(_MOST_WRAPPERS):
        if len(folders) != 1:
            break
        inner = folders[0]
        folders, loose = _entries(inner)
    has_images = any(images.has_image_extension(path) for path in loose)
    return inner if inner != source and len(folders) > 1 and not has_images else None


def require_source(path: Path) -> Path:
    """Return the absolute path of a folder or a list; raises `AlexNetError` if it is neither."""
    if not os.path.isdir(path) and not os.path.isfile(path):
        problem = "is no folder or list" if os.path.exists(path) else "not found"
        raise AlexNetError(
            f"{path}: {problem}. Expected a folder with one folder per class, or a list of images"
        )
    return path.resolve()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # left behind by archives and desktops


def _entries(source: Path) -> tuple[list[Path], list[Path]]:
    """Return the visible folders in `source`, sorted by name, and all files beside them."""
    try:
        paths = sorted(source.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise AlexNetError(f"{source}: {error.strerror}") from error
    folders = [path for path in paths if os.path.isdir(path) and not _is_hidden(path.name)]
    return folders, [path for path in paths if not os.path.isdir(path)]


def find_candidates(source: Path, split: str = "") -> Manifest:
    """Return every file that may be an image, unread and without SHA-256, assigned to `split`.

    Raises `AlexNetError` if `source` contains no class folders, or is a list that can't be used.
    """
    if source.is_file():
        return image_list.read(source)
    folders, loose = _entries(source)
    if not folders:
        found = f"only {len(loose)} files such as {loose[0].name}" if loose else "it is empty"
        raise AlexNetError(
            f"{source}: contains no class folders, {found}. Expected one folder per class, "
            f"for example {source.name}/cat and {source.name}/dog"
        )
    candidates: list[ImageFile] = []
    rejected: list[Rejected] = []
    n_ignored = 0
    for path in loose:
        if not images.looks_like_image(path):
            n_ignored += 1
        else:
            reason = "is not in a class folder" if os.path.exists(path) else "is a broken link"
            rejected.append(Rejected(path, reason))
    for folder in folders:
        for item in walk(folder):
            if isinstance(item, Rejected):
                rejected.append(item)
            elif item.name.startswith("."):
                n_ignored += 1
            else:
                candidates.append(ImageFile(item, folder.name, split))
    return Manifest(
        root=source,
        source=source,
        classes=tuple(folder.name for folder in folders),
        files=tuple(candidates),
        rejected=tuple(rejected),
        n_ignored=n_ignored,
    )


def walk(folder: Path) -> Iterator[Path | Rejected]:
    """Yield all files below `folder`; links are followed, but each folder is entered only once.

    A folder that can't be read is yielded as `Rejected`; hidden folders are skipped.
    """
    # A link to a parent folder would add the images of all other classes to this one.
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
            elif not _is_hidden(name):
                stack.append(folder / name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def check_candidates(found: Manifest, options: ScanOptions) -> Manifest:
    """Hash and decode the files of `find_candidates`; return the images by class and path.

    Near copies of an image have its SHA-256 as `copy_of`.
    Files that are no images move to `rejected` or, unless listed, are counted in `n_ignored`. Without
    `options.check` nothing is read, and the file extensions decide.
    """
    if not options.check:
        return _select_by_extension(found)
    good: list[ImageFile] = []
    bad: list[Rejected] = []
    n_ignored = found.n_ignored
    checks = check_files(
        [file.path for file in found.files], _check_file, options.cache, options.processes
    )
    for done, (file, check) in enumerate(zip(found.files, checks), start=1):
        if check.sha256:
            good.append(replace(file, sha256=check.sha256, fingerprint=check.fingerprint))
        elif check.reason or found.image_list:
            bad.append(Rejected(file.path, check.reason or "is not an image"))
        else:
            n_ignored += 1
        if options.progress:
            options.progress(done, len(found.files))
    return _sorted(found, near_copies.mark_copies(good), bad, n_ignored)


def _select_by_extension(found: Manifest) -> Manifest:
    good = [file for file in found.files if images.has_image_extension(file.path)]
    return _sorted(found, good, [], found.n_ignored + len(found.files) - len(good))


def _sorted(
    found: Manifest, good: Sequence[ImageFile], bad: list[Rejected], n_ignored: int
) -> Manifest:
    return replace(
        found,
        files=tuple(sorted(good, key=lambda file: (file.label, file.path.as_posix()))),
        rejected=tuple(sorted([*found.rejected, *bad], key=lambda item: item.path.as_posix())),
        n_ignored=n_ignored,
    )


def _check_file(path: Path) -> FileCheck:
    """Hash and decode one file, and take its fingerprint."""
    try:
        status = path.stat()
        size, modified = status.st_size, status.st_mtime_ns
        content = images.read(path)
        fingerprint = near_copies.fingerprint(
            images.open_rgb(BytesIO(content), near_copies.SAMPLES)
        )
    except ImageError as error:
        if error.reason == images.NO_HEIF_DECODER:  # installing it changes the result, not the file
            return FileCheck(reason=error.reason)
        reason = error.reason if images.looks_like_image(path) else None
        return FileCheck(reason=reason, size=size, modified=modified)
    except OSError as error:
        return FileCheck(reason=error.strerror or str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    return FileCheck(sha256=sha256, size=size, modified=modified, fingerprint=fingerprint)


def require_images(
    source: Path,
    classes: Iterable[str],
    files: Iterable[ImageFile],
    rejected: Sequence[Rejected],
    split: str = "",
) -> None:
    """Raise `AlexNetError` if one of `classes` has none of `files`, those of `split`.

    For class folders it names the first of the `rejected` files of the class, with the reason.
    """
    labels = {file.label for file in files}
    for label in classes:
        if label not in labels:
            if source.is_file():
                of_split = f" of the split {split}" if split else ""
                raise AlexNetError(
                    f"{source}: class {label!r} contains no readable image{of_split}. Correct its "
                    "rows, or remove them"
                )
            empty = source / label
            bad = next(
                (item for item in rejected if empty in (item.path, *item.path.parents)), None
            )
            why = f" ({bad.path.name}: {bad.reason})" if bad else ""
            raise AlexNetError(
                f"{empty}: contains no readable image{why}. Add some, or remove the folder"
            )


def is_split(path: Path) -> bool:
    """Return whether `path` is a folder that alexnet or another tool has split, or a list with splits."""
    if path.is_file():
        return image_list.has_splits(path)
    return is_alexnet_split(path) or find_split_folders(path) is not None


def find_split_folders(path: Path) -> dict[str, Path] | None:
    """Return the folders of a split by another tool, by split, such as {"val": Path("validation")}.

    None unless there are at least train and val, each with class folders. Raises `AlexNetError` for
    train and test without val, which would otherwise be used as classes.
    """
    folders = _entries(path)[0] if os.path.isdir(path) else []
    by_name = {folder.name.lower(): folder for folder in folders}
    found = {}
    for split, names in SPLIT_NAMES.items():
        of_split = [by_name[name] for name in names if name in by_name]
        if of_split and _entries(of_split[0])[0]:
            found[split] = of_split[0]
    if "train" in found and "val" not in found and by_name.keys() & SPLIT_NAMES["test"]:
        raise AlexNetError(
            f"{path}: contains train and test but no val. Split the training images with: "
            f"alexnet split {found['train']}"
        )
    return found if {"train", "val"} <= found.keys() else None
