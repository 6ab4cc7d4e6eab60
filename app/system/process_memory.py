"""Memory of processes as the system counts it, from /proc; None where the system does not report it."""

import sys


def resident_bytes() -> int | None:
    """Resident memory of this process, exact."""
    return _proc_bytes("/proc/self/smaps_rollup", "Rss:") or _proc_bytes("/proc/self/status", "VmRSS:")


def resident_bytes_of(pid: int) -> int | None:
    """Resident memory of another process; None also if it has ended. Cheap enough to poll."""
    return _proc_bytes(f"/proc/{pid}/status", "VmRSS:")


def anonymous_bytes() -> int | None:
    """Resident memory of this process that is not backed by a file: the heap, without pages of libraries."""
    return _proc_bytes("/proc/self/smaps_rollup", "Anonymous:") or _proc_bytes("/proc/self/status", "RssAnon:")


def virtual_bytes() -> int | None:
    """Address space that this process uses, which `RLIMIT_AS` limits."""
    return _proc_bytes("/proc/self/status", "VmSize:")


def peak_bytes() -> int | None:
    """Peak resident memory of this process since it started."""
    peak = _proc_bytes("/proc/self/status", "VmHWM:")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _proc_bytes(path: str, key: str) -> int | None:
    """Value of the line `key: N kB` of a file, in bytes."""
    try:
        with open(path) as lines:  # noqa: PTH123 - pathlib would read it whole
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
    except OSError:
        return None
