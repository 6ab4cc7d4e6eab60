"""The state of each model version in every worker process, and the models that were unloaded, shared by files."""

import json
import os
import signal
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from app.system.files import locked
from app.system.pidfiles import state_file

VersionState = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
VersionKey: TypeAlias = tuple[str, str]  # name and version


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The state of a version in one worker or in all, and the reason for it."""

    state: VersionState
    reason: str = ""


# From worst to best: the state of a version in all workers is its worst one.
_WORST_FIRST: tuple[VersionState, ...] = ("LOADING", "UNLOADING", "UNAVAILABLE", "READY")
_NOT_LOADED = VersionStatus("UNAVAILABLE", "not loaded")


class WorkerState(UserDict[VersionKey, VersionStatus]):
    """The status of each version in this worker, written to a file for the other workers at every change.

    Args:
        folder: shared by the workers of a service; None for a single worker.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else state_file(folder, os.getpid())
        super().__init__()

    def __setitem__(self, key: VersionKey, status: VersionStatus) -> None:
        super().__setitem__(key, status)
        self._write()

    def __delitem__(self, key: VersionKey) -> None:
        super().__delitem__(key)
        self._write()

    def merged(self) -> dict[VersionKey, VersionStatus]:
        """The status of each version in all workers; a version is ready only if it is ready in every worker."""
        workers = [self.data, *self._others()]
        keys = dict.fromkeys(key for worker in workers for key in worker)
        return {key: _merge([worker.get(key, _NOT_LOADED) for worker in workers]) for key in keys}

    def count_ready(self, key: VersionKey) -> int:
        """Number of workers in which a version is ready."""
        return sum(worker.get(key, _NOT_LOADED).state == "READY" for worker in (self.data, *self._others()))

    def _write(self) -> None:
        if self._path is None:
            return
        entries = [[*key, asdict(status)] for key, status in self.data.items()]
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(entries))
        temporary.replace(self._path)

    def _others(self) -> Iterator[Mapping[VersionKey, VersionStatus]]:
        if self._path is None:
            return
        for path in sorted(self._path.parent.glob(f"*{self._path.suffix}")):
            if path == self._path:
                continue
            try:
                entries = json.loads(path.read_text())
            except FileNotFoundError:  # the worker died meanwhile
                continue
            yield {(name, version): VersionStatus(**status) for name, version, status in entries}


def _merge(statuses: list[VersionStatus]) -> VersionStatus:
    worst = min(statuses, key=lambda status: _WORST_FIRST.index(status.state))
    count = sum(status == worst for status in statuses)
    if count == len(statuses):
        return worst
    where = f"in {count} of {len(statuses)} workers"
    return VersionStatus(worst.state, f"{where}: {worst.reason}" if worst.reason else where)


class UnloadedModels:
    """The names of the models that were unloaded by request, kept in a file that all workers share.

    A change signals the parent process, which has every worker refresh its repository.

    Args:
        folder: shared by the workers of a service; None for a single worker.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else folder / "unloaded.json"
        self._names: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Names of the unloaded models."""
        if self._path is not None:
            try:
                self._names = frozenset(json.loads(self._path.read_text()))
            except FileNotFoundError:
                self._names = frozenset()
        return self._names

    def add(self, name: str) -> None:
        """Add the name of an unloaded model."""
        self._change(lambda names: names | {name})

    def discard(self, name: str) -> None:
        """Remove the name of a model that was loaded."""
        self._change(lambda names: names - {name})

    def _change(self, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
        if self._path is None:
            self._names = change(self._names)
            return
        with locked(self._path.with_suffix(".lock")):
            temporary = self._path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(sorted(change(self.names))))
            temporary.replace(self._path)
        os.kill(os.getppid(), signal.SIGHUP)  # the parent forwards it to all workers
