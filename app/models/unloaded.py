"""The models that were unloaded by request: in memory, or in a file that the workers of one service share."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path


class Unloaded:
    """A set of names; between workers, whoever changes it has the others look at the repository again.

    Args:
        folder: of all workers of this service; None where there is one only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else folder / "unloaded.json"
        self._names: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """The names now."""
        if self._path is not None:
            try:
                self._names = frozenset(json.loads(self._path.read_text()))
            except FileNotFoundError:
                self._names = frozenset()
        return self._names

    def add(self, name: str) -> None:
        """It was unloaded."""
        self._change(lambda names: names | {name})

    def discard(self, name: str) -> None:
        """It was loaded."""
        self._change(lambda names: names - {name})

    def _change(self, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
        if self._path is None:
            self._names = change(self._names)
            return
        import fcntl  # not on Windows, where there are no workers to share anything with

        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it, for as long as it takes to write a line
            beside = self._path.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(sorted(change(self.names))))
            beside.replace(self._path)
        os.kill(os.getppid(), signal.SIGHUP)  # the parent passes it on to all workers
