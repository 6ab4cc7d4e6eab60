"""A lock between processes, which the system takes back from one that dies."""

from pathlib import Path
from typing import IO


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
