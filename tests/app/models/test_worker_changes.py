"""A load and an unload are answered once every worker has applied them, or with the reason why one has not."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.errors import NotReady
from app.models.worker_changes import WorkerChanges
from app.models.worker_state import UnloadedModels, WorkerState
from app.system.pidfiles import state_file

OTHERS = (1, 2)


@pytest.fixture(autouse=True)
def no_signal() -> Iterator[None]:
    """Ignore the SIGHUP that goes to the parent of the workers, which is the parent of this process here."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def changes_of(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> WorkerChanges:
    monkeypatch.setattr(os, "getppid", os.getpid)
    return WorkerChanges(WorkerState(folder), UnloadedModels(folder), folder, seconds)


def report(folder: Path, pid: int, change: int | None, **failures: str) -> None:
    """Write the report of another worker."""
    state_file(folder, pid).write_text(json.dumps({"change": change, "failures": failures, "versions": []}))


def test_a_load_waits_for_every_worker_that_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = changes_of(tmp_path, monkeypatch, seconds=60)
    for pid in OTHERS:
        report(tmp_path, pid, 0)
    report(tmp_path, 3, None)  # a worker that is starting

    async def load() -> list[bool]:
        number = changes.load("m")
        waiting = asyncio.create_task(changes.wait(number, "m", "loaded"))
        seen = []
        steps: list[Callable[[], None]] = [
            lambda: report(tmp_path, 1, number),
            lambda: report(tmp_path, 2, number + 1, other="bad"),
            lambda: state_file(tmp_path, 3).unlink(),  # the worker died
        ]
        for apply in steps:
            await asyncio.sleep(0.1)
            seen.append(waiting.done())
            apply()
        await asyncio.wait_for(waiting, timeout=30)
        return seen

    assert asyncio.run(load()) == [False, False, False]


def test_a_worker_that_failed_or_is_late_is_the_reason_in_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = changes_of(tmp_path, monkeypatch, seconds=0.1)
    number = changes.load("m")
    report(tmp_path, 1, number)
    report(tmp_path, 2, number, m="out of memory")
    with pytest.raises(NotReady, match="m is loaded, but not in 1 of 3 workers: out of memory"):
        asyncio.run(changes.wait(number, "m", "loaded"))
    report(tmp_path, 2, number - 1)
    with pytest.raises(NotReady, match=r"m is unloaded, but not in 1 of 3 workers within 0.1 s \(KRON_LOAD_SECONDS\)"):
        asyncio.run(changes.wait(number, "m", "unloaded"))


def test_a_shared_folder_that_cannot_be_written_to_is_reported_before_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    changes = changes_of(shared, monkeypatch, seconds=1)
    shared.rename(tmp_path / "gone")
    for call in (changes.check, changes.load, changes.unload):
        with pytest.raises(NotReady, match="folder for temporary files cannot be written to") as caught:
            call("m")
        assert str(tmp_path) not in str(caught.value)
