"""Memory of processes, as the system counts it."""

import sys


def resident_bytes() -> int | None:
    """Resident memory of this process now; None where the system does not tell."""
    return _proc_bytes("/proc/self/smaps_rollup", "Rss:") or _proc_bytes("/proc/self/status", "VmRSS:")


def anonymous_bytes() -> int | None:
    """Of that, what is no part of any file, such as the pages of libraries that were touched."""
    return _proc_bytes("/proc/self/smaps_rollup", "Anonymous:") or _proc_bytes("/proc/self/status", "RssAnon:")


def peak_bytes() -> int | None:
    """The most resident memory that this process ever had."""
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
    try:
        with open(path) as lines:  # noqa: PTH123 - pathlib would read it whole
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
    except OSError:
        return None
