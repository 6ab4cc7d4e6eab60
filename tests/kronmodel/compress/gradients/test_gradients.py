"""ONNX graphs in torch: against onnxruntime, operator by operator, and the tuning of their weights."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from kronmodel.compress.gradients.module import GraphModule
from kronmodel.compress.gradients.operators import OPERATORS
from kronmodel.compress.gradients.tuning import Pair, with_weights
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.errors import KronmodelError
from tests.kronmodel.compress.onnx_models import Array, make_model, run, save

node = helper.make_node
rng = np.random.default_rng(5)
MATRIX = rng.standard_normal((6, 4)).astype(np.float32)
ROW = rng.standard_normal(6).astype(np.float32)

# Each operator: inputs after the first one, and attributes.
CASES: list[tuple[str, list[Array], dict[str, Any]]] = [
    ("Add", [ROW], {}),
    ("Cast", [], {"to": onnx.TensorProto.DOUBLE}),
    ("Clip", [np.array(-0.3, np.float32), np.array(0.7, np.float32)], {}),
    ("Div", [np.abs(ROW) + 1], {}),
    ("Dropout", [], {}),
    ("Elu", [], {"alpha": 0.7}),
    ("Erf", [], {}),
    ("Exp", [], {}),
    ("Flatten", [], {"axis": 0}),
    ("Gelu", [], {}),
    ("Gelu", [], {"approximate": "tanh"}),
    ("Gemm", [MATRIX, ROW[:4]], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", [np.ascontiguousarray(MATRIX.T)], {"transB": 1}),
    ("HardSigmoid", [], {"alpha": 0.3}),
    ("HardSwish", [], {}),
    ("Identity", [], {}),
    ("LeakyRelu", [], {"alpha": 0.2}),
    ("LogSoftmax", [], {}),
    ("MatMul", [MATRIX], {}),
    ("Mul", [ROW], {}),
    ("Neg", [], {}),
    ("Relu", [], {}),
    ("Reshape", [np.array([0, 2, -1])], {}),
    ("Selu", [], {}),
    ("Sigmoid", [], {}),
    ("Softmax", [], {"axis": -1}),
    ("Softplus", [], {}),
    ("Softsign", [], {}),
    ("Sub", [ROW], {}),
    ("Tanh", [], {}),
    ("Transpose", [], {}),
]


@pytest.mark.parametrize(("op_type", "others", "attributes"), CASES)
def test_operators_compute_what_onnxruntime_computes(
    op_type: str, others: list[Array], attributes: dict[str, Any]
) -> None:
    names = [f"c{place}" for place in range(len(others))]
    model = make_model(
        [node(op_type, ["x", *names], ["y"], **attributes)],
        dict(zip(names, map(np.asarray, others), strict=True)),
        ["batch", 6],
        opset=20,
        ir=9,
    )
    if op_type == "Cast":
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    x = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    module = GraphModule(model, numpy_helper.to_array, "y", lambda name: False)
    found = module(torch.from_numpy(x)).numpy()
    want = run(model, x=x)[0]
    assert found.dtype == want.dtype
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_every_operator_is_compared() -> None:
    # The two that are not defined for all numbers are compared in the test below.
    assert {case[0] for case in CASES} | {"Pow", "Sqrt"} == set(OPERATORS)


def test_a_subgraph_of_positive_numbers() -> None:
    nodes = [node("Pow", ["x", "two"], ["s"]), node("Sqrt", ["s"], ["y"])]
    model = make_model(nodes, {"two": np.array(2, np.float32)}, ["batch", 3], opset=17)
    x = np.array([[-1.5, 0.25, 3]], np.float32)
    module = GraphModule(model, numpy_helper.to_array, "y", lambda name: False)
    np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), np.abs(x))


def network(weights: dict[str, Array], activation: str = "Tanh") -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["x", "a"], ["h"]),
        node(activation, ["h"], ["t"], "the activation"),
        node("Gemm", ["t", "b", "c"], ["y"]),
    ]
    return make_model(nodes, weights, ["batch", 6], opset=17)


def samples_of(x: Array) -> Samples:
    return Samples(
        arrays={"x": x}, constant={}, batch=32, fixed=False, by_call=False, labels=None, task=None, origin="a test"
    )


def weights() -> dict[str, Array]:
    own = np.random.default_rng(2)
    shapes = {"a": (6, 8), "b": (8, 3), "c": (3,)}
    return {name: own.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_tuning_brings_the_new_weights_near_the_outputs_of_the_original(tmp_path: Path) -> None:
    original = weights()
    noise = np.random.default_rng(4).standard_normal((6, 8)).astype(np.float32)
    changed = network({"new": original["a"] + 0.2 * noise, **{name: original[name] for name in ("b", "c")}})
    changed.graph.node[0].input[1] = "new"
    x = np.random.default_rng(3).standard_normal((700, 6)).astype(np.float32)
    with Workspace(save(network(original), tmp_path)) as workspace:
        pair = Pair(workspace, changed, samples_of(x))
        assert set(pair.student.weights) == {"new"}
        assert pair.tune(200) > 0
        tuned = with_weights(workspace, changed, pair.student.weights)
    want = run(network(original), x=x)[0]
    errors = [float(np.square(run(model, x=x)[0] - want).mean()) for model in (changed, tuned)]
    assert errors[1] < 0.3 * errors[0]
    for before, after in zip(changed.graph.initializer, tuned.graph.initializer, strict=True):
        assert (before == after) == (before.name != "new")


def test_unknown_operators_are_refused_by_name(tmp_path: Path) -> None:
    model = network(weights(), "Sin")
    with Workspace(save(model, tmp_path)) as workspace, pytest.raises(KronmodelError, match="Sin 'the activation'"):
        Pair(workspace, model, samples_of(np.ones((64, 6), np.float32)))
