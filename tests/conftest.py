"""What the whole suite shares: real digits, and a twin that is really trained on them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kronmodel.data import idx
from tests.neighbours import Floor, locked

# A shell that starts the tests in the background has them ignore Ctrl-C, and they would hand that on to the processes
# whose Ctrl-C they test.
signal.signal(signal.SIGINT, signal.default_int_handler)

# torch's threads wait for each other busily: where others need the cores, too, two take many times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


_floor = Floor()


def _alone(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Tests marked `alone` run without a neighbour, their fixtures included; waiting is no part of their time."""
    with _floor.turn(alone=_alone(item), next_alone=_alone(nextitem)):
        return (yield)


@dataclass(frozen=True)
class Twin:
    """A trained and published twin, and what ``kronmodel train --json`` said of it."""

    repository: Path
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def mnist_folder() -> Path | None:
    """The full MNIST, if it is on this machine; the tests never download it."""
    return idx.find(idx.MNIST, lambda line: None, mirrors=())


@pytest.fixture(scope="session")
def trained_twin(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path | None) -> Twin:
    """The default twin, trained for a short while by the real command: enough to know a digit when it sees one."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "twin"
    repository, told = folder / "models", folder / "summary.json"
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock"):  # one of the processes trains, for all of them
        if not told.exists():
            data, epochs = ("mnist", 1) if mnist_folder else ("mnist-5k", 20)
            command = [sys.executable, "-m", "kronmodel", "train", "--data", data, "--name", "mnist"]
            command += ["--epochs", str(epochs), "--out", str(repository), "--json"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
            if done.returncode != 0:
                pytest.fail(f"kronmodel train failed: {done.stderr}")
            told.write_text(done.stdout)
    return Twin(repository=repository, summary=json.loads(told.read_text()))


@pytest.fixture(scope="session")
def twin_repository(trained_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with ``mnist-kronecker`` and ``mnist-dense``, which this process's services may write to."""
    return Path(shutil.copytree(trained_twin.repository, tmp_path_factory.mktemp("services") / "models"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first, those alone last: otherwise one of two processes would wait for the other."""
    items.sort(key=lambda item: (item.path.name != "test_paper.py", _alone(item)))
