"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from alexnet_cli.errors import AlexNetError


def open_file(path: Path, most: int, *, links: bool = False) -> IO[bytes]:
    """Open a regular file of at most `most` bytes; with `links` it may lie elsewhere.

    Raises `OSError`, also for a device or a pipe, which could be read for ever.
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
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of `path` when all of it is on disk."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)  # Ctrl-C may come when it has moved already
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes were writing to `path`, to which no living one may write."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()


@contextmanager
def lock_folder(folder: Path, complaint: str, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes out of `folder`, or with `shared` those who want it for themselves.

    The lock goes with the process, however that ends. Raises `AlexNetError` with the complaint.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlexNetError(f"{folder}: {complaint}") from None
        except OSError:  # a file system without locks
            pass
        yield
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
