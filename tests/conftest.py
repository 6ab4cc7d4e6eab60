"""Fixtures of the whole suite: the MNIST digits and a twin trained on them; scheduling of tests marked `alone`."""

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
from tests.machine_lock import MachineLock, locked

# Tests of the image and of the wheel need one: `make test-image` and `make test-wheel` build and name them. The
# commands of the pages take minutes: `make test-docs` runs them.
NEEDED = {"image": "KRONMODEL_IMAGE", "package": "KRONMODEL_DIST", "pages": "KRONMODEL_PAGES"}
collect_ignore = [folder for folder, variable in NEEDED.items() if variable not in os.environ]

# A shell that starts the tests in the background makes them ignore SIGINT, and child processes inherit that; some tests
# send SIGINT to child processes.
signal.signal(signal.SIGINT, signal.default_int_handler)

# torch's threads spin while they wait for each other: on busy cores two threads take many times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


_machine = MachineLock()


def _alone(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Run tests marked `alone`, fixtures included, while no other test runs; waiting does not count as test time."""
    with _machine.hold(alone=_alone(item), next_alone=_alone(nextitem)):
        return (yield)


@dataclass(frozen=True)
class Twin:
    """Trained and published twin, with the output of ``kronmodel train --json``."""

    repository: Path
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def mnist_folder() -> Path | None:
    """Folder of the full MNIST, or None where it is not on this machine; tests never download it."""
    return idx.find(idx.MNIST, lambda line: None, mirrors=())


@pytest.fixture(scope="session")
def trained_twin(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path | None) -> Twin:
    """Default twin, trained by the real command for one epoch (20 on the 5,000 fallback digits)."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "twin"
    repository, summary = folder / "models", folder / "summary.json"
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock"):  # one of the test processes trains for all of them
        if not summary.exists():
            data, epochs = ("mnist", 1) if mnist_folder else ("mnist-5k", 20)
            command = [sys.executable, "-m", "kronmodel", "train", "--data", data, "--name", "mnist"]
            command += ["--epochs", str(epochs), "--out", str(repository), "--json"]
            completed = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
            if completed.returncode != 0:
                pytest.fail(f"kronmodel train failed: {completed.stderr}")
            summary.write_text(completed.stdout)
    return Twin(repository=repository, summary=json.loads(summary.read_text()))


@pytest.fixture(scope="session")
def twin_repository(trained_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the default twin's model repository, which the services of this test process may write to."""
    return Path(shutil.copytree(trained_twin.repository, tmp_path_factory.mktemp("services") / "models"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest test first and those marked `alone` last, so that no test process waits idly for another."""
    items.sort(key=lambda item: (item.path.name != "test_paper.py", _alone(item)))
