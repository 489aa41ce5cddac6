"""What a long scan has found so far, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from alexnet_cli.system.workers import PROCESS_THRESHOLD, map_in_processes


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What reading a file said: its SHA-256, or why it is no image; neither if it never claimed to be.

    `size` and `modified` (in nanoseconds) tell whether it still is the file that was read.
    """

    sha256: str | None = None
    reason: str | None = None
    size: int = -1
    modified: int = -1


def beside(out: Path) -> Path | None:
    """Name the journal of a scan whose result will lie at `out`; None if there is no place yet."""
    out = out.absolute()
    return out.with_name(f".{out.name}.checked.jsonl") if out.parent.is_dir() else None


def forget(out: Path) -> None:
    """Remove the journal: its result is at `out` now."""
    if journal := beside(out):
        with suppress(OSError):
            journal.unlink()


def judge(
    paths: Sequence[Path], inspect: Callable[[Path], FileCheck], journal: Path | None
) -> Iterator[FileCheck]:
    """Yield `inspect(path)` of each of `paths` in order; those that `journal` knows are not read.

    Fewer than `PROCESS_THRESHOLD` are read so soon that no journal is kept.
    """
    if journal is None or len(paths) < PROCESS_THRESHOLD:
        yield from map_in_processes(paths, inspect)
        return
    known = _read(journal)
    fresh = map_in_processes([path for path in paths if str(path) not in known], inspect)
    try:
        stream = journal.open("a", encoding="ascii", buffering=1)
    except OSError:  # only what is beside may be written to
        stream = open(os.devnull, "a", encoding="ascii")  # noqa: SIM115
    with stream as lines:
        lines.write("\n")  # the last line may have been cut off
        for path in paths:
            if str(path) in known:
                yield known[str(path)]
                continue
            verdict = next(fresh)
            lines.write(json.dumps([str(path), asdict(verdict)]) + "\n")
            yield verdict


def _read(journal: Path) -> dict[str, FileCheck]:
    """Read what still holds, by path."""
    known = {}
    with suppress(OSError, UnicodeDecodeError), journal.open(encoding="ascii") as lines:
        for line in lines:
            with suppress(ValueError, TypeError, OSError):  # cut off, or the file is gone
                path, found = json.loads(line)
                verdict, status = FileCheck(**found), Path(path).stat()
                if (verdict.size, verdict.modified) == (status.st_size, status.st_mtime_ns):
                    known[path] = verdict
    return known
