from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.errors import InputsRefused, ModelError
from app.inference.datatypes import DTYPES
from app.inference.engine import Engine
from tests.app import oip_models
from tests.app.graphs import Array, classifier, forward, model, probabilities, publish, weights

LAYERS = weights([6, 8, 3])
ROWS: Array = np.random.default_rng(0).random((5, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("datatype", "name", "tolerance"),
    [(TensorProto.FLOAT, "FP32", 1e-5), (TensorProto.DOUBLE, "FP64", 1e-5), (TensorProto.FLOAT16, "FP16", 5e-3)],
)
def test_run_agrees_with_numpy_in_every_float_type(tmp_path: Path, datatype: int, name: str, tolerance: float) -> None:
    engine = Engine(publish(tmp_path, "m", classifier(LAYERS, datatype=datatype)), device="cpu", threads=1)
    assert engine.inputs[0].datatype == name
    assert engine.inputs[0].shape == (-1, 6)
    assert engine.provider == "CPUExecutionProvider"
    outputs = engine.run({"input": ROWS.astype(DTYPES[name])})
    np.testing.assert_allclose(outputs["logits"], forward(LAYERS, ROWS), atol=tolerance)
    np.testing.assert_allclose(
        engine.run({"input": ROWS.astype(DTYPES[name])}, ["probabilities"])["probabilities"],
        probabilities(LAYERS, ROWS),
        atol=tolerance,
    )
    assert engine.run({"input": ROWS.astype(DTYPES[name])}, ["probabilities"]).keys() == {"probabilities"}


def test_warm_up_runs_a_dynamic_batch_and_a_fixed_batch(tmp_path: Path) -> None:
    dynamic = Engine(publish(tmp_path, "dynamic", classifier(LAYERS)), device="auto", threads=2)
    assert dynamic.warm_up(max_batch=1024)["logits"].shape == (32, 3)
    assert dynamic.warm_up(max_batch=8)["logits"].shape == (8, 3)
    fixed = Engine(publish(tmp_path, "fixed", classifier(LAYERS, batch=4)), device="cpu", threads=1)
    assert fixed.warm_up(max_batch=1024)["logits"].shape == (4, 3)


def drop_first_row() -> onnx.ModelProto:
    """All rows but the first."""
    return oip_models.graph(
        [helper.make_node("Slice", ["x", "one", "end"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 2])],
        [("y", TensorProto.FLOAT, ["rest", 2])],
        {"one": np.array([1]), "end": np.array([2**31])},
    )


@pytest.mark.parametrize(
    ("made", "batchable"),
    [
        (classifier(LAYERS), True),
        (classifier(LAYERS, batch=4), False),
        (oip_models.two(), True),
        (oip_models.lookup(), False),  # a single axis
        (oip_models.echo(TensorProto.STRING, ["batch", 3]), True),
        (oip_models.echo(TensorProto.FLOAT, [None, None]), True),
        (oip_models.echo(TensorProto.FLOAT, [5]), False),
        (oip_models.echo(TensorProto.INT32, []), False),
        (oip_models.outer(), False),  # two free first axes of different sizes
        (oip_models.centred(), False),  # rows that depend on each other
        (drop_first_row(), False),  # fewer output rows than input rows
    ],
)
def test_a_model_is_batchable_only_if_its_rows_are_independent(
    tmp_path: Path, made: onnx.ModelProto, batchable: bool
) -> None:
    engine = Engine(publish(tmp_path, "m", made), device="cpu", threads=1)
    engine.warm_up(max_batch=16)
    assert engine.batchable == batchable


def test_a_model_that_fails_on_made_up_inputs_runs_requests_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "thousand"], ["large"]),
        helper.make_node("Cast", ["large"], ["indices"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "indices"], ["y"]),  # a table of two entries
    ]
    specs: list[oip_models.Spec] = [(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    constants = {"thousand": np.array(1000, np.float32), "table": np.array([7, 8], np.float32)}
    made = oip_models.graph(nodes, specs[:1], specs[1:], constants)
    engine = Engine(publish(tmp_path, "m", made), device="cpu", threads=1)
    assert engine.warm_up(max_batch=16) == {}
    assert engine.has_batch_axis
    assert not engine.batchable
    assert engine.joining.reason.startswith("its run on made-up inputs failed: ")
    np.testing.assert_array_equal(engine.run({"x": np.array([[0, 0.001, 0]], np.float32)})["y"], [[7, 8, 7]])


def test_onnxruntimes_error_is_reported_in_one_line_without_the_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="onnxruntime refuses it: ") as caught:
        Engine(publish(tmp_path, "bad", b"not a model"), device="cpu", threads=1)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def later_opset(made: onnx.ModelProto) -> None:
    made.opset_import[0].version = 99


def later_format(made: onnx.ModelProto) -> None:
    made.ir_version = 99


def unknown_operator(made: onnx.ModelProto) -> None:
    made.graph.node[0].op_type = "MatMad"


def third_factor(made: onnx.ModelProto) -> None:
    made.graph.node[0].input.append("input")


@pytest.mark.parametrize(
    ("change", "reason", "cure"),
    [
        (later_format, "Unsupported model IR version: 99", "for an older opset, or update onnxruntime"),
        (later_opset, "is under development", "for an older opset, or update onnxruntime"),
        (unknown_operator, "No Op registered for MatMad", "again"),
        (third_factor, "has input size 3 not in range", "again"),
    ],
)
def test_onnxruntimes_reason_is_reported_with_a_cure_and_without_its_source(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], reason: str, cure: str
) -> None:
    """onnxruntime's own text begins with C++ signatures of hundreds of characters."""
    made = classifier(weights([6, 3]))
    change(made)
    with pytest.raises(ModelError, match="onnxruntime refuses it: ") as caught:
        Engine(publish(tmp_path, "bad", made), device="cpu", threads=1)
    assert reason in str(caught.value)
    assert f": export the model {cure}" in str(caught.value)
    assert "onnxruntime::" not in str(caught.value)
    assert ".cc:" not in str(caught.value)


def reshaped(rows: int) -> onnx.ModelProto:
    """A model whose graph fixes the number of rows, as an export that was traced with them."""
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["out"])]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 4])
    result = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 12])
    return model(nodes, given, [result], [numpy_helper.from_array(np.array([rows, 12]), "shape")])


def test_a_batch_other_than_the_one_in_the_graph_is_refused_with_the_cure(tmp_path: Path) -> None:
    engine = Engine(publish(tmp_path, "fixed", reshaped(1)), device="cpu", threads=1)
    engine.warm_up(max_batch=8)
    inputs = np.arange(36, dtype=np.float32).reshape(3, 3, 4)
    expected = (
        r"inputs: the model fails on 'input' of shape \[3, 3, 4\], and runs on \[1, 3, 4\]: send inputs of such "
        r"shapes, in several requests, or export the model without fixed sizes: onnxruntime failed: .*Reshape"
    )
    with pytest.raises(InputsRefused, match=expected):
        engine.run({"input": inputs})
    np.testing.assert_array_equal(engine.run({"input": inputs[1:2]})["out"], inputs[1:2].reshape(1, 12))


def test_a_model_that_has_run_on_no_inputs_yet_may_have_failed_itself(tmp_path: Path) -> None:
    engine = Engine(publish(tmp_path, "fixed", reshaped(2)), device="cpu", threads=1)
    engine.warm_up(max_batch=8)
    with pytest.raises(ModelError) as caught:
        engine.run({"input": np.zeros((3, 3, 4), np.float32)})
    assert type(caught.value) is ModelError
    assert engine.run({"input": np.zeros((2, 3, 4), np.float32)})["out"].shape == (2, 12)
