"""Array files written byte by byte, with valid checksums whatever else is wrong with them."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from alexnet_cli.errors import AlexNetError
from alexnet_cli.runs.weights_file import read_notes


def entry(array: np.ndarray, start: int = 0, dtype: str = "F32") -> dict:
    """The header's entry of an array whose bytes begin at `start`."""
    offsets = [start, start + array.nbytes]
    return {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}


def metadata(entries: dict, sums: dict[str, int], notes: str = "{}") -> dict[str, str]:
    """Notes and checksums, computed as the docstring of `weights_file` describes them."""
    strings = {
        "notes": notes,
        "crc32": json.dumps({name: f"{value:08x}" for name, value in sums.items()}),
    }
    layout = {name: [item["dtype"], item["shape"]] for name, item in entries.items()}
    covered = json.dumps([layout, strings], sort_keys=True).encode()
    return {**strings, "header_crc32": f"{zlib.crc32(covered):08x}"}


def write_raw(path: Path, header: str | bytes, data: bytes = b"") -> None:
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_file(path: Path, entries: dict, data: bytes = b"", sums: dict | None = None) -> None:
    """Write a file with any entries; without `sums` each array's are those of its bytes.

    A valid file that is there keeps its notes.
    """
    notes = "{}"
    if path.exists():
        with suppress(AlexNetError):
            notes = json.dumps(read_notes(path))
    if sums is None:
        sums = {
            name: zlib.crc32(data[slice(*item["data_offsets"])]) for name, item in entries.items()
        }
    header = {"__metadata__": metadata(entries, sums, notes), **entries}
    write_raw(path, json.dumps(header), data)
