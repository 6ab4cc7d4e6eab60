"""Atomic file writes, syncing to disk, locks of folders between processes, and checks that a path is writable."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = [
    "FolderLock", "is_writable_file", "is_writable_folder", "staged_file", "sync_folder", "write_atomically",
    "write_synced",
]  # fmt: skip


def write_synced(path: Path, content: bytes | memoryview) -> None:
    """Write a file, and wait until its content is on the disk (fsync)."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes | memoryview, *, beside: Path | None = None) -> None:
    """Create or replace a file atomically: even after a crash, it has either its old or its new content.

    Until :func:`sync_folder` is called, a crash may undo the creation or the replacement.

    Args:
        path: path of the file.
        content: new content.
        beside: path of the temporary file, in the same folder; by default hidden, with a random name.

    Raises:
        OSError: the file can't be written; its old content is unchanged.
    """
    beside = beside or path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_synced(beside, content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def staged_file(path: Path) -> Iterator[IO[str]]:
    """Open a text file that appears at its path only if a ``with`` block ends without an error.

    Raises:
        OSError: the file can't be written; the old content of the path is unchanged.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the entries of a folder are on the disk (fsync); does nothing on Windows, which can't open folders."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderLock:
    """Exclusive lock on a folder between processes, held until it is released or the process ends.

    On POSIX systems the folder itself is locked, and nothing is written. On Windows a file ``.lock`` in the folder is
    locked, and deleted on release.

    Args:
        folder: an existing folder.

    Attributes:
        file: the lock file on Windows, else None.

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
        os.close(self._descriptor)  # closing the descriptor releases the lock
        if self.file is not None:
            try:
                self.file.unlink(missing_ok=True)
            except PermissionError:  # another process has opened the file in the meantime
                return


def is_writable_folder(folder: Path) -> bool:
    """Tell whether files can be created in a folder, without writing anything."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def is_writable_file(path: Path) -> bool:
    """Tell whether a file can be created or replaced at a path, without writing anything."""
    return not path.is_dir() and is_writable_folder(path.absolute().parent)
