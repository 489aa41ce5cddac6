"""Locks on files, which end with the process that holds them, however it ends.

Folders are not locked: NFS locks a file only, and exclusively only one that is open for writing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alexnet_cli.errors import AlexNetError, AlexNetWarning


@contextmanager
def lock_file(path: Path, complaint: str, *, shared: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on the existing file `path`, or a shared one, while the block runs.

    Raises `AlexNetError` with `complaint` if another process holds a conflicting lock, and `OSError`
    if the file can't be opened. On a file system without locks it issues an `AlexNetWarning`.
    """
    descriptor = _open_locked(path, 0, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, complaint)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def own_lock_file(path: Path, complaint: str) -> Iterator[None]:
    """Create the file `path`, hold an exclusive lock on it while the block runs, and delete it.

    One that a killed process left is taken over. Raises and warns as `lock_file` does.
    """
    while True:
        flags = os.O_CREAT | os.O_NOFOLLOW
        descriptor = _open_locked(path, flags, fcntl.LOCK_EX, complaint)
        if _is_at(descriptor, path):
            break
        os.close(descriptor)  # its holder deleted the file after this process had opened it
    try:
        yield
    finally:
        with suppress(OSError):  # the folder is gone, or read-only by now
            path.unlink()  # before the lock ends, so that nobody can hold it and lose the file
        os.close(descriptor)


def _open_locked(path: Path, flags: int, kind: int, complaint: str) -> int:
    """Return a descriptor of the file with a lock, or without one where there are no locks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags, 0o666)
    try:
        _flock(descriptor, path, flags, kind)
    except BlockingIOError:
        os.close(descriptor)
        raise AlexNetError(complaint) from None
    except OSError as error:
        message = f"{path}: can't be locked ({error.strerror})"
        remedy = f"Let no other alexnet process write to {path.parent} meanwhile"
        warnings.warn(f"{message}. {remedy}", AlexNetWarning, stacklevel=2)
    return descriptor


def _flock(descriptor: int, path: Path, flags: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        # NFS: an exclusive lock needs a file that is open for writing.
        writable = os.open(path, os.O_RDWR | os.O_NONBLOCK | flags, 0o666)
        os.dup2(writable, descriptor, inheritable=False)
        os.close(writable)
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
