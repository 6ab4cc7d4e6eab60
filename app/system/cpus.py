"""How many CPUs this process may use: its affinity and its cgroup's quota, not the machine's size."""

import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Whole CPUs, at least 1, that the affinity mask and every cgroup quota on the way up allow.

    A quota of 1.5 CPUs gives 1: a second thread would spend half of its time throttled.
    """
    quotas = [quota for folder in _folders(cgroup_root, membership) if (quota := _quota(folder)) is not None]
    return max(1, int(min([affinity(), *quotas])))


def threads_each(runs: int) -> int:
    """Threads of one run when so many of them may run at the same time: together no more than there are CPUs.

    More would only wait for each other, and small networks lose more by a hand-over than a second thread computes.
    """
    return max(1, available_cpus() // runs)


def affinity() -> int:
    """CPUs in this process's affinity mask; on systems that have none, all CPUs."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folders(root: Path, membership: Path) -> Iterator[Path]:
    """The cgroup folders that bound this process, of version 1 and version 2.

    Inside a container the path in `membership` may be the host's; then only the mounted root exists, and it is ours.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines[:64]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            mounts = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / controllers, root / "cpu"]
        else:
            continue
        own = Path(path.lstrip("/"))
        for mount in mounts:
            yield from (mount / folder for folder in (own, *own.parents) if ".." not in folder.parts)


def _quota(folder: Path) -> float | None:
    """CPUs that one cgroup folder grants, or None where it sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if quota in {"max", "-1"} else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
