"""Quantised weights are made floats when a session is opened, where the file says so."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.inference.onnx_file import OnnxFile
from app.inference.session import open_session

LEVELS = np.random.default_rng(0).integers(-8, 8, (5, 7)).astype(np.int8)
STEPS = np.linspace(0.1, 0.5, 5).astype(np.float16)


def save(path: Path, metadata: dict[str, str]) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["steps"], ["scales"], to=TensorProto.FLOAT),
            helper.make_node("DequantizeLinear", ["levels", "scales"], ["rows"], axis=0),
            helper.make_node("Transpose", ["rows"], ["weight"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "weight"], ["y"]),
        ],
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [
            helper.make_tensor("levels", TensorProto.INT4, (5, 7), LEVELS.ravel().tolist()),
            numpy_helper.from_array(STEPS, "steps"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("metadata", "folded"),
    [
        ({"kronmodel.folded_weights": "1"}, True),
        ({"kronmodel": "{}", "kronmodel.folded_weights": "1"}, True),
        ({"kronmodel.folded_weights": "0"}, False),
        ({"other": "1"}, False),
        ({}, False),
    ],
)
def test_the_metadata_decide(metadata: dict[str, str], folded: bool, tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", metadata)
    assert OnnxFile.read(path).folded_weights is folded
    session = open_session(str(path), device="cpu", threads=1)
    options = session.get_session_options()
    key = "session.disable_quant_qdq"
    try:
        disabled = options.get_session_config_entry(key) == "1"
    except RuntimeError:  # the entry is missing
        disabled = False
    assert disabled is folded
    x = np.random.default_rng(1).random((3, 7), np.float32)
    expected = x @ (LEVELS * STEPS.astype(np.float32)[:, None]).T
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5)
