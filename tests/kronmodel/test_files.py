"""Atomic writes and checks of writability, on a real disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kronmodel.files import (
    FolderLock,
    is_writable_file,
    is_writable_folder,
    sync_folder,
    write_atomically,
    write_synced,
)


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for content in (b"one", b"a longer one"):
        write_atomically(path, content)
        sync_folder(tmp_path)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_synced(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_path_never_holds_a_part_of_the_content(tmp_path: Path) -> None:
    """A reader that has the old file open goes on reading it: it was replaced, not overwritten."""
    path = tmp_path / "last.pt"
    write_atomically(path, b"old", beside=tmp_path / "last.pt.new")
    with path.open("rb") as reader:
        write_atomically(path, b"new", beside=tmp_path / "last.pt.new")
        assert reader.read() == b"old"
        assert os.fstat(reader.fileno()).st_nlink == 0


def test_what_is_writable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert is_writable_folder(tmp_path)
    assert not is_writable_folder(file)
    assert not is_writable_folder(tmp_path / "missing")
    assert is_writable_file(file)
    assert is_writable_file(tmp_path / "new")
    assert not is_writable_file(tmp_path)
    assert not is_writable_file(tmp_path / "missing" / "new")
    assert not is_writable_file(file / "new")


LOCK = """
import sys
from pathlib import Path
from kronmodel.files import FolderLock

try:
    FolderLock(Path(sys.argv[1]))
except BlockingIOError as error:
    sys.exit(f"refused: {error}")
"""

# A process that believes to be on Windows: no fcntl, no folder can be opened, and locks of the C library's kind.
WINDOWS = """
import os, sys, types

def open_file(path, flags, *rest, real=os.open, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real(path, flags, *rest, **options)

import torch, tempfile, onnx, threading  # what is not ours has its own ways on each platform
os.open, sys.platform = open_file, "win32"
sys.modules["fcntl"] = None
sys.modules["msvcrt"] = types.ModuleType("msvcrt")
sys.modules["msvcrt"].LK_NBLCK = 2
sys.modules["msvcrt"].locking = lambda descriptor, mode, size: os.lockf(descriptor, os.F_TLOCK, size)
"""

TRAIN_WINDOWS = """
from kronmodel.files import sync_folder
from kronmodel.training.checkpoint import Checkpoint
from pathlib import Path

sync_folder(Path(sys.argv[1]))
with Checkpoint(Path(sys.argv[1]) / "toy", {}) as checkpoint:
    checkpoint.save(1, lambda: {"weight": torch.ones(2)})
with Checkpoint(Path(sys.argv[1]) / "toy", {}, resume=True) as checkpoint:
    assert torch.equal(checkpoint.load()["weight"], torch.ones(2))
    checkpoint.remove()
"""


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.parametrize("platform", ["", WINDOWS])
def test_one_process_at_a_time_has_the_lock(platform: str, tmp_path: Path) -> None:
    hold = f"{platform}{LOCK}\nlock = FolderLock(Path(sys.argv[1]))\nprint('held', flush=True)\nsys.stdin.read()"
    hold = hold.replace("    FolderLock(Path(sys.argv[1]))\n", "    pass\n")
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = python(platform + LOCK, tmp_path)
        holder.kill()
    assert f"refused: {tmp_path} is locked" in refused.stderr
    assert python(platform + LOCK, tmp_path).returncode == 0


def test_a_lock_that_is_released_leaves_nothing_behind(tmp_path: Path) -> None:
    FolderLock(tmp_path).release()
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_need_no_fcntl(tmp_path: Path) -> None:
    done = python(WINDOWS + TRAIN_WINDOWS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
