"""The example of Triton's config.pbtxt: valid by the schema of Triton's client, and with the tensors of its twin."""

import importlib.util
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import tritonclient
from google.protobuf import text_format

from app.models.triton_config import read_config
from tests.conftest import Twin

EXAMPLE = Path(__file__).parents[2] / "deploy" / "triton" / "config.pbtxt"
TYPES = {"TYPE_FP32": "tensor(float)"}


@pytest.fixture(scope="module")
def schema() -> Any:
    """Module of `model_config.proto`, loaded from its file: the package around it needs grpc."""
    path = Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_is_valid_and_describes_the_twin(schema: Any, trained_twin: Twin) -> None:
    config = text_format.Parse(EXAMPLE.read_text(), schema.ModelConfig())
    session = onnxruntime.InferenceSession(
        trained_twin.repository / config.name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for described, tensors in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        found = [(each.name, TYPES[schema.DataType.Name(each.data_type)], list(each.dims)) for each in described]
        assert found == [(tensor.name, tensor.type, tensor.shape[1:]) for tensor in tensors]
    assert config.HasField("dynamic_batching")
    for wrong in ("max_batch_sise: 1", "input [{ data_type: FP32 }]", "instance_group [{ kind: CPU }]"):
        with pytest.raises(text_format.ParseError):
            text_format.Parse(wrong, schema.ModelConfig())


def test_kronserve_reads_the_example_as_triton_does(schema: Any) -> None:
    config = text_format.Parse(EXAMPLE.read_text(), schema.ModelConfig())
    read = read_config(EXAMPLE.parent)
    assert read.max_batch_size == config.max_batch_size
    assert read.batch_axis
    assert read.why_alone() is None
