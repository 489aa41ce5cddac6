"""A data set that trains fast from any disk: squares of 256 pixels as JPEG, in TFRecord shards.

Other programs can read a shard from its beginning: the records are `tf.train.Example`s with
`image/encoded`, `image/class/label`, `image/class/text` and `image/filename`. We go by the manifest,
which says where in its shard each JPEG lies: every epoch can visit all images in an order of its own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from alexnet_cli.data import images, scan_cache, splitting
from alexnet_cli.data.manifest import (
    MANIFEST,
    SPLITS,
    ImageFile,
    Manifest,
    Progress,
    Record,
    Rejected,
    write_manifest,
)
from alexnet_cli.data.scanning import require_images
from alexnet_cli.errors import AlexNetError, ImageError
from alexnet_cli.system.atomic_files import lock_folder, open_file, write_json
from alexnet_cli.system.workers import map_in_processes

SIZE = 256  # section 2
QUALITY = 90  # without chroma subsampling: three gray levels from the square it is made of
PER_SHARD = 1024  # about 30 MB; what an interruption costs


def read(record: Record) -> bytes:
    """Return the JPEG of a record; raises `ImageError` if it is not what was written."""
    with open_file(record.shard, sys.maxsize, links=True) as shard:
        shard.seek(record.offset)
        content = shard.read(record.length)
    if zlib.crc32(content) != record.crc32:
        raise ImageError(f"is damaged in {record.shard.name}; prepare the split again")
    return content


def write(
    planned: Manifest, out: Path, *, force: bool = False, progress: Progress | None = None
) -> Manifest:
    """Make `out` from a plan: shards of each split, in random order, and the manifest.

    What does not decode is left out, as the manifest's `rejected` says. After an interruption the
    same call goes on after the last whole shard. Returns the manifest of the new files; raises
    `AlexNetError` if `out` holds something else, overlaps the source, or can't be written.
    """
    out = out.resolve()
    _check_target(out, planned, force)
    if any(file.record for file in planned.files):
        raise AlexNetError(f"{planned.root}: is prepared already")
    partial = out.with_name(f".{out.name}.alexnet-preparing")
    try:
        with _begin(partial, _digest(planned)):
            written = _write_shards(planned, partial, out, progress)
            require_images(planned.source, planned.classes, written.of("train"))
            write_manifest(written, partial / MANIFEST)
            _check_target(out, planned, force)  # has anyone been here?
            for index in partial.glob("*.json"):
                index.unlink()
            splitting.swap(partial, out)
            scan_cache.forget(out)
    except OSError as error:
        raise AlexNetError(splitting.failure(error, out)) from error
    return written


def _check_target(out: Path, planned: Manifest, force: bool) -> None:
    for folder in (planned.source, planned.root):  # a split's images may be all there are by now
        splitting.check_target(out, folder, force)


def _digest(planned: Manifest) -> str:
    """Sum up what the shards will be of: the same plan may go on where it stopped."""
    digest = hashlib.sha256(f"{SIZE} {QUALITY} {PER_SHARD} {planned.seed}".encode())
    for file in planned.files:
        digest.update(
            f"{file.path}\0{file.split}\0{file.sha256}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


@contextmanager
def _begin(folder: Path, digest: str) -> Iterator[None]:
    """Hold `folder`, emptied unless an interrupted call of the same plan left it."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, "another alexnet is preparing there"):
        plan = folder / "plan.json"
        if not plan.exists() or json.loads(plan.read_bytes()) != digest:
            for path in folder.iterdir():
                path.unlink()
            write_json(plan, digest)
        yield


def _write_shards(
    planned: Manifest, folder: Path, out: Path, progress: Progress | None
) -> Manifest:
    shards = dict(_divide(planned))
    numbers = {label: number for number, label in enumerate(planned.classes)}
    waiting = [name for name in shards if not _index(folder / name).exists()]
    n_done = len(planned.files) - sum(len(shards[name]) for name in waiting)
    encoded = map_in_processes([file for name in waiting for file in shards[name]], _encode)

    def counted() -> Iterator[_Encoded | Rejected]:
        for number, item in enumerate(encoded, start=n_done + 1):
            if progress:
                progress(number, len(planned.files))
            yield item

    stream = counted()
    for name in waiting:
        items = zip(shards[name], islice(stream, len(shards[name])))
        with _system_errors(folder / name):
            index = _write_shard(folder / name, items, numbers)
        write_json(_index(folder / name), index)
    written: dict[Path, ImageFile] = {}
    rejected: list[Rejected] = []
    for name, part in shards.items():
        for file, entry in zip(part, json.loads(_index(folder / name).read_bytes()), strict=True):
            if isinstance(entry, str):
                rejected.append(Rejected(_original(file, planned), entry))
                continue
            sha256, *place = entry
            path = out / _name(file, planned)
            record = Record(out / name, *place)
            written[file.path] = replace(file, path=path, sha256=sha256, record=record)
    return replace(
        planned,
        root=out,
        files=tuple(written[file.path] for file in planned.files if file.path in written),
        rejected=(*planned.rejected, *rejected),
    )


def _divide(planned: Manifest) -> Iterator[tuple[str, list[ImageFile]]]:
    """Yield the name of each shard and its images, a split's in random order."""
    random = np.random.default_rng(planned.seed)
    for split in SPLITS:
        files = planned.of(split)
        order = random.permutation(len(files))
        parts = np.array_split(order, -(-len(files) // PER_SHARD)) if files else []
        for number, part in enumerate(parts):
            name = f"{split}-{number:05d}-of-{len(parts):05d}.tfrecord"
            yield name, [files[index] for index in part]


def _index(shard: Path) -> Path:
    """Name the file that says that a shard is whole, and where its images lie."""
    return shard.with_suffix(".json")


def _name(file: ImageFile, planned: Manifest) -> PurePath:
    """Name an image as a split that is not prepared would: SPLIT/CLASS/…"""
    parts = file.path.relative_to(planned.root).parts
    in_a_split = parts[0] != file.label
    return PurePath(file.split, *parts[in_a_split:])


def _original(file: ImageFile, planned: Manifest) -> Path:
    """Name a file of a split of ours as it was in its source; others lie there still."""
    if planned.root == planned.source:
        return file.path
    return planned.source.joinpath(*_name(file, planned).parts[1:])


_Encoded = tuple[str, bytes]  # SHA-256 of the file, JPEG of the square


def _encode(file: ImageFile) -> _Encoded | Rejected:
    try:
        content = images.read(file.path)
        square = images.load(BytesIO(content), SIZE)
    except ImageError as error:
        return Rejected(file.path, str(error))
    except OSError as error:
        return Rejected(file.path, error.strerror or str(error))
    jpeg = BytesIO()
    Image.fromarray(square).save(jpeg, "JPEG", quality=QUALITY, subsampling=0)
    return hashlib.sha256(content).hexdigest(), jpeg.getvalue()


def _write_shard(
    path: Path, items: Iterable[tuple[ImageFile, _Encoded | Rejected]], numbers: dict[str, int]
) -> list[str | tuple[str, int, int, int]]:
    """Write one shard; returns for each image why it is left out, or its SHA-256 and place."""
    import tensorflow as tf

    index: list[str | tuple[str, int, int, int]] = []
    position = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for file, item in items:
            if isinstance(item, Rejected):
                index.append(item.reason)
                continue
            sha256, jpeg = item
            values: dict[str, bytes | int] = {
                "image/encoded": jpeg,
                "image/class/label": numbers[file.label],
                "image/class/text": os.fsencode(file.label),
                "image/filename": os.fsencode(file.path.name),
            }
            example = tf.train.Example(
                features=tf.train.Features(feature={k: _feature(v) for k, v in values.items()})
            ).SerializeToString()
            writer.write(example)
            offset = position + _HEAD + example.index(jpeg)
            index.append((sha256, offset, len(jpeg), zlib.crc32(jpeg)))
            position += _HEAD + len(example) + _TAIL
    with path.open("rb") as shard:
        os.fsync(shard.fileno())
    return index


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Raise what TensorFlow's writer says of a full disk and the like as the `OSError` that it is."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:  # "PATH; reason"
        raise OSError(errno.EIO, error.message.rpartition("; ")[2], str(path)) from error


_HEAD, _TAIL = 12, 4  # of a TFRecord: length and its checksum, checksum of the data


def _feature(value: bytes | int) -> Any:
    import tensorflow as tf

    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
