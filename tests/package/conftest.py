"""Fixtures of the package's tests: the built files, environments with the wheel, and Chromium."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import browser, playwright, visitor
from tests.dependencies.pins import ROOT

__all__ = ["browser", "playwright", "visitor"]

INSTALL_SECONDS = 1200  # PyTorch, on a slow network


def clean_environment() -> dict[str, str]:
    """Return the environment without what makes Python find the source tree."""
    return {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }


def run(*command: str | Path, folder: Path, seconds: float = 300) -> str:
    """Run a command outside the source tree, and return its standard output."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, check=False, cwd=folder, env=clean_environment()
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
    return done.stdout


def built(pattern: str) -> Path:
    """Return the only file in $KRONMODEL_DIST of a pattern."""
    (found,) = (ROOT / os.environ["KRONMODEL_DIST"]).glob(pattern)
    return found


@pytest.fixture(scope="session")
def wheel() -> Path:
    return built("kronmodel-*.whl")


@pytest.fixture(scope="session")
def sdist() -> Path:
    return built("kronmodel-*.tar.gz")


@pytest.fixture(scope="session")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function that installs the wheel with extras such as ``[train]`` in an environment, and returns its programs."""

    def install(extras: str) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
        programs = folder / "venv/bin"
        pip = (programs / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
        run(*pip, f"{wheel}{extras}", folder=folder, seconds=INSTALL_SECONDS)
        return programs

    return install
