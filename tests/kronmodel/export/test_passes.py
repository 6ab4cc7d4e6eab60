"""Graphs with and without reshapes that undo each other, computed by onnxruntime."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from kronmodel import KroneckerConfig, build
from kronmodel.export.passes import flatten_last, level_products, merge_reshapes, shift_relus, simplify
from kronmodel.export.served_network import export_network


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


def constant(model: onnx.ModelProto, name: str) -> Any:
    return numpy_helper.to_array(next(each for each in model.graph.initializer if each.name == name))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def chain(*steps: tuple[str, Any], width: int = 12) -> onnx.ModelProto:
    """``x (b, 12)`` through nodes of one constant each (``Left`` multiplies from the left), or of none."""
    nodes, constants, at = [], [], "x"
    for index, (kind, value) in enumerate(steps):
        output, inputs = f"y{index}" if index < len(steps) - 1 else "y", [at]
        if value is not None:
            array = np.asarray(value, np.int64 if kind == "Reshape" else np.float32)
            constants.append(numpy_helper.from_array(array, f"c{index}"))
            inputs = [f"c{index}", at] if kind == "Left" else [at, f"c{index}"]
        nodes.append(helper.make_node("MatMul" if kind == "Left" else kind, inputs, [output]))
        at = output
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width]),
    ]
    made = helper.make_graph(nodes, "g", infos[:1], infos[1:], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def relus(*, rng: Any, scale: float = 1.0) -> onnx.ModelProto:
    """A bias and a relu after each of two factors, then a last factor: nothing is square and every bias differs."""
    return chain(
        ("Reshape", [-1, 2, 3]),
        ("Left", rng.normal(size=(8, 2))),
        ("Add", scale * rng.normal(size=(8, 3))),
        ("Relu", None),
        ("Reshape", [-1, 4, 6]),
        ("MatMul", rng.normal(size=(6, 5))),
        ("Add", scale * rng.normal(size=(4, 5))),
        ("Relu", None),
        ("MatMul", rng.normal(size=(5, 3))),
        ("Reshape", [-1, 12]),
        ("Add", rng.normal(size=12)),
    )


def test_a_bias_and_a_relu_become_one_maximum() -> None:
    model = relus(rng=np.random.default_rng(2), scale=0.3)
    want = run(model)
    assert shift_relus(model) == 2
    assert [kind for kind in kinds(model) if kind != "Reshape"] == ["MatMul", "Max", "MatMul", "Max", "MatMul", "Add"]
    np.testing.assert_allclose(run(model), want, rtol=1e-5, atol=1e-5)
    assert shift_relus(model) == 0


def test_a_large_bias_is_not_shifted_for_what_it_would_cost_in_precision() -> None:
    model = relus(rng=np.random.default_rng(2), scale=1000.0)
    assert shift_relus(model) == 0
    model = relus(rng=np.random.default_rng(2), scale=np.nan)
    assert shift_relus(model) == 0


def test_a_relu_that_something_else_than_a_bias_follows_stays() -> None:
    model = chain(("Add", np.ones(6)), ("Relu", None), ("MatMul", np.ones((6, 4))), ("Tanh", None), width=4)
    assert shift_relus(model) == 0


@pytest.mark.parametrize(
    ("folded", "kind", "factor"),
    [((-1, 2, 3), "MatMul", (3, 5)), ((-1, 3, 2), "Left", (5, 3))],
    ids=["from the right", "from the left"],
)
def test_the_last_factor_and_the_bias_become_one_product(folded: Any, kind: str, factor: Any) -> None:
    rng = np.random.default_rng(3)
    model = chain(
        ("Reshape", folded),
        (kind, rng.normal(size=factor)),
        ("Reshape", [-1, 10]),
        ("Add", rng.normal(size=10)),
        width=10,
    )
    want, held = run(model), {each.name: np.prod(each.dims) for each in model.graph.initializer}
    assert flatten_last(model) == 1
    assert kinds(model) == ["Reshape", "Mul", "Flatten", "Gemm"]
    np.testing.assert_allclose(run(model), want, rtol=1e-5, atol=1e-6)
    assert np.prod(constant(model, "c1").shape) == held["c1"]  # not the matrix that it stands for


def test_a_last_factor_behind_a_reshape_to_a_computed_shape_is_fused() -> None:
    rng = np.random.default_rng(5)
    model = chain(
        ("Reshape", [-1, 2, 3]),
        ("MatMul", rng.normal(size=(3, 5))),
        ("Reshape", [-1, 10]),
        ("Add", rng.normal(size=10)),
        width=10,
    )
    reshape = model.graph.node[0]
    rest = numpy_helper.from_array(np.array([2, 3]), "rest")
    model.graph.initializer.append(rest)
    model.graph.node.insert(0, helper.make_node("Shape", [reshape.input[0]], ["rows"], end=1))
    model.graph.node.insert(1, helper.make_node("Concat", ["rows", "rest"], ["computed"], axis=0))
    model.graph.node[2].input[1] = "computed"
    want = run(model)
    assert flatten_last(model) == 1
    np.testing.assert_allclose(run(model), want, rtol=1e-5, atol=1e-6)


def test_a_last_factor_whose_matrix_would_be_large_stays() -> None:
    factor = np.ones((3, 700))
    model = chain(
        ("Reshape", [-1, 2, 3]), ("MatMul", factor), ("Reshape", [-1, 1400]), ("Add", np.ones(1400)), width=1400
    )
    assert flatten_last(model) == 0


def test_factors_on_the_left_get_the_axes_of_what_they_multiply() -> None:
    model = chain(("Reshape", [-1, 2, 3]), ("Left", np.arange(8).reshape(4, 2)), ("Reshape", [-1, 12]))
    want = run(model)
    assert level_products(model) == 1
    assert constant(model, "c1").shape == (1, 4, 2)
    np.testing.assert_array_equal(run(model), want)
    assert level_products(model) == 0


def test_a_constant_that_two_nodes_take_is_changed_for_one_only() -> None:
    """Biases that are all zero are one constant in an exported file."""
    model = graph()
    model.graph.node[4].input[1] = "bias"
    model.graph.node.append(helper.make_node("Add", ["bias", "bias"], ["twice"]))
    model.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, [12]))
    want = run(model)
    assert merge_reshapes(model) == 2
    for got, before in zip(run(model), want, strict=True):
        np.testing.assert_allclose(got, before, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 1},
        {"rank": 3, "order": ("left", "right", "left")},
        {"rank": 2, "order": "right", "hidden": ((6, 4), (6, 4)), "activation": "gelu"},
        {"rank": 2, "in_shape": (3, 4, 2), "hidden": ((2, 3, 4), (3, 2, 2)), "out_shape": (1, 2, 3)},
    ],
    ids=["rank 1", "both orders", "right", "three factors"],
)
def test_exported_networks_compute_the_same(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = {"in_shape": (4, 6), "hidden": ((6, 4), (3, 5)), "out_shape": (2, 3), "activation": "relu"} | options
    network = build(KroneckerConfig(**config))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5)
    x = np.random.default_rng(0).normal(size=(9, 24)).astype(np.float32)
    model = export_network(network, {"versions": {"kronmodel": "0"}}, x)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 9):
        with torch.inference_mode():
            want = network(torch.from_numpy(x[:batch])).numpy()
        np.testing.assert_allclose(session.run(["logits"], {"input": x[:batch]})[0], want, rtol=1e-4, atol=1e-5)
    assert ("Max" in kinds(model)) == (config["activation"] == "relu")
    before = model.SerializeToString()
    simplify(model)
    assert model.SerializeToString() == before  # nothing is left to do
