"""What is ready in one worker is not ready before it is so in all of them."""

import json
import os
from pathlib import Path

from app.models.worker_state import Status, WorkerState
from app.system.pidfiles import state_file

ONE, TWO = ("m", "1"), ("m", "2")


def tell(folder: Path, pid: int, **states: str) -> None:
    """Another worker says how versions of m stand."""
    entries = [["m", version[1:], {"state": state, "reason": ""}] for version, state in states.items()]
    state_file(folder, pid).write_text(json.dumps(entries))


def test_alone() -> None:
    standing = WorkerState()
    standing[ONE] = Status("READY")
    assert standing.everywhere() == {ONE: Status("READY")}
    assert standing.ready(ONE) == 1
    del standing[ONE]
    assert standing.everywhere() == {}
    assert standing.ready(ONE) == 0


def test_several_workers(tmp_path: Path) -> None:
    standing = WorkerState(tmp_path)
    standing[ONE] = Status("READY")
    standing[TWO] = Status("UNAVAILABLE", "not an ONNX file")
    own = state_file(tmp_path, os.getpid())
    assert json.loads(own.read_text())[1] == ["m", "2", {"state": "UNAVAILABLE", "reason": "not an ONNX file"}]
    tell(tmp_path, 1, v1="READY", v2="READY")
    tell(tmp_path, 2, v1="READY", v3="READY")
    assert standing.everywhere() == {
        ONE: Status("READY"),
        TWO: Status("UNAVAILABLE", "in 1 of 3 workers: not an ONNX file"),
        ("m", "3"): Status("UNAVAILABLE", "in 2 of 3 workers: not loaded"),
    }
    assert standing.ready(ONE) == 3
    tell(tmp_path, 2, v1="LOADING", v2="UNAVAILABLE")
    state_file(tmp_path, 1).unlink()  # it has died
    assert standing.everywhere()[ONE] == Status("LOADING", "in 1 of 2 workers")
    assert standing.ready(ONE) == 1
