"""numpy has no bfloat16: what brings it is loaded for models that need it only."""

import subprocess
import sys
from pathlib import Path

from onnx import TensorProto

from tests.app.conftest import environment
from tests.app.graphs import classifier, publish, weights
from tests.app.oip_models import echo

CODE = """
import asyncio, sys
from pathlib import Path
import app.main
from app.models.repository import Repository
from app.settings import Settings
repository = asyncio.run(Repository.load(Settings(models=Path(sys.argv[1]))))
print(list(repository.models), "ml_dtypes" in sys.modules)
"""


def loads_it(folder: Path) -> str:
    command = [sys.executable, "-c", CODE, str(folder)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_ml_dtypes_is_loaded_where_a_model_needs_it(tmp_path: Path) -> None:
    publish(tmp_path, "plain", classifier(weights([6, 3])))
    assert loads_it(tmp_path) == "['plain'] False"
    publish(tmp_path, "half", echo(TensorProto.BFLOAT16, ["batch", 3]))
    assert loads_it(tmp_path) == "['half', 'plain'] True"
