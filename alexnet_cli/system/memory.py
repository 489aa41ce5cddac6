"""The memory that this process may use, on a machine or in a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def total() -> int:
    """Return the total bytes for this process: the physical memory or the limit of its cgroup."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(_read_number(limit) or physical for limit in _limit_files())])


def available() -> int:
    """Return how many more bytes this process may use; on systems other than Linux `total()`."""
    resident = _read_number(Path("/proc/self/statm"), word=1) or 0
    free = _read_number(Path("/proc/meminfo"), word=7)  # kB, after MemTotal and MemFree
    within_limit = total() - resident * os.sysconf("SC_PAGE_SIZE")
    return min(within_limit, free * 1024) if free else within_limit


def _limit_files() -> Iterator[Path]:
    """Yield the files that may hold a memory limit of this cgroup or its parents, version 1 or 2."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = _CGROUP_ROOT / "memory" if controllers else _CGROUP_ROOT
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        own = base / group.lstrip("/")
        yield from (folder / name for folder in (own, *own.parents) if folder.is_relative_to(base))


def _read_number(path: Path, word: int = 0) -> int | None:
    try:
        return int(path.read_text().split()[word])
    except (OSError, ValueError, IndexError):  # not Linux, or no limit ("max")
        return None
