"""Graphs with and without reshapes that undo each other, computed by onnxruntime."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kronmodel.simplify import merge_reshapes


def graph(*, fold: tuple[int, ...] = (-1, 3, 4), activation: str = "Gelu", keep_flat: bool = False) -> onnx.ModelProto:
    """``x (b, 6)``, folded and multiplied, flattened for a bias and an activation, folded and multiplied again."""
    rng = np.random.default_rng(0)
    constants = {
        "first": rng.normal(size=(3, 2)),
        "second": rng.normal(size=(3, 4)),
        "bias": rng.normal(size=12),
        "third": rng.normal(size=(fold[-1], 5)),
    }
    shapes = {"in_shape": [-1, 2, 3], "flat_shape": [-1, 12], "fold_shape": list(fold)}
    nodes = [
        helper.make_node("Reshape", ["x", "in_shape"], ["folded"]),
        helper.make_node("MatMul", ["first", "folded"], ["left"]),
        helper.make_node("MatMul", ["left", "second"], ["product"]),
        helper.make_node("Reshape", ["product", "flat_shape"], ["flat"]),
        helper.make_node("Add", ["flat", "bias"], ["biased"]),
        helper.make_node(activation, ["biased"], ["active"]),
        helper.make_node("Reshape", ["active", "fold_shape"], ["again"]),
        helper.make_node("MatMul", ["again", "third"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", fold[1], 5])]
    if keep_flat:
        outputs.append(helper.make_tensor_value_info("biased", TensorProto.FLOAT, ["batch", 12]))
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        outputs,
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in shapes.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto) -> Any:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)})


def test_reshapes_that_undo_each_other_go() -> None:
    model = graph()
    want = run(model)
    assert merge_reshapes(model) == 2
    np.testing.assert_allclose(run(model), want, rtol=1e-6)
    assert Counter(node.op_type for node in model.graph.node)["Reshape"] == 1
    assert {each.name for each in model.graph.initializer} == {"first", "second", "bias", "third", "in_shape"}
    assert merge_reshapes(model) == 0


@pytest.mark.parametrize(
    "options", [{"fold": (-1, 6, 2)}, {"keep_flat": True}, {"activation": "Softmax"}], ids=lambda each: next(iter(each))
)
def test_those_that_do_something_stay(options: Any) -> None:
    model = graph(**options)
    before = model.SerializeToString()
    assert merge_reshapes(model) == 0
    assert model.SerializeToString() == before
