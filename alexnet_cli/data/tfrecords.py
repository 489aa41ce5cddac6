"""Write a prepared split: images of 256x256 pixels as JPEG in TFRecord shards, fast on any disk.

The records are `tf.train.Example`s with `image/encoded`, `image/class/label`, `image/class/text` and
`image/filename`, which other programs can read. alexnet reads each JPEG by its position in the shard,
which the manifest contains, so that every epoch can have its own order.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_cli.data import images, scan_cache, split_folders
from alexnet_cli.data.manifest import (
    MANIFEST,
    SPLITS,
    ImageFile,
    Manifest,
    Rejected,
    write_manifest,
)
from alexnet_cli.data.scanning import require_images
from alexnet_cli.data.shard_records import RECORD_SIZE, Record
from alexnet_cli.errors import AlexNetError, ImageError
from alexnet_cli.system.atomic_files import write_json
from alexnet_cli.system.random_streams import random_stream
from alexnet_cli.system.workers import Progress, map_in_order, map_in_processes

QUALITY = 90  # without chroma subsampling: on average at most 3 levels of 255 from the original
PER_SHARD = 1024  # images, about 30 MB; an interruption loses the current shard
# Of a TFRecord: the length and its checksum before the data, the checksum of the data after it.
_HEADER_BYTES, _FOOTER_BYTES = 12, 4

_Encoded = tuple[str, bytes]  # SHA-256 of the file, JPEG of the prepared image


def write(
    planned: Manifest,
    out: Path,
    *,
    force: bool = False,
    processes: bool = True,
    progress: Progress | None = None,
) -> Manifest:
    """Write the images to TFRecord shards in `out`, in random order within each split, and a manifest.

    Images that can't be decoded are skipped and listed in `rejected` of the manifest. After an
    interruption, the same call resumes after the last complete shard. With `force` an earlier split
    at `out` is replaced; with `processes` very many images are encoded by a process for each core.
    Returns the manifest of the new files. Raises `AlexNetError` if `planned`
    is prepared already, if `out` contains anything else or overlaps the source, if a class has no
    readable training image, or if `out` can't be written.
    """
    out = out.resolve()
    split_folders.check_sources(out, planned, force)
    if any(file.record for file in planned.files):
        raise AlexNetError(f"{planned.root}: is already prepared. Train on it as it is")
    partial = out.with_name(f".{out.name}.alexnet-preparing")
    try:
        with split_folders.lock_target(out):
            _open_partial(partial, _digest(planned))
            written = _write_shards(planned, partial, out, processes, progress)
            require_images(
                planned.image_list or planned.source,
                planned.classes,
                written.of("train"),
                written.rejected,
            )
            write_manifest(written, partial / MANIFEST)
            split_folders.check_sources(out, planned, force)  # it may have changed during encoding
            for index in partial.glob("*.json"):
                index.unlink()
            split_folders.replace_folder(partial, out)
            scan_cache.delete_cache(out)
    except OSError as error:
        raise AlexNetError(split_folders.describe_write_error(error, out)) from error
    return written


def _digest(planned: Manifest) -> str:
    """Return a digest of the plan; writing resumes only for the same one."""
    digest = hashlib.sha256(f"{RECORD_SIZE} {QUALITY} {PER_SHARD} {planned.seed}".encode())
    for file in planned.files:
        digest.update(
            f"{file.path}\0{file.split}\0{file.sha256}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def _open_partial(folder: Path, digest: str) -> None:
    """Make `folder`, and empty it unless an interrupted call with the same plan left it."""
    folder.mkdir(exist_ok=True)
    plan = folder / "plan.json"
    if not plan.exists() or json.loads(plan.read_bytes()) != digest:
        for path in folder.iterdir():
            path.unlink()
        write_json(plan, digest)


def _write_shards(
    planned: Manifest, folder: Path, out: Path, processes: bool, progress: Progress | None
) -> Manifest:
    shards = dict(_assign_shards(planned))
    numbers = {label: number for number, label in enumerate(planned.classes)}
    waiting = [name for name in shards if not _index_path(folder / name).exists()]
    n_done = len(planned.files) - sum(len(shards[name]) for name in waiting)
    run = map_in_processes if processes else map_in_order
    encoded = run([file for name in waiting for file in shards[name]], _encode)

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
        write_json(_index_path(folder / name), index)
    placed = {file.path: place for file, *place in split_folders.place_files(planned)}
    written: dict[Path, ImageFile] = {}
    rejected: list[Rejected] = []
    for name, part in shards.items():
        for file, entry in zip(
            part, json.loads(_index_path(folder / name).read_bytes()), strict=True
        ):
            path, origin = placed[file.path]
            if isinstance(entry, str):
                below = planned.source / (origin or path.partition("/")[2])
                rejected.append(Rejected(file.path if planned.in_place else below, entry))
                continue
            sha256, *place = entry
            record = Record(out / name, *place)
            written[file.path] = replace(
                file, path=out / path, sha256=sha256, record=record, origin=origin
            )
    return replace(
        planned,
        root=out,
        files=tuple(written[file.path] for file in planned.files if file.path in written),
        rejected=(*planned.rejected, *rejected),
    )


def _assign_shards(planned: Manifest) -> Iterator[tuple[str, list[ImageFile]]]:
    """Yield the name of each shard and its images; those of a split are in random order."""
    random = random_stream(planned.seed or 0, "shards")
    for split in SPLITS:
        files = planned.of(split)
        order = random.permutation(len(files))
        parts = np.array_split(order, -(-len(files) // PER_SHARD)) if files else []
        for number, part in enumerate(parts):
            name = f"{split}-{number:05d}-of-{len(parts):05d}.tfrecord"
            yield name, [files[index] for index in part]


def _index_path(shard: Path) -> Path:
    """Return the path of the index of a shard, which exists once the shard is complete."""
    return shard.with_suffix(".json")


def _encode(file: ImageFile) -> _Encoded | Rejected:
    try:
        content = images.read(file.path)
        square = images.load(BytesIO(content), RECORD_SIZE)
    except ImageError as error:
        return Rejected(file.path, error.reason)
    except OSError as error:
        return Rejected(file.path, error.strerror or str(error))
    jpeg = BytesIO()
    Image.fromarray(square).save(jpeg, "JPEG", quality=QUALITY, subsampling=0)
    return hashlib.sha256(content).hexdigest(), jpeg.getvalue()


def _write_shard(
    path: Path, items: Iterable[tuple[ImageFile, _Encoded | Rejected]], numbers: dict[str, int]
) -> list[str | tuple[str, int, int, int]]:
    """Write one shard; return for each image its index entry.

    An entry is the SHA-256, offset, length and CRC-32, or the reason why the image was skipped.
    """
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
            offset = position + _HEADER_BYTES + example.index(jpeg)
            index.append((sha256, offset, len(jpeg), zlib.crc32(jpeg)))
            position += _HEADER_BYTES + len(example) + _FOOTER_BYTES
    with path.open("rb") as shard:
        os.fsync(shard.fileno())
    return index


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Raise errors of TensorFlow's writer, such as a full disk, as `OSError`."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:  # "PATH; reason"
        raise OSError(errno.EIO, error.message.rpartition("; ")[2], str(path)) from error


def _feature(value: bytes | int) -> Any:
    import tensorflow as tf

    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
