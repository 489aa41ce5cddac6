"""The manifest of a data set: its images with class, split and SHA-256, and the skipped files.

The file is JSON lines: a header with the settings of the split, then one line per image.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from alexnet_cli.data.shard_records import Record
from alexnet_cli.errors import AlexNetError
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import atomic_write, open_file

SPLITS = ("train", "val", "test")
# What other tools call them.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
MANIFEST = "manifest.jsonl"

_MARKER, _VERSION = "alexnet_split", 1
_LONGEST_HEADER, _LONGEST_LINE = 64 << 20, 1 << 16  # bytes; the header lists the skipped files
_LARGEST_RECORD = 1 << 26


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file with its class, split and SHA-256.

    `split` is "" before the split is planned, `sha256` is "" if the file has not been read. An
    image in a shard has a `record`, and its `path` is then only a name. Images of one `group` get
    the same split; "" is no group. `origin` is where an image of a split came from, relative to its
    source, "" if its path there is CLASS/… as it is here. `fingerprint` tells near copies
    (`data/near_copies`), and `copy_of` is the SHA-256 of the image that this one is a near copy of,
    "" for none.
    """

    path: Path
    label: str = ""
    split: str = ""
    sha256: str = ""
    record: Record | None = None
    group: str = ""
    fingerprint: str = ""
    copy_of: str = ""
    origin: str = ""

    @property
    def stored_in(self) -> Path:
        """The file on disk that contains the image: its shard, or `path`."""
        return self.record.shard if self.record else self.path


@dataclass(frozen=True, slots=True)
class Rejected:
    """A skipped file, which should be an image but can't be used as one, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The images of a data set.

    All of `files` are below `root`; `source` is the folder that was scanned, with the `rejected`
    files and `n_ignored` others that do not look like images. Both paths are absolute. `val` and
    `test` are fractions of the files; `seed` is None if alexnet did not choose the split. `group` is
    the rule by which it grouped the files, "" for none. `image_list` is the list that named the
    images, None for folders; `source` is then the folder that all of them share.
    """

    root: Path
    source: Path
    classes: tuple[str, ...]
    files: tuple[ImageFile, ...]
    rejected: tuple[Rejected, ...]
    n_ignored: int
    seed: int | None = None
    val: float = 0.0
    test: float = 0.0
    group: str = ""
    image_list: Path | None = None

    @property
    def in_place(self) -> bool:
        """Whether the images are where they were found, rather than in a split that was written."""
        return self.root == self.source

    @property
    def data(self) -> Path:
        """The folder or list that `open_data` opens as these images."""
        return self.image_list if self.image_list and self.in_place else self.root

    def of(self, split: str) -> tuple[ImageFile, ...]:
        """Return the files of one split, sorted by class and path."""
        return tuple(file for file in self.files if file.split == split)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of files by class and split, zeros included."""
        table = {label: dict.fromkeys(SPLITS, 0) for label in self.classes}
        for file in self.files:
            table[file.label][file.split] += 1
        return table

    def duplicates(self) -> tuple[tuple[ImageFile, ...], ...]:
        """Return the groups of two or more files with equal content, within and across classes."""
        groups: dict[str, list[ImageFile]] = {}
        for file in self.files:
            if file.sha256:
                groups.setdefault(file.sha256, []).append(file)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    def near_copies(self) -> tuple[tuple[ImageFile, ...], ...]:
        """Return the groups of files that are copies of one picture, saved in two or more ways."""
        originals = {file.copy_of for file in self.files} - {""}
        groups: dict[str, list[ImageFile]] = {}
        for file in self.files:
            if (original := file.copy_of or file.sha256) in originals:
                groups.setdefault(original, []).append(file)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `manifest` to `path` atomically; the paths of images are relative to its root.

    Raises `OSError` if `path` can't be written, and leaves an earlier file unchanged.
    """
    header = {
        _MARKER: _VERSION,
        "root": str(manifest.root),
        "source": str(manifest.source),
        "seed": manifest.seed,
        "val": manifest.val,
        "test": manifest.test,
        "classes": manifest.classes,
        "n_files": len(manifest.files),
        "n_ignored": manifest.n_ignored,
        "rejected": {
            item.path.relative_to(manifest.source).as_posix(): item.reason
            for item in manifest.rejected
        },
    }
    if manifest.group:
        header["group"] = manifest.group
    if manifest.image_list:
        header["list"] = str(manifest.image_list)
    with atomic_write(path) as stream:
        stream.write(_line(header))
        for file in manifest.files:
            entry = {
                "path": file.path.relative_to(manifest.root).as_posix(),
                "class": file.label,
                "split": file.split,
                "sha256": file.sha256,
            }
            for name in ("group", "fingerprint", "copy_of", "origin"):
                if value := getattr(file, name):
                    entry[name] = value
            if file.record:
                shard = file.record.shard.relative_to(manifest.root).as_posix()
                entry |= {**asdict(file.record), "shard": shard}
            stream.write(_line(entry))


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode("ascii") + b"\n"


def read_manifest(path: Path, root: Path | None = None) -> Manifest:
    """Read and validate a manifest whose images are below `root`, by default the root it contains.

    Does not check that the images exist. Raises `AlexNetError` with file and line number.
    """
    files: dict[Path, ImageFile] = {}
    manifest = None
    try:
        with open_file(path, sys.maxsize, links=True) as lines:
            header = _entry(lines.readline(_LONGEST_HEADER))
            manifest = _parse_header(header)
            manifest = _moved(manifest, root) if root else manifest
            known = frozenset(manifest.classes)
            while line := lines.readline(_LONGEST_LINE):
                file = _parse_file(_entry(line), manifest.root, known)
                if file.path in files:
                    raise ValueError(f"{str(file.path)[-200:]} is listed twice")
                files[file.path] = file
        if len(files) != header["n_files"]:
            raise ValueError(f"expected {header['n_files']!r:.60} files, found {len(files)}")
    except OSError as error:
        raise AlexNetError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        line_number = len(files) + 2 if manifest else 1
        raise AlexNetError(f"{path}:{line_number}: {error}. Create the split again") from error
    return replace(manifest, files=tuple(files.values()))


def _moved(manifest: Manifest, root: Path) -> Manifest:
    """Return a manifest without files yet at another root; a folder split in place is its source."""
    if not manifest.in_place:
        return replace(manifest, root=root)
    rejected = tuple(
        Rejected(root / item.path.relative_to(manifest.root), item.reason)
        for item in manifest.rejected
    )
    return replace(manifest, root=root, source=root, rejected=rejected)


def file_lines(path: Path) -> bytes:
    """Return the lines of a manifest after its header, which are the same for a moved split.

    Without the splits, which are in the paths as well, and which a cross-validation plans anew.
    """
    return re.sub(rb'"split": "\w*", ', b"", path.read_bytes().partition(b"\n")[2])


def is_alexnet_split(folder: Path) -> bool:
    """Return whether `folder` contains a manifest of alexnet, valid or not."""
    try:
        with open_file(folder / MANIFEST, sys.maxsize, links=True) as lines:
            return _MARKER in _entry(lines.readline(_LONGEST_HEADER))
    except (OSError, ValueError):
        return False


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = strict_json.loads(line, _LONGEST_HEADER, most_names=sys.maxsize)
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object")
    return entry


def _get_field(entry: dict[str, Any], name: str, *kinds: type) -> Any:
    value = entry.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{name!r} can't be {value!r:.60}")
    if isinstance(value, str):
        require_name(value)
    return value


def _get_optional(entry: dict[str, Any], name: str) -> str:
    """Return a text that is left out where it is empty."""
    return _get_field(entry, name, str) if name in entry else ""


def require_name(text: str) -> None:
    """Raise `ValueError` if `text` can't be a file name."""
    if "\0" in text:
        raise ValueError(f"{text!r:.60} contains a null character")
    text.encode("utf-8", "surrogateescape")  # raises ValueError


def _parse_header(header: dict[str, Any]) -> Manifest:
    if header.get(_MARKER) != _VERSION:
        raise ValueError(f"{_MARKER!r} must be {_VERSION}, is {header.get(_MARKER)!r:.60}")
    _get_field(header, "n_files", int)
    classes = _get_field(header, "classes", list)
    if not all(isinstance(label, str) for label in classes) or len(set(classes)) < len(classes):
        raise ValueError(f"'classes' must be distinct names, is {classes!r:.60}")
    rejected = _get_field(header, "rejected", dict)
    for name in (*classes, *rejected):
        require_name(name)
    source = Path(_get_field(header, "source", str))
    image_list = _get_optional(header, "list")
    return Manifest(
        root=Path(_get_field(header, "root", str)),
        source=source,
        seed=_get_field(header, "seed", int, type(None)),
        val=_get_field(header, "val", float, int),
        test=_get_field(header, "test", float, int),
        classes=tuple(classes),
        files=(),
        rejected=tuple(Rejected(source / name, str(reason)) for name, reason in rejected.items()),
        n_ignored=_get_field(header, "n_ignored", int),
        group=_get_optional(header, "group"),
        image_list=Path(image_list) if image_list else None,
    )


def _parse_file(entry: dict[str, Any], root: Path, classes: frozenset[str]) -> ImageFile:
    below = PurePath(_get_field(entry, "path", str))
    label, split, sha256 = (_get_field(entry, name, str) for name in ("class", "split", "sha256"))
    if below.anchor or ".." in below.parts or not below.parts:
        raise ValueError(f"'path' {str(below)!r:.60} is outside the folder")
    if label not in classes:
        raise ValueError(f"'class' {label!r:.60} is not in the header")
    if split not in SPLITS:
        raise ValueError(f"'split' {split!r:.60} is not one of {', '.join(SPLITS)}")
    group, fingerprint, copy_of, origin = (
        _get_optional(entry, name) for name in ("group", "fingerprint", "copy_of", "origin")
    )
    for name, value in (("sha256", sha256), ("copy_of", copy_of)):
        if not re.fullmatch("([0-9a-f]{64})?", value):
            raise ValueError(f"{name!r} {value!r:.80} is not a SHA-256")
    if not re.fullmatch("([A-Za-z0-9+/]{256})?", fingerprint):
        raise ValueError(f"'fingerprint' {fingerprint!r:.80} is not one")
    record = _parse_record(entry, root) if "shard" in entry else None
    group = sys.intern(group)  # one text for all files of a group
    return ImageFile(
        root / below, label, split, sha256, record, group, fingerprint, copy_of, origin
    )


def _parse_record(entry: dict[str, Any], root: Path) -> Record:
    shard = PurePath(_get_field(entry, "shard", str))
    if len(shard.parts) != 1 or shard.name in ("", ".."):
        raise ValueError(f"'shard' {str(shard)!r:.60} is not a file beside the manifest")
    place = [_get_field(entry, name, int) for name in ("offset", "length", "crc32")]
    if min(place) < 0 or place[0] >= 2**63 or place[1] > _LARGEST_RECORD:
        raise ValueError(f"'offset', 'length' and 'crc32' can't be {place!s:.60}")
    return Record(root / shard, *place)


def evenly_spaced(files: Sequence[ImageFile], count: int) -> list[ImageFile]:
    """Return `count` of `files` at equal distances, so that every class is among them."""
    count = min(count, len(files))
    step = (len(files) - 1) / max(count - 1, 1)
    return [files[round(number * step)] for number in range(count)]
