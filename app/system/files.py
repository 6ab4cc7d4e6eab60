"""File locks, fingerprints, space on disks, and private temporary folders that outlive no process."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:
    # Windows. Without fork the service has no worker processes there, so locks between processes do nothing.
    LOCKS_SUPPORTED = False
else:
    LOCKS_SUPPORTED = True

LOCK_NAME = "lock"
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)


class FileLock:
    """Exclusive advisory lock on a file; the system releases it when the process that holds it ends.

    Without `fcntl` (on Windows) nothing is locked, and acquiring always succeeds.

    Args:
        path: file to lock; created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Acquire the lock without waiting; False if another process holds it."""
        file = self._path.open("ab")
        if LOCKS_SUPPORTED:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return False
        self._file = file
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file, as `FileLock` does, inside a `with` block; waits while another process holds it."""
    with path.open("ab") as file:
        if LOCKS_SUPPORTED:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fingerprint(path: Path) -> tuple[int, ...]:
    """Size, modification time, inode and device of a file, one of which changes when the file does.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def reserve_space(path: Path, start: int, end: int) -> None:
    """Reserve space on the disk for the bytes from `start` to `end` of a file, which read as 0 and are still unused.

    Raises:
        OSError: the disk is full.
    """
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), start, end - start)
        else:  # macOS
            file.seek(start)
            file.write(bytes(end - start))


def describe_disk_error(error: OSError, folder: Path, cure: str) -> str:
    """Describe an error of a file for the log.

    Args:
        error: the error.
        folder: folder of the file.
        cure: what to do about a full disk.
    """
    if error.errno in DISK_FULL_ERRORS:
        return f"the disk is full: {folder}; {cure}"
    return f"{folder}: {error.strerror or error}"


class PrivateFolder:
    """Temporary folder that only this user can read. All methods block.

    Args:
        prefix: start of the folder's name; folders of other kinds in `parent` must not use it.
        parent: folder to create it in; default: the system's folder for temporary files.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        self._prefix = prefix
        self._parent = parent
        self._lock: FileLock | None = None
        self._made = False
        self.path: Path

    def make(self) -> None:
        """Create the folder, and remove folders with this prefix whose process was killed: their locks are free.

        Raises:
            OSError: the folder cannot be created.
        """
        parent = self._parent or Path(tempfile.gettempdir())
        if LOCKS_SUPPORTED:
            for old in parent.glob(f"{self._prefix}*"):
                with suppress(OSError):  # another process is removing it
                    _remove_abandoned(old)
        self.path = Path(tempfile.mkdtemp(prefix=self._prefix, dir=parent))
        self._made = True
        if LOCKS_SUPPORTED:
            # Renamed only once it is held: a process that looks for abandoned folders never finds it free.
            unseen = self.path / f".{LOCK_NAME}"
            self._lock = FileLock(unseen)
            self._lock.acquire()
            unseen.rename(self.path / LOCK_NAME)

    def remove(self) -> None:
        """Remove the folder, if it was created."""
        if self._made:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def _remove_abandoned(folder: Path) -> None:
    """Remove a folder whose lock is free.

    Links and other users' folders stay: any user may create files in the system's temporary folder.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    if not (folder / LOCK_NAME).exists():
        return  # its process is still creating it
    lock = FileLock(folder / LOCK_NAME)
    if lock.acquire():
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
