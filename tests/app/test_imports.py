"""The packages that each process imports: the service no torch, a measuring process numpy and onnxruntime only."""

import json
import subprocess
import sys

import pytest


def loaded_by(module: str) -> set[str]:
    script = f"import json, sys, {module}; print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "module",
    [
        "app.main",
        "app.server.server",
        "app.cli.main",
        "app.measure.comparison",
        "app.measure.sweep",
        "app.training.run",
    ],
)
def test_the_service_loads_neither_torch_nor_kronmodel_nor_onnx(module: str) -> None:
    assert not loaded_by(module) & {"torch", "kronmodel", "onnx", "plotly", "fastapi_offline"}


@pytest.mark.parametrize(
    "module", ["app.measure.children.session", "app.measure.children.delayed", "app.training.child"]
)
def test_a_measuring_process_loads_numpy_and_onnxruntime_only(module: str) -> None:
    own = {"app", "numpy", "onnxruntime", "cython_runtime"}  # the last one is what numpy's extensions make
    rest = loaded_by(module) - loaded_by("sys") - set(sys.stdlib_module_names) - own
    assert not {name for name in rest if not name.startswith("_")}


@pytest.mark.parametrize("module", ["app.oip.request", "app.oip.response", "app.oip.signature", "app.oip.metadata"])
def test_the_protocols_codec_loads_no_onnxruntime(module: str) -> None:
    assert not loaded_by(module) & {"onnxruntime", "onnx", "fastapi", "uvicorn"}
