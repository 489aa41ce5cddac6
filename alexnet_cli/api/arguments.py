"""Checks of arguments that every type checker refuses, for callers who use none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, Lt

from alexnet_cli.errors import AlexNetError, UsageError, describe_os_error
from alexnet_cli.system import strict_json

T = TypeVar("T")

Seed = Annotated[int, Ge(0), Lt(2**63)]
Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Probability = Annotated[float, Ge(0), Le(1)]


def check_argument(argument: str, value: object, kind: Any) -> None:
    """Raise `UsageError` with the argument's name unless `value` is of type `kind`."""
    try:
        strict_json.parse(kind, value)
    except strict_json.FieldError as error:
        raise UsageError(error.reason, argument=argument, value=value) from None


# What a path given by the caller can be at fault for, unlike a full disk or a closed pipe.
_ABOUT_PATHS = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}


@contextmanager
def path_errors() -> Iterator[None]:
    """Raise `AlexNetError` for a path that can't be used, in place of the system's `OSError`.

    A decorator of the functions that read or write at a path from the caller.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno not in _ABOUT_PATHS:
            raise
        raise AlexNetError(describe_os_error(error)) from error


def as_list(argument: str, values: Iterable[T]) -> list[T]:
    """Return a list of `values`; a single text is refused, as its characters would be the items."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError("must be a list", argument=argument, value=values)
    return list(values)


def as_texts(argument: str, values: Iterable[str]) -> list[str]:
    """Return a list of `values`, each of which must be a text."""
    texts = as_list(argument, values)
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("must be a list of texts", argument=argument, value=texts)
    return texts


def as_path(argument: str, value: object) -> Path:
    """Return `value`, a text or path, as a path; a name that no file can have is refused."""
    if not isinstance(value, str | Path):
        raise UsageError("must be a path", argument=argument, value=value)
    try:
        os.lstat(value)
    except (ValueError, OSError) as error:
        # ValueError: a null character, or one that can't be encoded
        if not isinstance(error, OSError) or error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{str(value)[:60]!r}: no file can have this name") from None
    return Path(value)


def as_folder(argument: str, value: object) -> Path:
    """Return the path of a folder to write into, which need not exist."""
    path = as_path(argument, value)
    for folder in (path, *path.parents):
        if os.path.lexists(folder) and not os.path.isdir(folder):
            what = "is a file" if folder == path else f"{folder} is a file"
            raise UsageError(f"{what}; name a folder", argument=argument, value=str(path))
    return path


def as_new_file(argument: str, value: object) -> Path:
    """Return the path of a file to write: its folder exists, and a file there can be replaced."""
    path = as_path(argument, value)
    reason = None
    if not path.parent.is_dir():
        reason = f"folder {path.parent} not found"
    elif path.is_dir():
        reason = "is a folder; name a file"
    elif path.is_symlink() or (path.exists() and not path.is_file()):  # /dev/stdout, /dev/null
        reason = "is a link or a device; name a file"
    if reason:
        raise UsageError(reason, argument=argument, value=str(path))
    return path
