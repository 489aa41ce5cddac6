"""Locks on folders, which end with the process that holds them, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet_cli.errors import AlexNetError


@contextmanager
def lock_folder(folder: Path, complaint: str, *, shared: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on `folder`, or a shared one, while the block runs.

    The lock ends with the process, even if it is killed. Raises `AlexNetError` with `complaint` if
    another process holds a conflicting lock.
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
