"""ml_dtypes, which adds bfloat16 to numpy, is loaded only for models with bfloat16 tensors."""

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


def serve_in_new_process(folder: Path) -> str:
    """The names of the served models, and whether ml_dtypes was loaded for them."""
    command = [sys.executable, "-c", CODE, str(folder)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_ml_dtypes_is_loaded_only_if_a_model_has_bfloat16(tmp_path: Path) -> None:
    publish(tmp_path, "plain", classifier(weights([6, 3])))
    assert serve_in_new_process(tmp_path) == "['plain'] False"
    publish(tmp_path, "half", echo(TensorProto.BFLOAT16, ["batch", 3]))
    assert serve_in_new_process(tmp_path) == "['half', 'plain'] True"
