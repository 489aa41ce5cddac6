"""Write a planned split as folders SPLIT/CLASS, and open any data set: split or not, ours or not."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePath

from alexnet_cli.data import scan_cache
from alexnet_cli.data.manifest import (
    MANIFEST,
    SPLITS,
    ImageFile,
    Manifest,
    is_alexnet_split,
    read_manifest,
    write_manifest,
)
from alexnet_cli.data.scanning import (
    DEFAULT_SCAN,
    ScanOptions,
    check_candidates,
    find_candidates,
    find_split_folders,
    is_split,
    require_images,
    require_source,
    scan_classes,
)
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.errors import AlexNetError
from alexnet_cli.system.locks import lock_file, own_lock_file
from alexnet_cli.system.workers import Progress, map_with_progress

LINKS = ("copy", "hard", "symbolic")


# Writing


def write(
    planned: Manifest,
    out: Path,
    *,
    link: str = "copy",
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write the images to `out`/SPLIT/CLASS/… with a manifest, completely or not at all.

    `link` is one of `LINKS`. With `force` an earlier split at `out` is replaced; it is kept if
    writing fails. Returns the manifest of the new files. Raises `AlexNetError` if `out` contains
    anything else, overlaps the source, or can't be written.
    """
    out = out.resolve()
    check_sources(out, planned, force)
    placed = list(place_files(planned))
    pairs = [(file, PurePath(path)) for file, path, _ in placed]
    files = tuple(replace(file, path=out / path, origin=origin) for file, path, origin in placed)
    written = replace(planned, root=out, files=files)
    try:
        with _temporary_folder(out) as partial:
            # Other tools derive the classes from the folders, so every split has all of them.
            splits = {file.split for file in files}
            every_class = {PurePath(split, label) for split in splits for label in planned.classes}
            for folder in every_class.union(path.parent for _, path in pairs):
                (partial / folder).mkdir(parents=True, exist_ok=True)
            map_with_progress(
                pairs, lambda pair: _copy_or_link(pair[0].path, partial / pair[1], link), progress
            )
            write_manifest(written, partial / MANIFEST)
            check_sources(out, planned, force)  # it may have changed during copying
            replace_folder(partial, out)
            scan_cache.delete_cache(out)
    except OSError as error:
        raise AlexNetError(describe_write_error(error, out)) from error
    return written


def place_files(planned: Manifest) -> Iterator[tuple[ImageFile, str, str]]:
    """Yield each image with its path SPLIT/CLASS/… in a new split, and with its `origin` there.

    Below the class is the path that it had there; an image of a list has its file name, with a number
    if an earlier one has this name, whatever the case.
    """
    taken: set[str] = set()
    numbers = Counter[str]()
    for file in planned.files:
        found = file.path.relative_to(planned.root)
        if planned.data == planned.root:
            in_a_split = found.parts[0] != file.label
            yield file, "/".join([file.split, *found.parts[in_a_split:]]), file.origin
            continue
        name = f"{file.label}/{found.name}"
        wanted = path = f"{file.split}/{name}"
        while path.casefold() in taken:
            numbers[wanted] += 1
            name = f"{file.label}/{found.stem}-{numbers[wanted] + 1}{found.suffix}"
            path = f"{file.split}/{name}"
        taken.add(path.casefold())
        yield file, path, "" if name == found.as_posix() else found.as_posix()


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out` and delete it afterwards.

    One that a killed process left is emptied and reused.
    """
    partial = out.with_name(f".{out.name}.alexnet-partial")
    with lock_target(out):
        partial.mkdir(exist_ok=True)
        try:
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def lock_target(out: Path) -> Iterator[None]:
    """Let no other process write a split to `out` while the block runs; creates its parent folder.

    Raises `AlexNetError` if another process is writing one.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_name(f".{out.name}.alexnet-lock")
    with own_lock_file(
        path, f"{out}: another alexnet process is writing it; wait until it has ended"
    ):
        yield


@contextmanager
def lock_split(root: Path, complaint: str, *, shared: bool = False) -> Iterator[None]:
    """Lock the split at `root` while the block runs: shared to read it, exclusively to replace it.

    The lock is on its manifest, which exists in a read-only folder too. A folder without one is
    never replaced and needs no lock. Raises `AlexNetError` with `complaint` if another process
    holds a conflicting lock.
    """
    with ExitStack() as held:
        if (root / MANIFEST).exists():
            held.enter_context(lock_file(root / MANIFEST, f"{root}: {complaint}", shared=shared))
        yield


def check_sources(out: Path, planned: Manifest, force: bool) -> None:
    """Raise `AlexNetError` unless the images of `planned` can be written to `out`.

    A list names files anywhere, so `out` may be in the folder that they share, but hold none of them.
    """
    sources = {planned.image_list or planned.source}
    if planned.data == planned.root:
        sources.add(planned.root)
    else:
        folders = {os.path.dirname(file.path) for file in planned.files}
        sources.update(Path(folder) for folder in folders if f"{folder}/".startswith(f"{out}/"))
    for source in sources:
        check_target(out, source, force)


def check_target(out: Path, source: Path, force: bool) -> None:
    """Raise `AlexNetError` unless a split can be written to `out`.

    It can if `out` is missing or empty, or with `force` if it is a split without added files, and
    if neither of `out` and `source` contains the other.
    """
    problem, target, source = None, out.resolve(), source.resolve()
    if target == source or source in target.parents:
        problem = f"is inside the source folder {source}"
    elif target in source.parents:
        problem = f"contains the source {source}"
    elif out.exists() and not out.is_dir():
        problem = "is a file"
    elif out.exists() and any(out.iterdir()):
        if not is_alexnet_split(out):
            problem = "is not empty and not a split made by alexnet"
        elif not force:
            problem = "already contains a split, which --force would replace"
        elif added := _find_added_file(out):
            problem = f"--force would delete {added}, which is not part of the split"
    if problem:
        raise AlexNetError(f"{out}: {problem}. Choose another --out")


def _find_added_file(out: Path) -> Path | None:
    """Return a file below `out` that is not part of the split there, or None."""
    try:
        files = read_manifest(out / MANIFEST, out).files
    except AlexNetError as error:
        raise AlexNetError(
            f"{error}. --force can't tell which files belong to this split: delete {out} yourself"
        ) from None
    listed = {file.stored_in for file in files} | {out / MANIFEST}
    for folder, folders, names in os.walk(out):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for path in sorted(Path(folder, name) for name in names + links):
            if path not in listed:
                return path
    return None


def _copy_or_link(file: Path, target: Path, link: str) -> None:
    origin = file.resolve(strict=True)  # a link to a link would break if the first one moved
    if link == "copy":
        try:
            target.touch(exist_ok=False)
        except FileExistsError:  # on a file system that ignores case
            reason = "has the name of another file but for upper and lower case"
            raise FileExistsError(errno.EEXIST, reason, str(file)) from None
        shutil.copyfile(origin, target)
    elif link == "hard":
        os.link(origin, target)
    else:
        target.symlink_to(origin)


def replace_folder(new: Path, out: Path) -> None:
    """Rename folder `new` to `out`; an earlier `out` is deleted, or kept if renaming fails.

    Raises `AlexNetError` while a training run reads the earlier `out`.
    """
    old = out.with_name(f".{out.name}.alexnet-old")
    if not out.exists():
        new.rename(out)
        shutil.rmtree(old, ignore_errors=True)  # left by a process killed below
        return
    with lock_split(out, "a training run is reading it. Wait until it has ended"):
        shutil.rmtree(old, ignore_errors=True)
        try:
            out.rename(old)
            new.rename(out)
        finally:
            if out.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(out)


def describe_write_error(error: OSError, out: Path) -> str:
    """Return the message for an `error` while writing a split to `out`."""
    if error.errno == errno.EXDEV:
        return f"{error.filename}: is on another file system than {out}. Use --link symbolic"
    return f"{error.filename or out}: {error.strerror or error}. {out} was not changed"


# Opening


def open_data(path: Path, *, seed: int | None = 0, options: ScanOptions = DEFAULT_SCAN) -> Manifest:
    """Return the images of a split by alexnet or another tool, of class folders or of a list.

    Class folders, and a list without splits, are split by `plan_split` with its default fractions
    and `seed`, or not at all if it is None; no file is moved. `options` are for data without a
    manifest. Raises `AlexNetError` if `path` is none of these, if a class has no readable images,
    or if the splits of another tool have different classes.
    """
    if not os.path.exists(path):
        raise AlexNetError(f"{path}: not found. Create it with: alexnet split FOLDER")
    path = require_source(path)
    if os.path.exists(path / MANIFEST):
        return read_manifest(path / MANIFEST, path)
    if not is_split(path):
        scanned = scan_classes(path, options)
        return scanned if seed is None else plan_split(scanned, seed=seed)
    folders = (path.is_dir() and find_split_folders(path)) or {}
    found = _merge_splits(path, folders) if folders else find_candidates(path)
    checked = check_candidates(found, options)
    train = folders.get("train", path)
    require_images(train, found.classes, checked.of("train"), checked.rejected, "train")
    n = {split: len(checked.of(split)) for split in SPLITS}
    if not n["val"]:
        raise AlexNetError(
            f"{folders.get('val', path)}: contains no readable image of the split val"
        )
    return replace(checked, val=n["val"] / len(checked.files), test=n["test"] / len(checked.files))


def _merge_splits(path: Path, folders: dict[str, Path]) -> Manifest:
    """Return every file that may be an image in the `folders` of a split by another tool, unread."""
    parts = {split: find_candidates(folder, split) for split, folder in folders.items()}
    classes = parts["train"].classes
    for split, part in parts.items():
        for label in sorted(set(part.classes) ^ set(classes)):
            has, lacks = ("train", split) if label in classes else (split, "train")
            missing = folders[lacks] / label
            raise AlexNetError(
                f"{missing}: not found, but {folders[has].name} has this class. Every split needs a "
                "folder for each class"
            )
    return Manifest(
        root=path,
        source=path,
        classes=classes,
        files=tuple(file for part in parts.values() for file in part.files),
        rejected=tuple(item for part in parts.values() for item in part.rejected),
        n_ignored=sum(part.n_ignored for part in parts.values()),
    )
