"""Divide a folder of images into train, val and test: plan, write, open.

A plan depends on nothing but the images' contents, their classes and the seed: names, dates and
directory order don't matter. Files of equal content always share a split. Where the files were not
read, their names take the place of their contents.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePath

from alexnet_cli.data import scan_cache
from alexnet_cli.data.manifest import (
    MANIFEST,
    SPLITS,
    ImageFile,
    Manifest,
    Progress,
    is_alexnet_split,
    read_manifest,
    write_manifest,
)
from alexnet_cli.data.scanning import (
    DEFAULT_SCAN,
    Scan,
    ScanOptions,
    find,
    foreign_splits,
    read,
    require_folder,
    require_images,
    scan,
)
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.system.atomic_files import lock_folder
from alexnet_cli.system.workers import map_with_progress

LINKS = ("copy", "hard", "symbolic")


# Planning


def plan(scan: Scan, *, val: float = 0.1, test: float = 0.0, seed: int = 0) -> Manifest:
    """Choose a split for every image at random within its class, files left where they are.

    `val` and `test` are fractions of each class, rounded by largest remainder. A class of two or
    more contents has train and val images, of three or more also test images if `test` > 0; a
    single content goes to train. Files of equal content share a split, across classes too. Raises
    `UsageError` for fractions out of range, `AlexNetError` if shared contents leave no such split.
    """
    if not 0 < val < 1:
        raise UsageError(f"--val {val}: must lie above 0 and below 1")
    if not 0 <= test < 1:
        raise UsageError(f"--test {test}: must be at least 0 and below 1")
    # By way of str, so that 0.1 is a tenth: binary rounding must not decide between remainders.
    val_share, test_share = Fraction(str(val)), Fraction(str(test))
    shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
    if shares["train"] <= 0:
        raise UsageError(f"--val {val} --test {test}: leave nothing to train on")
    if not test:
        del shares["test"]
    chosen = _assign(scan, shares, seed)
    files = tuple(replace(file, split=chosen[_content(file, scan)]) for file in scan.images)
    return _manifest(scan, files, seed, val, test)


def _manifest(
    scan: Scan, files: tuple[ImageFile, ...], seed: int | None, val: float, test: float
) -> Manifest:
    """Of files that stay where they are."""
    return Manifest(
        root=scan.source,
        source=scan.source,
        seed=seed,
        val=val,
        test=test,
        classes=scan.classes,
        files=files,
        rejected=scan.rejected,
        n_ignored=scan.n_ignored,
    )


def _content(file: ImageFile, scan: Scan) -> str:
    # `relative_to` would take half a minute for a million files.
    return file.sha256 or str(file.path)[len(str(scan.source)) :]


def _assign(scan: Scan, shares: dict[str, Fraction], seed: int) -> dict[str, str]:
    """Content → split. Each content goes where its scarcest class has the most room left.

    With contents that occur once, this fills every quota exactly. The order is that of a keyed
    hash, as good as shuffled: which position gets which split is fixed, who stands there is chance.
    """
    groups: dict[str, dict[str, int]] = {}  # content → class → number of files
    once = {label: {label: 1} for label in scan.classes}  # shared: nearly all contents are such
    for file in scan.images:
        content, label = _content(file, scan), file.label
        if members := groups.get(content):
            groups[content] = {**members, label: members.get(label, 0) + 1}
        else:
            groups[content] = once[label]
    n_files: dict[str, int] = {}
    unplaced: dict[str, int] = {}  # class → number of contents
    for members in groups.values():
        for label, n in members.items():
            n_files[label] = n_files.get(label, 0) + n
            unplaced[label] = unplaced.get(label, 0) + 1
    splits = tuple(shares)
    lacking = {label: set(splits[:n]) for label, n in unplaced.items()}
    room = {label: _quotas(n, shares, lacking[label]) for label, n in n_files.items()}

    def hardest_first(content: str) -> tuple[bool, int, bytes]:
        members = groups[content]
        shuffled = hashlib.sha256(f"{seed}:{content}".encode("utf-8", "surrogateescape")).digest()
        return len(members) == 1, -sum(members.values()), shuffled

    chosen: dict[str, str] = {}
    for content in sorted(groups, key=hardest_first):
        members = groups[content]
        choices = splits
        for label in members:
            if len(lacking[label]) >= unplaced[label]:  # the last chances to fill what is empty
                choices = tuple(s for s in choices if s in lacking[label]) or choices
        left = {s: min(room[label][s] - n for label, n in members.items()) for s in choices}
        split = max(left, key=left.__getitem__)  # the first of equals: train, then val, then test
        for label, n in members.items():
            room[label][split] -= n
            unplaced[label] -= 1
            lacking[label].discard(split)
        chosen[content] = split
    for label, missing in lacking.items():
        if missing:  # possible only where classes share their contents
            raise AlexNetError(
                f"class {label!r}: shares so many images with other classes that it has none for "
                f"{' or '.join(sorted(missing))}; remove the copies"
            )
    return chosen


def _quotas(n: int, shares: dict[str, Fraction], needed: set[str]) -> dict[str, int]:
    """`n` divided by largest remainder (ties: train, val, test), none of `needed` left empty."""
    quota = {split: int(n * share) for split, share in shares.items()}
    by_remainder = sorted(shares, key=lambda split: quota[split] - n * shares[split])
    for split in by_remainder[: n - sum(quota.values())]:
        quota[split] += 1
    for split in shares:
        if split in needed and not quota[split]:
            donor = max(shares, key=lambda other: quota[other] - (other in needed))
            quota[donor] -= 1
            quota[split] += 1
    return quota


# Writing


def write(
    planned: Manifest,
    out: Path,
    *,
    link: str = "copy",
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Make `out`/SPLIT/CLASS/… and its manifest from a plan, completely or not at all.

    `link` is one of `LINKS`. With `force` an earlier split of ours at `out` is replaced, and
    survives any failure. Returns the manifest of the new files. Raises `AlexNetError` if `out`
    holds something else, overlaps the source, or can't be written.
    """
    if link not in LINKS:
        raise UsageError(f"--link {link}: must be one of {', '.join(LINKS)}")
    out = out.resolve()
    check_target(out, planned.source, force)
    below = [PurePath(file.split) / file.path.relative_to(planned.root) for file in planned.files]
    pairs = list(zip(planned.files, below, strict=True))
    files = tuple(replace(file, path=out / path) for file, path in pairs)
    written = replace(planned, root=out, files=files)
    try:
        with _workshop(out) as partial:
            # Other tools take the classes from the folders: every split shows them all.
            splits = {file.split for file in files}
            every_class = {PurePath(split, label) for split in splits for label in planned.classes}
            for folder in every_class.union(path.parent for path in below):
                (partial / folder).mkdir(parents=True, exist_ok=True)
            map_with_progress(
                pairs, lambda pair: _place(pair[0].path, partial / pair[1], link), progress
            )
            write_manifest(written, partial / MANIFEST)
            check_target(out, planned.source, force)  # copying takes long: has anyone been here?
            swap(partial, out)
            scan_cache.forget(out)
    except OSError as error:
        raise AlexNetError(failure(error, out)) from error
    return written


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """Hold an empty folder beside `out`, gone in the end; one that a killed process left is reused."""
    partial = out.with_name(f".{out.name}.alexnet-partial")
    partial.mkdir(parents=True, exist_ok=True)
    with lock_folder(partial, f"another alexnet is writing {out.name}"):
        try:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def check_target(out: Path, source: Path, force: bool) -> None:
    """Raise unless `out` is free, or (with `force`) an earlier split with nothing added."""
    wrong, place, source = None, out.resolve(), source.resolve()
    if place == source or source in place.parents:
        wrong = f"lies in the source, {source}"
    elif place in source.parents:
        wrong = f"holds the source, {source}"
    elif out.exists() and not out.is_dir():
        wrong = "is a file"
    elif out.exists() and any(out.iterdir()):
        if not is_alexnet_split(out):
            wrong = "is not empty, and no split of ours"
        elif not force:
            wrong = "holds a split already: --force would replace it"
        elif added := _added(out):
            wrong = f"--force would delete {added}, which is not part of the split"
    if wrong:
        raise AlexNetError(f"{out}: {wrong}; choose another --out")


def _added(out: Path) -> Path | None:
    try:
        files = read_manifest(out / MANIFEST, out).files
    except AlexNetError as error:
        what = f"{error}; or delete {out} yourself, as what is part of it can't be told"
        raise AlexNetError(what) from None
    listed = {file.holder for file in files} | {out / MANIFEST}
    for folder, folders, names in os.walk(out):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for path in sorted(Path(folder, name) for name in names + links):
            if path not in listed:
                return path
    return None


def _place(file: Path, target: Path, link: str) -> None:
    origin = file.resolve(strict=True)  # never a link to a link: it breaks when the first moves
    if link == "copy":
        try:
            target.touch(exist_ok=False)
        except FileExistsError:  # on a file system to which `a.JPG` is `a.jpg`
            what = "differs from another in case only"
            raise FileExistsError(errno.EEXIST, what, str(file)) from None
        shutil.copyfile(origin, target)
    elif link == "hard":
        os.link(origin, target)
    else:
        target.symlink_to(origin)


def swap(new: Path, out: Path) -> None:
    """Let `new` take the place of `out`, if there is one, which survives a failure.

    Raises `AlexNetError` while a training reads what is there.
    """
    old = out.with_name(f".{out.name}.alexnet-old")
    if not out.exists():
        new.rename(out)
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed here
        return
    with lock_folder(out, "a training is reading it; let that end first"):
        shutil.rmtree(old, ignore_errors=True)
        try:
            out.rename(old)
            new.rename(out)
        finally:
            if out.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(out)


def failure(error: OSError, out: Path) -> str:
    """Say what kept a split from being written."""
    if error.errno == errno.EXDEV:
        return f"{error.filename}: hard links can't leave their file system; use --link symbolic"
    return f"{error.filename or out}: {error.strerror or error}; {out} is as it was"


# Opening


def open_data(path: Path, *, seed: int = 0, reading: ScanOptions = DEFAULT_SCAN) -> Manifest:
    """What to train on: a split of ours, a split by another tool, or a folder of class folders.

    The last is divided by `plan` with its default fractions and `seed`; nothing is ever moved.
    Raises `AlexNetError` if it is none of them, if files are missing, or if classes differ.
    """
    if not os.path.exists(path):
        raise AlexNetError(f"{path}: no such folder; `alexnet split FOLDER` makes one")
    path = require_folder(path)
    if os.path.exists(path / MANIFEST):
        return read_manifest(path / MANIFEST, path)
    if folders := foreign_splits(path):
        return _open_foreign(path, folders, reading)
    return plan(scan(path, reading), seed=seed)


def _open_foreign(path: Path, folders: dict[str, Path], reading: ScanOptions) -> Manifest:
    parts = {split: find(folder, split) for split, folder in folders.items()}
    classes = parts["train"].classes
    for split, part in parts.items():
        for label in sorted(set(part.classes) ^ set(classes)):
            has, lacks = ("train", split) if label in classes else (split, "train")
            lost = folders[lacks] / label
            raise AlexNetError(f"{lost}: missing, although {folders[has].name} has this class")
    found = Scan(
        source=path,
        classes=classes,
        images=tuple(file for part in parts.values() for file in part.images),
        rejected=tuple(item for part in parts.values() for item in part.rejected),
        n_ignored=sum(part.n_ignored for part in parts.values()),
    )
    files = (checked := read(found, reading)).images
    require_images(folders["train"], classes, (file for file in files if file.split == "train"))
    n = {split: sum(file.split == split for file in files) for split in SPLITS}
    if not n["val"]:
        raise AlexNetError(f"{folders['val']}: holds no readable image")
    return _manifest(checked, files, None, n["val"] / len(files), n["test"] / len(files))
