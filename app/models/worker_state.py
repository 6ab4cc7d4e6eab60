"""The state of each model version in every worker process, and the models that were unloaded, shared by files."""

import json
import logging
import os
import signal
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from app.system.files import locked
from app.system.pidfiles import describe_shared_error, state_file

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

FOLDER_UNREADABLE = "the folder of models cannot be read; see the service's log"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class WorkerReport:
    """What one worker publishes about itself.

    Attributes:
        versions: the status of each version.
        change: number of the last change of the served models that the worker has applied; None before it has loaded
            its models for the first time.
        failures: the reasons for which the worker could not load models at that change, by name; under the empty name
            the reason for which it could not read the folder.
    """

    versions: dict[VersionKey, VersionStatus] = field(default_factory=dict)
    change: int | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The report as JSON."""
        versions = [[*key, asdict(status)] for key, status in self.versions.items()]
        return json.dumps({"change": self.change, "failures": self.failures, "versions": versions})

    @classmethod
    def from_json(cls, text: str) -> "WorkerReport":
        """Read the JSON of `to_json`."""
        content: dict[str, Any] = json.loads(text)
        versions = {(name, version): VersionStatus(**status) for name, version, status in content["versions"]}
        return cls(versions, content["change"], content["failures"])


class WorkerState(UserDict[VersionKey, VersionStatus]):
    """The status of each version in this worker, written to a file for the other workers at every change.

    A file that cannot be written, because the disk is full, is written again by `flush`.

    Args:
        folder: shared by the workers of a service; None for a single worker.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else state_file(folder, os.getpid())
        self._unwritten = False
        super().__init__()
        self._report = WorkerReport(self.data)
        self.write()

    def __setitem__(self, key: VersionKey, status: VersionStatus) -> None:
        super().__setitem__(key, status)
        self._try_to_write()

    def __delitem__(self, key: VersionKey) -> None:
        super().__delitem__(key)
        self._try_to_write()

    @contextmanager
    def applying(self, change: int) -> Iterator[dict[str, str]]:
        """Report at the end of a `with` block that this worker has applied a change of the served models.

        Args:
            change: number of the change, read before the block reads the folder of models.

        Yields:
            The reasons for which models could not be loaded, by name, which the block fills in.
        """
        failures: dict[str, str] = {}
        try:
            yield failures
        except Exception:  # of any kind: the other workers must not take this change for applied; it is raised again
            failures[""] = FOLDER_UNREADABLE
            raise
        finally:
            self._report.change, self._report.failures = change, failures
            self._try_to_write()

    def count_pending(self, change: int) -> int:
        """Number of other workers that have not applied a change yet, those that are starting included."""
        return sum(report.change is None or report.change < change for report in self._others())

    def failures_of_others(self, name: str) -> list[str]:
        """The reasons for which other workers could not load a model at their last change."""
        found = (report.failures.get(name) or report.failures.get("") for report in self._others())
        return [reason for reason in found if reason]

    def count_workers(self) -> int:
        """Number of workers, this one included."""
        return 1 + len(self._others())

    def flush(self) -> None:
        """Write the file again if it could not be written."""
        if self._unwritten:
            self._try_to_write()

    def merged(self) -> dict[VersionKey, VersionStatus]:
        """The status of each version in all workers; a version is ready only if it is ready in every worker.

        A worker that has loaded nothing yet does not count: it accepts no connections, unless all are starting.
        """
        others = (report.versions for report in self._others() if report.versions or report.change is not None)
        workers = [self.data, *others]
        keys = dict.fromkeys(key for worker in workers for key in worker)
        return {key: _merge([worker.get(key, _NOT_LOADED) for worker in workers]) for key in keys}

    def count_ready(self, key: VersionKey) -> int:
        """Number of workers in which a version is ready."""
        workers = [self.data, *(report.versions for report in self._others())]
        return sum(worker.get(key, _NOT_LOADED).state == "READY" for worker in workers)

    def write(self) -> None:
        """Write the file for the other workers.

        Raises:
            OSError: it cannot be written; the other workers still read the one before.
        """
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_text(self._report.to_json())
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)  # a part of it may occupy the last free space
            raise
        self._unwritten = False

    def _try_to_write(self) -> None:
        try:
            self.write()
        except OSError as error:
            if self._path is not None and not self._unwritten:
                why = describe_shared_error(error, self._path.parent)
                log.error("the other workers do not learn of this worker's models: %s", why)
            self._unwritten = True

    def _others(self) -> list[WorkerReport]:
        """Read the reports of the other workers."""
        reports = []
        for path in sorted(self._path.parent.glob(f"*{self._path.suffix}")) if self._path else ():
            if path != self._path:
                with suppress(FileNotFoundError):  # the worker died meanwhile
                    reports.append(WorkerReport.from_json(path.read_text()))
        return reports


def _merge(statuses: list[VersionStatus]) -> VersionStatus:
    worst = min(statuses, key=lambda status: _WORST_FIRST.index(status.state))
    count = sum(status == worst for status in statuses)
    if count == len(statuses):
        return worst
    where = f"in {count} of {len(statuses)} workers"
    return VersionStatus(worst.state, f"{where}: {worst.reason}" if worst.reason else where)


class UnloadedModels:
    """The names of the models that were unloaded by request, kept in a file that all workers share.

    Changes are numbered. Each one signals the parent process, which has every worker refresh its repository.

    Args:
        folder: shared by the workers of a service; None for a single worker.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else folder / "unloaded.json"
        self._change = 0
        self._names: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Names of the unloaded models."""
        self._read()
        return self._names

    @property
    def change(self) -> int:
        """Number of the last change; 0 before the first one."""
        self._read()
        return self._change

    def add(self, name: str) -> int:
        """Add the name of an unloaded model; returns the number of the change."""
        return self._apply(lambda names: names | {name})

    def discard(self, name: str) -> int:
        """Remove the name of a model that was loaded; returns the number of the change."""
        return self._apply(lambda names: names - {name})

    def _read(self) -> None:
        if self._path is not None and self._path.exists():
            content = json.loads(self._path.read_text())
            self._change, self._names = content["change"], frozenset(content["names"])

    def _apply(self, change: Callable[[frozenset[str]], frozenset[str]]) -> int:
        """Change the names.

        Raises:
            OSError: the file cannot be written; the names are unchanged.
        """
        if self._path is None:
            self._change, self._names = self._change + 1, change(self._names)
            return self._change
        with locked(self._path.with_suffix(".lock")):
            number, names = self.change + 1, sorted(change(self.names))
            temporary = self._path.with_suffix(f".{os.getpid()}")
            try:
                temporary.write_text(json.dumps({"change": number, "names": names}))
                temporary.replace(self._path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        os.kill(os.getppid(), signal.SIGHUP)  # the parent forwards it to all workers
        return number
