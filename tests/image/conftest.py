"""Fixtures of the image's tests: a twin that any user of a container may read, and Chromium."""

import shutil
from pathlib import Path

import pytest

from tests.browser.conftest import browser, playwright, visitor
from tests.conftest import Twin

__all__ = ["browser", "playwright", "visitor"]


@pytest.fixture(scope="session")
def models(trained_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model repository with the twin, which containers of all users can read, and none can write to."""
    return copy_models(trained_twin.repository, tmp_path_factory.mktemp("image") / "models")


def copy_models(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in target.parents[:3]:  # of pytest, for one user only
        parent.chmod(0o755)
    return target
