"""Arrays on disk: .npz files that can be mapped, and that are not believed before they are checked.

Each array has its CRC-32 in the file, so that the two can't be parted by a kill; nothing is unpickled.
"""

from __future__ import annotations

import errno
import io
import json
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.errors import AlexNetError
from alexnet_cli.network import shapes
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import atomic_write, open_file

Arrays = Mapping[str, npt.NDArray[Any]]

# A field of zip headers that readers pass over, as they know no such number; it fills up to the next
# multiple of what vector instructions like.
_EXTRA, _PADDING, _ALIGNMENT = struct.Struct("<HH"), 0xA1E0, 64
_MOST_HEADER = 1 << 16  # of a .npy file


def save_arrays(path: Path, arrays: Arrays, notes: Mapping[str, Any] | None = None) -> None:
    """Write arrays, and JSON `notes`, as one .npz file, whose format keeps a CRC of each.

    As by `np.savez`, but each array begins at a multiple of 64 bytes, so that a mapped file serves as
    well as memory.
    """
    packed = dict(arrays)
    if notes is not None:
        packed["notes"] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, array in packed.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            # a header, the name, the sizes in 64 bits, and this field's own head
            unpadded = file.tell() + 30 + len(member.filename.encode()) + 20 + _EXTRA.size
            padding = -unpadded % _ALIGNMENT
            member.extra = _EXTRA.pack(_PADDING, padding) + bytes(padding)
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def load_arrays(
    path: Path, only: str | None = None, of: int = 2 * shapes.MOST_WEIGHTS
) -> dict[str, npt.NDArray[Any]]:
    """Map all arrays of an .npz file, or one; raises `AlexNetError` if it is damaged.

    They are read-only and stay what they are when another file takes this one's place. `of` is how
    many numbers it may hold, beside notes and headers.
    """
    most = 4 * of + strict_json.MOST_BYTES
    try:
        stream = open_file(path, most)
    except OSError as error:
        raise AlexNetError(f"{path}: can't be read: {reason(error)}") from None
    try:
        with stream as file, zipfile.ZipFile(file) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            file.seek(-12, os.SEEK_END)  # the count that ends the archive, as savez writes it
            if int.from_bytes(file.read(2), "little") != len(members):
                raise ValueError("arrays are missing")
            if any(m.compress_type or m.file_size != m.compress_size for m in members.values()):
                raise ValueError("arrays are compressed, which `alexnet` never does")
            if any(m.flag_bits for m in members.values()):
                raise ValueError("arrays are encrypted or streamed, which `alexnet` never does")
            if sum(member.file_size for member in members.values()) > most:
                raise ValueError("arrays lie in one another")
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            chosen = {only: members[only]} if only else members
            return {name: _array(_content(mapped, info)) for name, info in chosen.items()}
    except Exception as error:  # zipfile and NumPy raise anything when a file lies
        raise AlexNetError(f"{path}: damaged or not an array file: {error}") from None


def _content(mapped: memoryview, member: zipfile.ZipInfo) -> memoryview:
    """Find a member's bytes behind its header, and hold them against their CRC before anyone looks."""
    header = mapped[member.header_offset :]
    n_name, n_extra = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
    name, start = bytes(header[30 : 30 + n_name]), 30 + n_name + n_extra
    content = header[start : start + member.file_size]
    if bytes(header[:4]) != b"PK\3\4" or name != member.orig_filename.encode("cp437"):
        raise ValueError("arrays are not where they should be")
    if zlib.crc32(content) != member.CRC:
        raise ValueError(f"the CRC of {member.filename} is another")
    return content


def _array(content: memoryview) -> npt.NDArray[Any]:
    """Make an array of numbers of a .npy file; it is a view of `content`."""
    file = io.BytesIO(content[:_MOST_HEADER])
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is of another version of the format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    body = content[file.tell() :]
    if dtype.kind not in "biuf" or min(shape, default=0) < 0:
        raise ValueError(f"an array is of no numbers but {dtype}")
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"an array of shape {shape} has {len(body)} bytes")
    array: npt.NDArray[Any] = np.ndarray(shape, dtype, body, order="F" if by_columns else "C")
    return array


def load_notes(arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Take the JSON notes out of what `load_arrays` returned."""
    return strict_json.loads(arrays.pop("notes").tobytes())


def reason(error: OSError) -> str:
    """Say why a file of a run can't be opened."""
    if error.errno == errno.ELOOP:
        return "it is a link, which a run never holds"
    return error.strerror or str(error)
