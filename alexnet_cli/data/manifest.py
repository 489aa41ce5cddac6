"""The manifest of a divided data set: every image, its class, split and content.

On disk it is JSON lines: one line of settings, then one for each file.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from alexnet_cli.errors import AlexNetError
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import atomic_write, open_file

SPLITS = ("train", "val", "test")
MANIFEST = "manifest.jsonl"

Progress = Callable[[int, int], None]  # (done, total)

_MARKER, _VERSION = "alexnet_split", 1
_LONGEST_HEADER, _LONGEST_LINE = 64 << 20, 1 << 16  # bytes; the header lists what was left out
_LARGEST_RECORD = 1 << 26


@dataclass(frozen=True, slots=True)
class Record:
    """Where in a shard the bytes of an image lie, and their checksum."""

    shard: Path
    offset: int
    length: int
    crc32: int


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image: where it lies now, its class, its split and its content.

    What is not known yet is "": the split before `plan`, the SHA-256 of a file that nobody read. An
    image in a shard has a `record`; its `path` then is only its name.
    """

    path: Path
    label: str = ""
    split: str = ""
    sha256: str = ""
    record: Record | None = None

    @property
    def holder(self) -> Path:
        """The file that holds its bytes."""
        return self.record.shard if self.record else self.path


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that should have been an image, and why it is none."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A divided data set: every file lies below `root` and came from `source`, both absolute.

    `val` and `test` are fractions of the files; `seed` is None if another tool made the split.
    """

    root: Path
    source: Path
    seed: int | None
    val: float
    test: float
    classes: tuple[str, ...]
    files: tuple[ImageFile, ...]
    rejected: tuple[Rejected, ...]
    n_ignored: int

    def of(self, split: str) -> tuple[ImageFile, ...]:
        """The files of one split, by class and path."""
        return tuple(file for file in self.files if file.split == split)

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of files per class and split, zeros included."""
        table = {label: dict.fromkeys(SPLITS, 0) for label in self.classes}
        for file in self.files:
            table[file.label][file.split] += 1
        return table

    def duplicates(self) -> tuple[tuple[ImageFile, ...], ...]:
        """The groups of two or more files with equal content, within and across classes."""
        groups: dict[str, list[ImageFile]] = {}
        for file in self.files:
            if file.sha256:
                groups.setdefault(file.sha256, []).append(file)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `manifest` as JSON lines, atomically; files are named relative to its root.

    Raises `OSError` if `path` can't be written, and leaves it as it was.
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
    copied = manifest.root != manifest.source
    with atomic_write(path) as stream:
        stream.write(_line(header))
        for file in manifest.files:
            below = file.path.relative_to(manifest.root)
            entry = {
                "path": below.as_posix(),
                "class": file.label,
                "split": file.split,
                "sha256": file.sha256,
                "original": PurePath(*below.parts[copied:]).as_posix(),
            }
            if file.record:
                shard = file.record.shard.relative_to(manifest.root).as_posix()
                entry |= {**asdict(file.record), "shard": shard}
            stream.write(_line(entry))


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode("ascii") + b"\n"


def read_manifest(path: Path, root: Path | None = None) -> Manifest:
    """Read and check a manifest whose files lie below `root`, by default the root it names.

    Does not look at the files. Raises `AlexNetError` naming file and line.
    """
    files: dict[Path, ImageFile] = {}
    manifest = None
    try:
        with open_file(path, sys.maxsize, links=True) as lines:
            header = _entry(lines.readline(_LONGEST_HEADER))
            manifest = _parse_header(header, root)
            known = frozenset(manifest.classes)
            while line := lines.readline(_LONGEST_LINE):
                file = _parse_file(_entry(line), manifest.root, known)
                if file.path in files:
                    raise ValueError(f"{file.path} is listed twice")
                files[file.path] = file
        if len(files) != header["n_files"]:
            raise ValueError(f"is missing or too much, of {header['n_files']} files")
    except OSError as error:
        raise AlexNetError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        line_number = len(files) + 2 if manifest else 1
        raise AlexNetError(f"{path}:{line_number}: {error}; make the split again") from error
    return replace(manifest, files=tuple(files.values()))


def files_of(path: Path) -> bytes:
    """Return what a manifest says of its files, but not where they lie: the same for a moved split."""
    return path.read_bytes().partition(b"\n")[2]


def is_alexnet_split(folder: Path) -> bool:
    """Whether `folder` holds a manifest of ours, sound or not."""
    try:
        with open_file(folder / MANIFEST, sys.maxsize, links=True) as lines:
            return _MARKER in _entry(lines.readline(_LONGEST_HEADER))
    except (OSError, ValueError):
        return False


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = strict_json.loads(line, _LONGEST_HEADER)
    except ValueError as error:
        raise ValueError(f"is not JSON as we write it: {error}") from None
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object")
    return entry


def _get(entry: dict[str, Any], name: str, *kinds: type) -> Any:
    value = entry.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{name!r} can't be {value!r:.60}")
    if isinstance(value, str):
        _require_name(value)
    return value


def _require_name(text: str) -> None:
    """Raise `ValueError` for what no file can be called."""
    if "\0" in text:
        raise ValueError(f"{text!r:.60} holds a null character")
    text.encode("utf-8", "surrogateescape")  # raises ValueError


def _parse_header(header: dict[str, Any], root: Path | None) -> Manifest:
    if header.get(_MARKER) != _VERSION:
        raise ValueError(f"{_MARKER!r} must be {_VERSION}, is {header.get(_MARKER)!r}")
    _get(header, "n_files", int)
    classes = _get(header, "classes", list)
    if not all(isinstance(label, str) for label in classes) or len(set(classes)) < len(classes):
        raise ValueError(f"'classes' must be different names, is {classes!r:.60}")
    rejected = _get(header, "rejected", dict)
    for name in (*classes, *rejected):
        _require_name(name)
    source = Path(_get(header, "source", str))
    return Manifest(
        root=root or Path(_get(header, "root", str)),
        source=source,
        seed=_get(header, "seed", int, type(None)),
        val=_get(header, "val", float, int),
        test=_get(header, "test", float, int),
        classes=tuple(classes),
        files=(),
        rejected=tuple(Rejected(source / name, str(reason)) for name, reason in rejected.items()),
        n_ignored=_get(header, "n_ignored", int),
    )


def _parse_file(entry: dict[str, Any], root: Path, classes: frozenset[str]) -> ImageFile:
    below = PurePath(_get(entry, "path", str))
    label, split, sha256 = (_get(entry, name, str) for name in ("class", "split", "sha256"))
    if below.anchor or ".." in below.parts or not below.parts:
        raise ValueError(f"'path' {str(below)!r} leaves the folder")
    if label not in classes:
        raise ValueError(f"'class' {label!r} is none of the header's")
    if split not in SPLITS:
        raise ValueError(f"'split' {split!r} is none of {', '.join(SPLITS)}")
    if not re.fullmatch("([0-9a-f]{64})?", sha256):
        raise ValueError(f"'sha256' {sha256!r} is no SHA-256")
    record = _parse_record(entry, root) if "shard" in entry else None
    return ImageFile(root / below, label, split, sha256, record)


def _parse_record(entry: dict[str, Any], root: Path) -> Record:
    shard = PurePath(_get(entry, "shard", str))
    if len(shard.parts) != 1 or shard.name in ("", ".."):
        raise ValueError(f"'shard' {str(shard)!r} is no file beside the manifest")
    place = [_get(entry, name, int) for name in ("offset", "length", "crc32")]
    if min(place) < 0 or place[0] >= 2**63 or place[1] > _LARGEST_RECORD:
        raise ValueError(f"'offset', 'length' and 'crc32' can't be {place}")
    return Record(root / shard, *place)
