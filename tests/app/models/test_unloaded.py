"""Which models were unloaded, as the workers of one service tell each other."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.models.worker_state import UnloadedModels
from tests.app.conftest import environment

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
