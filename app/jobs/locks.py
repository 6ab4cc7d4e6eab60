"""Locks on files beside the store, which the processes of all services on one model repository share."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from app.errors import Conflict
from app.system.files import FileLock


class ExclusiveSlot:
    """A lock across threads and processes, released when its process dies.

    Args:
        path: lock file; None where no other process shares the store.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._thread_lock = threading.Lock()

    @contextlib.contextmanager
    def acquire(self) -> Iterator[None]:
        """Context manager that holds the slot.

        Raises:
            Conflict: a job of any process holds it.
        """
        if not self._thread_lock.acquire(blocking=False):
            raise Conflict("another comparison, sweep or training is running; try again later")
        lock = None if self._path is None or sys.platform == "win32" else FileLock(self._path)
        try:
            if lock is not None and not lock.acquire():
                raise Conflict("another process measures or trains on these models; try again later")
            yield
        finally:
            if lock is not None:
                lock.release()
            self._thread_lock.release()


class UnsavedLock:
    """Lock that a process holds while it has outcomes of jobs in memory that the store could not write.

    Meanwhile no process marks the jobs that seem to be running as failed.

    Args:
        path: lock file; None where no other process shares the store.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._held: FileLock | None = None

    def hold(self) -> None:
        """Acquire the lock, unless another process holds it, which protects the jobs of all."""
        if self._path is not None and self._held is None:
            lock = FileLock(self._path)
            with contextlib.suppress(OSError):  # the file cannot be created on a full disk
                self._held = lock if lock.acquire() else None

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._held is not None and self._path is not None:
            self._path.unlink(missing_ok=True)
            self._held.release()
        self._held = None

    @contextlib.contextmanager
    def absent(self) -> Iterator[None]:
        """Context manager that is entered only if no process holds the lock.

        Raises:
            Conflict: a process holds it.
        """
        if self._path is not None and self._path.exists():
            lock = FileLock(self._path)
            if not lock.acquire():
                raise Conflict("a process has still to write the outcome of a job")
            lock.release()
        yield
