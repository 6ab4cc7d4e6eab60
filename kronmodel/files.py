"""Atomic file writes, syncing to disk, locks of folders between processes, and checks that a path is writable."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FolderLock", "is_writable_file", "is_writable_folder", "sync_folder", "write_atomically", "write_synced"]


def write_synced(path: Path, content: bytes | memoryview) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes | memoryview, *, beside: Path | None = None) -> None:
    """Create or replace a file: at any moment, even after a crash, the path has its old content or the new one.

    The name in the folder may be lost by a crash until :func:`sync_folder` is called.

    Args:
        path: of the file.
        content: the new content.
        beside: temporary file in the same folder; by default a hidden one with a random name.

    Raises:
        OSError: the file can't be written; its old content is still there.
    """
    beside = beside or path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_synced(beside, content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Windows, which opens no folders, does this by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderLock:
    """An exclusive lock of a folder among processes, held until it is released or the process ends.

    Where folders can be locked themselves nothing is written; on Windows a file ``.lock`` in the folder is locked, and
    removed when it is released.

    Args:
        folder: an existing folder.

    Attributes:
        file: the file that stands for the folder on Windows, else None.

    Raises:
        BlockingIOError: another process, or this one, already holds the lock.
        OSError: the folder can't be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.file: Path | None = None
        if sys.platform == "win32":
            self.file = folder / ".lock"
            self._descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT)
        else:
            self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            self._acquire()
        except OSError as error:
            os.close(self._descriptor)
            raise BlockingIOError(f"{folder} is locked") from error

    def _acquire(self) -> None:
        if sys.platform == "win32":
            msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)  # which releases it
        if self.file is not None:
            try:
                self.file.unlink(missing_ok=True)
            except PermissionError:  # another process has it open by now
                return


def is_writable_folder(folder: Path) -> bool:
    """Whether files can be created in a folder. Nothing is written."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def is_writable_file(path: Path) -> bool:
    """Whether a file can be created or replaced at a path. Nothing is written."""
    return not path.is_dir() and is_writable_folder(path.absolute().parent)
