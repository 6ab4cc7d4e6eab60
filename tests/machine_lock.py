"""Locks between test processes (`pytest -n 2`): tests that measure time or memory run while no other test runs."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Any two files that all test processes have. Every test holds _RUNNING; who waits for it holds _QUEUE.
_QUEUE, _RUNNING = Path(__file__), Path(__file__).with_name("conftest.py")


class MachineLock:
    """Readers–writer lock: shared by ordinary tests, exclusive to a test that is marked ``alone``."""

    def __init__(self) -> None:
        self._exclusive: IO[bytes] | None = None

    @contextmanager
    def hold(self, *, alone: bool, next_alone: bool) -> Iterator[None]:
        """Hold the lock for one test; between two tests marked ``alone`` of one process it is not released.

        A process that waits for the lock holds the queue: otherwise the other processes, starting one test after the
        other, could keep an exclusive test waiting forever.

        Args:
            alone: hold the lock exclusively.
            next_alone: whether this process's next test needs the lock exclusively.
        """
        running, self._exclusive = self._exclusive, None
        if running is None:
            running = _RUNNING.open("rb")
            with _QUEUE.open("rb") as queue:
                fcntl.flock(queue, fcntl.LOCK_EX)
                fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            if alone and next_alone:
                self._exclusive = running
            else:
                running.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if it is missing."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
