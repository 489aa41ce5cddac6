"""The scan cache: results of file checks, kept so that an interrupted scan resumes where it stopped.

It is a file of JSON lines beside the output of a command, deleted once that output exists.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from alexnet_cli.errors import AlexNetWarning
from alexnet_cli.system.workers import PROCESS_THRESHOLD, map_in_order, map_in_processes


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of checking a file.

    An image has a `sha256` and a `fingerprint`, "" without contrast. A file that should be an image
    and is none has a `reason`. A file that does not look like an image has neither. `size` (bytes)
    and `modified` (nanoseconds) tell whether the file has changed since.
    """

    sha256: str | None = None
    reason: str | None = None
    size: int = -1
    modified: int = -1
    fingerprint: str = ""


def cache_path(out: Path) -> Path | None:
    """Return the path of the scan cache for output `out`; None if its parent folder is missing."""
    out = out.absolute()
    return out.with_name(f".{out.name}.checked.jsonl") if out.parent.is_dir() else None


def delete_cache(out: Path) -> None:
    """Delete the scan cache for output `out`, if there is one and it can be deleted."""
    if cache := cache_path(out):
        with suppress(OSError):
            cache.unlink()


def check_files(
    paths: Sequence[Path],
    check: Callable[[Path], FileCheck],
    cache: Path | None,
    processes: bool = True,
) -> Iterator[FileCheck]:
    """Yield `check(path)` for each of `paths`, in order, from `cache` where the file is unchanged.

    New results are appended to `cache`, as long as it can be written. Without a cache, or with fewer
    than `PROCESS_THRESHOLD` paths, which are checked within seconds, every file is checked. With
    `processes` many files are checked by a process for each core.
    """
    run = map_in_processes if processes else map_in_order
    if cache is None or len(paths) < PROCESS_THRESHOLD:
        yield from run(paths, check)
        return
    cached = _read_cache(cache)
    new = run([path for path in paths if str(path) not in cached], check)
    with _appending(cache) as append:
        for path in paths:
            if str(path) in cached:
                yield cached[str(path)]
                continue
            result = next(new)
            append(json.dumps([str(path), asdict(result)]))
            yield result


@contextmanager
def _appending(cache: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that appends a line to `cache`, and does nothing once that has failed.

    A cache that can't be continued is deleted, as the output needs the space of a full disk.
    """
    stream: IO[str] | None = None
    with suppress(OSError):  # the parent folder may be read-only where the output itself is not
        stream = cache.open("a", encoding="ascii", buffering=1)

    def append(line: str) -> None:
        nonlocal stream
        if stream is None:
            return
        try:
            stream.write(line + "\n")
        except OSError as error:
            message = f"{cache}: {error.strerror}. An interruption would start the scan anew"
            warnings.warn(message, AlexNetWarning, stacklevel=2)
            _close(stream)
            stream = None
            with suppress(OSError):
                cache.unlink()

    append("")  # ends the partial last line that a killed process may have left
    try:
        yield append
    finally:
        if stream:
            _close(stream)


def _close(stream: IO[str]) -> None:
    with suppress(OSError):  # what could not be written is tried again
        stream.close()


def _read_cache(cache: Path) -> dict[str, FileCheck]:
    """Return the results whose files have not changed since, by path."""
    cached = {}
    with suppress(OSError, UnicodeDecodeError), cache.open(encoding="ascii") as lines:
        for line in lines:
            with suppress(ValueError, TypeError, OSError):  # a partial line, or the file is gone
                path, fields = json.loads(line)
                result, status = FileCheck(**fields), Path(path).stat()
                if (result.size, result.modified) == (status.st_size, status.st_mtime_ns):
                    cached[path] = result
    return cached
