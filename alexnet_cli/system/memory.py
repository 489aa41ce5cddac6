"""How much memory there is: the machine's, or what a container leaves of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def total() -> int:
    """Return the bytes that all of this process may take."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(_number(limit) or physical for limit in _limits())])


def left() -> int:
    """Return the bytes that this process may take beyond what it has, as far as Linux tells."""
    resident = _number(Path("/proc/self/statm"), word=1) or 0
    available = _number(Path("/proc/meminfo"), word=7)  # in kB, after MemTotal and MemFree
    within = total() - resident * os.sysconf("SC_PAGE_SIZE")
    return min(within, available * 1024) if available else within


def _limits() -> Iterator[Path]:
    """Name what may limit our control group, or one that it is in, of either version of them."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        base = _GROUPS / "memory" if kinds else _GROUPS
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        own = base / group.lstrip("/")
        yield from (folder / name for folder in (own, *own.parents) if folder.is_relative_to(base))


def _number(path: Path, word: int = 0) -> int | None:
    try:
        return int(path.read_text().split()[word])
    except (OSError, ValueError, IndexError):  # another system, or no limit: "max"
        return None
