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
    """Raise `UsageError` with the argument's name unless `value` is None or of type `kind`."""
    try:
        if value is not None:
            strict_json.parse(kind, value)
    except strict_json.FieldError as error:
        raise UsageError(error.reason, argument=argument, value=value) from None


def check_output_folder(argument: str, path: Path) -> None:
    """Raise `UsageError` if the folder `path` can't be made, as a part of its path is no folder."""
    for part in (path, *path.parents):
        if os.path.isdir(part):
            return
        if os.path.lexists(part):
            reason = f"{part} is not a folder. Choose another path"
            raise UsageError(reason, argument=argument, value=str(path))


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
    if isinstance(values, str):
        raise UsageError("must be a list", argument=argument, value=values)
    return list(values)
