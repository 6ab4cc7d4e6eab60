"""CPUs that a process may use, by its affinity mask and its cgroups' quotas."""

from pathlib import Path

import pytest

from app.system.cpus import affinity_cpus, available_cpus

AFFINITY = affinity_cpus()


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),  # a fifth of a CPU counts as 1
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "100000 100000\n"}, 1),
        ("0::/host/path\n", {"cpu.max": "100000 100000\n"}, 1),  # a container that sees only its own root
        ("0::/../../x\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("", {"cpu.max": "100000 100000\n"}, None),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (
            "4:memory:/m\n3:cpu,cpuacct:/docker/x\n",
            {"cpu,cpuacct/docker/x/cpu.cfs_quota_us": "100000", "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            "3:cpuacct,cpu:/docker/x\n",
            {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("0::/\n", {"cpu.max": f"{(AFFINITY + 3) * 100000} 100000\n"}, None),  # more than the affinity mask has
    ],
)
def test_available_cpus_are_bounded_by_quotas_and_affinity(
    tmp_path: Path, membership: str, files: dict[str, str], quota: int | None
) -> None:
    write(tmp_path, {"membership": membership} | {f"root/{name}": text for name, text in files.items()})
    (tmp_path / "root").mkdir(exist_ok=True)
    assert available_cpus(tmp_path / "root", tmp_path / "membership") == min(AFFINITY, quota or AFFINITY)


def test_a_quota_is_rounded_down_to_whole_cpus(tmp_path: Path) -> None:
    write(tmp_path, {"membership": "0::/\n", "cpu.max": "290000 100000\n"})
    assert available_cpus(tmp_path, tmp_path / "membership") == min(AFFINITY, 2)


def test_without_cgroups_only_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "none", tmp_path / "none") == AFFINITY
