"""Free memory of this machine or container, for refusing data that do not fit into it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["free_memory", "megabytes"]

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def free_memory() -> int | None:
    """Return the number of bytes that this process may still allocate; None where the system doesn't say."""
    found = [each for each in (_of_system(), _of_container()) if each is not None]
    return min(found, default=None)


def megabytes(size: float) -> str:
    """Format a number of bytes in whole megabytes, such as ``1,234 MB``."""
    return f"{max(1, round(size / 1e6)):,} MB"


def _of_system() -> int | None:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError, IndexError):
        return None


def _of_container() -> int | None:
    """Return what is left of the limit of the control group; files that are only cached count as free."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        cached = next(
            int(line.split()[1])
            for line in (_CGROUP / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        return max(0, limit - used + cached)
    except (OSError, ValueError, StopIteration):  # no control group, or "max"
        return None
