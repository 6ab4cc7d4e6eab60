"""A twin whose process is killed while it publishes is published once, by the run that resumes it."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_iris

from kronmodel.export.card import read_card
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.twin import Twin, train_twin
from tests.app.conftest import environment

NAMES = ("flowers-kronecker", "flowers-dense")
# Kills its process before the second of the two renames.
SCRIPT = """
import os, sys
from tests.kronmodel.test_killed_twin import train
renames = 0
def count(event, arguments):
    global renames
    if event == "os.rename" and ".publishing-" in str(arguments[0]):
        renames += 1
        if renames == 2:
            os.kill(os.getpid(), 9)
sys.addaudithook(count)
train(sys.argv[1])
"""


def train(out: str, **options: Any) -> Twin:
    iris = load_iris()
    return train_twin(
        {"x": iris.data.astype(np.float32), "y": iris.target},
        name="flowers",
        out=out,
        network={"hidden": ((4, 5),), "rank": 2},
        training={"epochs": 1, "batch_size": 50},
        threads=1,
        **options,
    )


def runs(folder: Path, name: str) -> list[str]:
    """The identities of the trainings of a model's versions."""
    cards = [read_card(onnx.load(path)) for path in sorted((folder / name).glob("*/model.onnx"))]
    return [card["training"]["run"] for card in cards if card is not None]


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_twin_that_is_killed_while_it_is_published_is_completed_and_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    root = Path(__file__).parents[2]
    assert subprocess.run(command, env=environment(), cwd=root, timeout=200, check=False).returncode == -signal.SIGKILL
    assert [len(runs(tmp_path, name)) for name in NAMES] == [1, 0]

    remove = Checkpoint.remove
    removed: list[Checkpoint] = []

    def interrupted(self: Checkpoint) -> None:
        if removed:
            raise SystemExit(143)
        removed.append(self)
        remove(self)

    with monkeypatch.context() as patch:  # stopped once more, between the removals of the checkpoints
        patch.setattr(Checkpoint, "remove", interrupted)
        with pytest.raises(SystemExit):
            train(str(tmp_path), resume=True)
    (first,), (second,) = runs(tmp_path, NAMES[0]), runs(tmp_path, NAMES[1])
    assert first == second
    assert [path.parent.name for path in tmp_path.rglob("last.pt")] == [NAMES[1]]

    twin = train(str(tmp_path), resume=True)
    assert [each.path for each in twin.published] == [tmp_path / name / "1" / "model.onnx" for name in NAMES]
    assert [runs(tmp_path, name) for name in NAMES] == [[first], [first]]
    assert hidden(tmp_path) == []
