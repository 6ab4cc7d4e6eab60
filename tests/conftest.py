"""What the whole suite shares: real digits, and a twin that is really trained on them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kronmodel import idx
from kronmodel.mnist import MNIST

# A shell that starts the tests in the background has them ignore Ctrl-C, and they would hand that on to the processes
# whose Ctrl-C they test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Twin:
    """A trained and published twin, and what ``kronmodel train --json`` said of it."""

    repository: Path
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def mnist_folder() -> Path | None:
    """The full MNIST, if it is on this machine; the tests never download it."""
    return idx.find(MNIST, lambda line: None, mirrors=())


@pytest.fixture(scope="session")
def trained_twin(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path | None) -> Twin:
    """The default twin, trained for a short while by the real command: enough to know a digit when it sees one."""
    repository = tmp_path_factory.mktemp("twin") / "models"
    data, epochs = ("mnist", 3) if mnist_folder else ("mnist-5k", 20)
    command = [sys.executable, "-m", "kronmodel.cli", "train", "--data", data, "--name", "mnist"]
    command += ["--epochs", str(epochs), "--out", str(repository), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=dict(os.environ))
    if done.returncode != 0:
        pytest.fail(f"kronmodel train failed: {done.stderr}")
    return Twin(repository=repository, summary=json.loads(done.stdout))


@pytest.fixture(scope="session")
def twin_repository(trained_twin: Twin) -> Path:
    """The model repository with ``mnist-kronecker`` and ``mnist-dense``."""
    return trained_twin.repository
