from pathlib import Path

import pytest

from tests.app.scheduling import publish_models


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of `tests.app.scheduling`."""
    folder = tmp_path_factory.mktemp("scheduled")
    publish_models(folder)
    return folder
