"""Records: the images of a prepared split, each a JPEG at a known position of a TFRecord shard."""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from alexnet_cli.errors import ImageError
from alexnet_cli.system.atomic_files import open_file

RECORD_SIZE = 256  # pixels: height and width of every record (section 2 of the paper)


@dataclass(frozen=True, slots=True)
class Record:
    """The position of an image's JPEG in its shard, in bytes, and the CRC-32 of the JPEG."""

    shard: Path
    offset: int
    length: int
    crc32: int


def read_record(record: Record) -> bytes:
    """Return the JPEG of a record.

    Raises `ImageError` if its checksum differs, `OSError` if the shard can't be read.
    """
    with open_file(record.shard, sys.maxsize, links=True) as shard:
        shard.seek(record.offset)
        content = shard.read(record.length)
    if zlib.crc32(content) != record.crc32:
        raise ImageError(f"is damaged in {record.shard.name}. Prepare the split again")
    return content
