"""The state of versions merged over workers, and the unloaded models that they share."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.models.worker_state import UnloadedModels, VersionStatus, WorkerState
from app.system.pidfiles import state_file
from tests.app.conftest import environment

ONE, TWO = ("m", "1"), ("m", "2")


def write_state(folder: Path, pid: int, **states: str) -> None:
    """Write the file of another worker with the states of versions of the model m."""
    entries = [["m", version[1:], {"state": state, "reason": ""}] for version, state in states.items()]
    state_file(folder, pid).write_text(json.dumps({"change": 0, "failures": {}, "versions": entries}))


def test_a_single_worker() -> None:
    state = WorkerState()
    state[ONE] = VersionStatus("READY")
    assert state.merged() == {ONE: VersionStatus("READY")}
    assert state.count_ready(ONE) == 1
    del state[ONE]
    assert state.merged() == {}
    assert state.count_ready(ONE) == 0


def test_the_worst_state_of_several_workers_counts(tmp_path: Path) -> None:
    state = WorkerState(tmp_path)
    state[ONE] = VersionStatus("READY")
    state[TWO] = VersionStatus("UNAVAILABLE", "not an ONNX file")
    own = state_file(tmp_path, os.getpid())
    assert json.loads(own.read_text())["versions"][1] == [
        "m",
        "2",
        {"state": "UNAVAILABLE", "reason": "not an ONNX file"},
    ]
    write_state(tmp_path, 1, v1="READY", v2="READY")
    write_state(tmp_path, 2, v1="READY", v3="READY")
    assert state.merged() == {
        ONE: VersionStatus("READY"),
        TWO: VersionStatus("UNAVAILABLE", "in 1 of 3 workers: not an ONNX file"),
        ("m", "3"): VersionStatus("UNAVAILABLE", "in 2 of 3 workers: not loaded"),
    }
    assert state.count_ready(ONE) == 3
    write_state(tmp_path, 2, v1="LOADING", v2="UNAVAILABLE")
    state_file(tmp_path, 1).unlink()  # the worker died
    assert state.merged()[ONE] == VersionStatus("LOADING", "in 1 of 2 workers")
    assert state.count_ready(ONE) == 1


CHILD = """
import sys
from pathlib import Path
from app.models.worker_state import UnloadedModels
unloaded = UnloadedModels(Path(sys.argv[1]))
for number in range(200):
    unloaded.add(sys.argv[2])
    assert sys.argv[2] in unloaded.names, number
    unloaded.discard(sys.argv[2])
    assert sys.argv[2] not in unloaded.names, number
unloaded.add(sys.argv[2])
"""


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """The SIGHUPs that this process gets in place of the workers' parent."""
    received: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
    yield received
    signal.signal(signal.SIGHUP, before)


def test_concurrent_workers_do_not_lose_changes(tmp_path: Path, signals: list[int]) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), name], env=environment())
        for name in ("a", "b", "c")
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    assert UnloadedModels(tmp_path).names == {"a", "b", "c"}
    assert signals


def test_a_single_worker_sends_no_signal(signals: list[int]) -> None:
    unloaded = UnloadedModels()
    unloaded.add("a")
    unloaded.add("b")
    unloaded.discard("a")
    assert unloaded.names == {"b"}
    assert not signals
