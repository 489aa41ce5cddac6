"""How much memory there is: the machine's, or what a container leaves of it."""

from __future__ import annotations

import os
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total() -> int:
    """Return the bytes that all of this process may take."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(physical, *(_number(Path(limit)) or physical for limit in _LIMITS))


def left() -> int:
    """Return the bytes that this process may take beyond what it has, as far as Linux tells."""
    resident = _number(Path("/proc/self/statm"), word=1) or 0
    available = _number(Path("/proc/meminfo"), word=7)  # in kB, after MemTotal and MemFree
    within = total() - resident * os.sysconf("SC_PAGE_SIZE")
    return min(within, available * 1024) if available else within


def _number(path: Path, word: int = 0) -> int | None:
    try:
        return int(path.read_text().split()[word])
    except (OSError, ValueError, IndexError):  # another system, or no limit: "max"
        return None
