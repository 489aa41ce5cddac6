"""Atomic writing of files, and safe opening of files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def open_file(path: Path, most: int, *, links: bool = False) -> IO[bytes]:
    """Return an open regular file of at most `most` bytes; `links` allows a symbolic link.

    Raises `OSError` also for a device or a pipe, as reading from one may never end.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except UnicodeEncodeError:
        what = "can't be named in this locale: try LC_ALL=C.UTF-8"
        raise OSError(errno.EILSEQ, what, str(path)) from None
    file = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= most:
        return file
    file.close()
    what = f"has more than {most:,} bytes" if status.st_size > most else "is not a regular file"
    raise OSError(errno.EINVAL, what, str(path))


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces `path` when the block ends.

    The new file is on disk before it is renamed, so a reader always finds either the old file or the
    new one, also after a kill or a power failure. The temporary path is in a folder of its own, as a
    library may create temporary files beside the file it writes.
    """
    with _temporary_folder(path) as folder:
        temporary = Path(folder, path.name)
        yield temporary
        _sync(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    _sync(path.parent)


def _temporary_folder(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder beside `path`; raises `OSError` with `path`, whose name is known."""
    try:
        return tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file open for writing; it replaces `path` when the block ends."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


def remove_leftovers(path: Path) -> None:
    """Remove the temporary folders that killed processes left while writing `path`.

    No running process may be writing to `path`.
    """
    for left in path.parent.glob(f".{path.name}.*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON."""
    with atomic_write(path) as file:
        file.write(json.dumps(data, indent=2).encode() + b"\n")
