"""What is ready in one worker is not ready before it is so in all of them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.models.worker_state import Status, UnloadedModels, WorkerState
from app.system.pidfiles import state_file
from tests.app.conftest import environment

ONE, TWO = ("m", "1"), ("m", "2")


def tell(folder: Path, pid: int, **states: str) -> None:
    """Another worker says how versions of m stand."""
    entries = [["m", version[1:], {"state": state, "reason": ""}] for version, state in states.items()]
    state_file(folder, pid).write_text(json.dumps(entries))


def test_alone() -> None:
    standing = WorkerState()
    standing[ONE] = Status("READY")
    assert standing.merged() == {ONE: Status("READY")}
    assert standing.count_ready(ONE) == 1
    del standing[ONE]
    assert standing.merged() == {}
    assert standing.count_ready(ONE) == 0


def test_several_workers(tmp_path: Path) -> None:
    standing = WorkerState(tmp_path)
    standing[ONE] = Status("READY")
    standing[TWO] = Status("UNAVAILABLE", "not an ONNX file")
    own = state_file(tmp_path, os.getpid())
    assert json.loads(own.read_text())[1] == ["m", "2", {"state": "UNAVAILABLE", "reason": "not an ONNX file"}]
    tell(tmp_path, 1, v1="READY", v2="READY")
    tell(tmp_path, 2, v1="READY", v3="READY")
    assert standing.merged() == {
        ONE: Status("READY"),
        TWO: Status("UNAVAILABLE", "in 1 of 3 workers: not an ONNX file"),
        ("m", "3"): Status("UNAVAILABLE", "in 2 of 3 workers: not loaded"),
    }
    assert standing.count_ready(ONE) == 3
    tell(tmp_path, 2, v1="LOADING", v2="UNAVAILABLE")
    state_file(tmp_path, 1).unlink()  # it has died
    assert standing.merged()[ONE] == Status("LOADING", "in 1 of 2 workers")
    assert standing.count_ready(ONE) == 1


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
def told() -> Iterator[list[int]]:
    """The signals that the workers' parent has got: this process stands for it."""
    got: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: got.append(number))
    yield got
    signal.signal(signal.SIGHUP, before)


def test_what_one_worker_changes_no_other_undoes(tmp_path: Path, told: list[int]) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), name], env=environment())
        for name in ("a", "b", "c")
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    assert UnloadedModels(tmp_path).names == {"a", "b", "c"}
    assert told


def test_alone_nobody_is_told(told: list[int]) -> None:
    unloaded = UnloadedModels()
    unloaded.add("a")
    unloaded.add("b")
    unloaded.discard("a")
    assert unloaded.names == {"b"}
    assert not told
