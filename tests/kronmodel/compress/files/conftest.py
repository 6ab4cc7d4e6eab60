"""Fixtures for the tests of the compression of files."""

from pathlib import Path

import numpy as np
import pytest

from tests.kronmodel.compress.files.networks import inputs, network
from tests.kronmodel.compress.onnx_models import run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Samples with the network's own decisions as labels."""
    x = inputs()
    path = tmp_path / "data.npz"
    np.savez(path, x=x, y=run(network(), x=x)[0].argmax(1))
    return path
