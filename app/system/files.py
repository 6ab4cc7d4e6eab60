"""Lock files and private temporary folders, both released when their process dies."""

import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

LOCK = "lock"  # held for as long as the folder is needed


class PrivateFolder:
    """A folder that is nobody else's, until it is removed. Every method blocks.

    Args:
        prefix: of its name; no other folders there have it.
        parent: where it is; by default where the system has what is temporary.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        self._prefix = prefix
        self._parent = parent
        self._lock: Lock | None = None
        self._made = False
        self.path: Path

    def make(self) -> None:
        """Make it, and remove those of processes that were killed: nobody has the lock of theirs.

        Raises:
            OSError: it cannot be made.
        """
        parent = self._parent or Path(tempfile.gettempdir())
        if sys.platform != "win32":
            for old in parent.glob(f"{self._prefix}*"):
                with suppress(OSError):  # somebody else removes it
                    _remove_abandoned(old)
        self.path = Path(tempfile.mkdtemp(prefix=self._prefix, dir=parent))
        self._made = True
        if sys.platform != "win32":
            self._lock = Lock(self.path / f".{LOCK}")
            self._lock.acquire()
            (self.path / f".{LOCK}").rename(self.path / LOCK)  # now that nobody can find it free

    def remove(self) -> None:
        """Remove it, if it was made."""
        if self._made:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def _remove_abandoned(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return  # a link, or another user's: everybody may write where things are temporary
    if not (folder / LOCK).exists():
        return  # it is being made
    lock = Lock(folder / LOCK)
    if lock.acquire():
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


class Lock:
    """An advisory lock on a file; whoever does not get it does not wait."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Whether it was free, and is now ours."""
        import fcntl  # not on Windows, where there are no workers to share anything with

        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Free it for others."""
        if self._file is not None:
            self._file.close()
            self._file = None
