"""Folders of jobs: removed at their end, or by the next job if their process was killed; nobody else's ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.system.files import PrivateFolder

PREFIX = "kind-"


def names(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def test_a_folder_goes_at_its_end_and_others_that_are_needed_stay(tmp_path: Path) -> None:
    first, second = PrivateFolder(PREFIX, tmp_path), PrivateFolder(PREFIX, tmp_path)
    for folder in (first, second):
        folder.make()
        assert folder.path.stat().st_mode & 0o777 == 0o700
    (first.path / "inner").mkdir()
    assert len(names(tmp_path)) == 2
    first.remove()
    assert names(tmp_path) == [second.path.name]
    second.remove()
    second.remove()
    PrivateFolder(PREFIX, tmp_path).remove()  # never made
    assert names(tmp_path) == []


def test_the_folder_of_a_process_that_was_killed_goes_with_the_next(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
from app.system.private_folder import PrivateFolder
folder = PrivateFolder({PREFIX!r}, pathlib.Path({str(tmp_path)!r}))
folder.make()
(folder.path / "rows").write_bytes(bytes(1000))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (left,) = names(tmp_path)
    folder = PrivateFolder(PREFIX, tmp_path)
    folder.make()
    assert names(tmp_path) == [folder.path.name] != [left]
    folder.remove()


def test_what_only_looks_like_one_stays(tmp_path: Path) -> None:
    """Anybody may put anything where things are temporary."""
    precious, parent = tmp_path / "precious", tmp_path / "parent"
    for path in (precious, parent / f"{PREFIX}new", parent / "other-kind"):
        path.mkdir(parents=True)
    for path in (precious, parent / "other-kind"):
        (path / "lock").touch()
    (parent / f"{PREFIX}link").symlink_to(precious)
    (parent / f"{PREFIX}file").touch()
    before = names(parent)
    folder = PrivateFolder(PREFIX, parent)
    folder.make()
    folder.remove()
    assert names(parent) == before
    assert names(precious) == ["lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_another_users_folder_stays(tmp_path: Path) -> None:
    planted = tmp_path / f"{PREFIX}planted"
    planted.mkdir()
    (planted / "lock").touch()
    os.chown(planted, 65534, 65534)
    folder = PrivateFolder(PREFIX, tmp_path)
    folder.make()
    folder.remove()
    assert names(tmp_path) == [planted.name]
