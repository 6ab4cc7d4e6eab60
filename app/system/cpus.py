"""Number of CPUs that this process may use: its affinity and its cgroups' quotas, not the size of the machine."""

import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Whole CPUs, at least 1, that the affinity mask and the quotas of all enclosing cgroups allow.

    A quota of 1.5 CPUs counts as 1: a second thread would be throttled half of the time.
    """
    quotas = [quota for folder in _folders(cgroup_root, membership) if (quota := _quota(folder)) is not None]
    return max(1, int(min([affinity_cpus(), *quotas])))


def threads_per_run(runs: int) -> int:
    """Threads of one run if `runs` of them may run at the same time: together not more than there are CPUs.

    More threads would only wait for each other, and for small networks handing work to a second thread costs more
    time than it saves.
    """
    return max(1, available_cpus() // runs)


def affinity_cpus() -> int:
    """CPUs in this process's affinity mask; all CPUs on systems without such masks."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folders(root: Path, membership: Path) -> Iterator[Path]:
    """The folders of this process's cgroups and their ancestors, versions 1 and 2.

    Inside a container the path in `membership` may be the host's; then only the mounted root exists, and it is the
    container's own.
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
    """CPUs that one cgroup may use; None if it is not limited."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if quota in {"max", "-1"} else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
