"""Array files in the safetensors format: written atomically, mapped, and checked before use.

The safetensors library writes them, and any program that knows the format can read them. The reader
here is our own, because the library's copies every array, waits for ever on a pipe and follows links.

The file's `__metadata__` holds three strings. `notes` is JSON of the caller's choice. `crc32` is JSON
that maps each array to the CRC-32 of its bytes. `header_crc32` covers names, dtypes, shapes and the
other two strings. A kill can't part an array from its checksum, and nothing is unpickled.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes import structure
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import atomic_path, open_file

Arrays = Mapping[str, npt.NDArray[Any]]
_Contents = tuple[dict[str, npt.NDArray[Any]], dict[str, str]]  # arrays and metadata

# The dtypes that `alexnet` writes, by their names in the format, all little-endian.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def save_arrays(path: Path, arrays: Arrays, notes: Mapping[str, Any] | None = None) -> None:
    """Write arrays and JSON `notes` as one safetensors file that replaces `path` when complete.

    Raises `OSError`, and `ValueError` for a dtype that an array file does not hold.
    """
    from safetensors import SafetensorError  # readers do without the library
    from safetensors.numpy import save_file

    plain = {name: _plain(name, array) for name, array in arrays.items()}
    sums = {name: _crc32(array.data) for name, array in plain.items()}
    metadata = {"notes": json.dumps(notes or {}), "crc32": json.dumps(sums)}
    metadata["header_crc32"] = _header_crc32(plain, metadata)
    try:
        with atomic_path(path) as temporary:
            save_file(plain, temporary, metadata)
    except SafetensorError as error:  # the library gives the number of an OSError in words only
        if not (number := re.search(r"os error (\d+)", str(error))):
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _plain(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array in C order and little-endian: the library writes memory as it lies there."""
    plain = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    if plain.dtype not in _NAMES:
        raise ValueError(f"{name}: arrays of dtype {array.dtype} can't be saved")
    return plain


def load_arrays(
    path: Path, only: str | None = None, of: int = 2 * structure.MOST_WEIGHTS
) -> dict[str, npt.NDArray[Any]]:
    """Map all arrays of a file, or `only` one; raises `AlexNetError` if the file is damaged.

    The arrays are read-only views of the file, and keep their contents when another file replaces
    it. Only what is returned is read. `of` limits the file's size, in numbers of 4 bytes.
    """
    with _open(path, of) as (arrays, metadata):
        sums = strict_json.loads(metadata["crc32"].encode())
        chosen = arrays if only is None else {only: arrays[only]}
        for name, array in chosen.items():
            if _crc32(array.data) != sums[name]:
                raise ValueError(f"the CRC-32 of {name!r} does not match")
        return chosen


def read_notes(path: Path) -> Any:
    """Return the JSON notes of an array file; raises `AlexNetError` if its header is damaged."""
    with _open(path, 2 * structure.MOST_WEIGHTS) as (_, metadata):
        return strict_json.loads(metadata["notes"].encode())


@contextmanager
def _open(path: Path, of: int) -> Iterator[_Contents]:
    """Map the file and yield what is in it; any error in the block means that it is damaged."""
    try:
        stream = open_file(path, 4 * of + strict_json.MOST_BYTES)
    except OSError as error:
        raise AlexNetError(f"{path}: can't be read: {reason(error)}") from None
    try:
        with stream:
            yield _parse(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    except Exception as error:  # a damaged file can raise anything, with names of any length
        raise AlexNetError(f"{path}: damaged or not an array file: {error!s:.200}") from None


def _parse(mapped: memoryview) -> _Contents:
    """Return views of the arrays, which must fill the file without gaps, and the metadata."""
    start = 8 + int.from_bytes(mapped[:8], "little")
    if start > min(len(mapped), 8 + strict_json.MOST_BYTES):
        raise ValueError(f"a header of {start - 8:,} bytes")
    entries, data = strict_json.loads(bytes(mapped[8:start])), mapped[start:]
    metadata, arrays, position = entries.pop("__metadata__"), {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        array = np.ndarray(entry["shape"], _DTYPES[entry["dtype"]], data[begin:end])
        if begin != position or end - begin != array.nbytes:
            raise ValueError(f"{name!r} is not of its dtype and shape, or not in its place")
        arrays[name], position = array, end
    if position != len(data):
        raise ValueError("the arrays do not end with the file")
    if metadata.pop("header_crc32", None) != _header_crc32(arrays, metadata):
        raise ValueError("the CRC-32 of the header is missing or does not match")
    return arrays, metadata


def _crc32(content: memoryview) -> str:
    return f"{zlib.crc32(content):08x}"


def _header_crc32(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    layout = {name: [_NAMES[array.dtype], array.shape] for name, array in arrays.items()}
    return _crc32(memoryview(json.dumps([layout, metadata], sort_keys=True).encode()))


def reason(error: OSError) -> str:
    """Return why a file of a run can't be opened."""
    if error.errno == errno.ELOOP:
        return "it is a link, which a run never holds"
    return error.strerror or str(error)
