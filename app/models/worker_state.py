"""How the models stand, in this worker and in all of them."""

import json
import os
import signal
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from app.system.pidfiles import state_file

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
Key: TypeAlias = tuple[str, str]  # name and version


@dataclass(frozen=True, slots=True)
class Status:
    """How one version stands, and why."""

    state: State
    reason: str = ""


# What is not ready in one worker is not ready; of several reasons for that, the first of these is told.
_ORDER: tuple[State, ...] = ("LOADING", "UNLOADING", "UNAVAILABLE", "READY")
_UNKNOWN = Status("UNAVAILABLE", "not loaded")


class WorkerState(UserDict[Key, Status]):
    """Versions and how they stand in this process, which the other workers are told at every change.

    Args:
        folder: of all workers of this service; None where there is one only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else state_file(folder, os.getpid())
        super().__init__()

    def __setitem__(self, key: Key, status: Status) -> None:
        super().__setitem__(key, status)
        self._tell()

    def __delitem__(self, key: Key) -> None:
        super().__delitem__(key)
        self._tell()

    def everywhere(self) -> dict[Key, Status]:
        """In all workers: ready is only what is ready in each of them."""
        workers = [self.data, *self._others()]
        keys = dict.fromkeys(key for worker in workers for key in worker)
        return {key: _common([worker.get(key, _UNKNOWN) for worker in workers]) for key in keys}

    def ready(self, key: Key) -> int:
        """How many workers have a version in service."""
        return sum(worker.get(key, _UNKNOWN).state == "READY" for worker in (self.data, *self._others()))

    def _tell(self) -> None:
        if self._path is None:
            return
        entries = [[*key, asdict(status)] for key, status in self.data.items()]
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(entries))
        beside.replace(self._path)

    def _others(self) -> Iterator[Mapping[Key, Status]]:
        if self._path is None:
            return
        for path in sorted(self._path.parent.glob(f"*{self._path.suffix}")):
            if path == self._path:
                continue
            try:
                entries = json.loads(path.read_text())
            except FileNotFoundError:  # its worker has just died
                continue
            yield {(name, version): Status(**status) for name, version, status in entries}


def _common(each: list[Status]) -> Status:
    worst = min(each, key=lambda status: _ORDER.index(status.state))
    share = sum(status == worst for status in each)
    if share == len(each):
        return worst
    where = f"in {share} of {len(each)} workers"
    return Status(worst.state, f"{where}: {worst.reason}" if worst.reason else where)


class UnloadedModels:
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
