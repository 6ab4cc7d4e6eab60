"""Files that store integers: the C code keeps them, and their ranges of activations."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kronmodel.errors import ExportError
from kronmodel.export.c.formats import write_source
from kronmodel.export.c.integer_steps import QuantizedBranches, quantize_network
from kronmodel.export.c.model import CModel
from kronmodel.native.quantize import Range
from tests.kronmodel.export.c.graphs import Graph, outputs_of
from tests.kronmodel.export.c.programs import predictions
from tests.kronmodel.export.c.test_integers import forward, probabilities, quantized_inputs

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def stored(name: str, levels: Any, steps: Any, bits: int, natural: tuple[int, ...], target: tuple[int, ...]) -> Any:
    """Return the nodes and initializers of a weight: levels, steps in half precision, reshapes."""
    kind = {8: TensorProto.INT8, 4: TensorProto.INT4}[bits]
    constants = [
        helper.make_tensor(f"{name}.levels", kind, levels.shape, levels.ravel().tolist()),
        helper.make_tensor(f"{name}.steps", TensorProto.FLOAT16, steps.shape, steps.astype(np.float16)
                           .ravel().tolist()),
        helper.make_tensor(f"{name}.natural", TensorProto.INT64, [len(natural)], natural),
        helper.make_tensor(f"{name}.target", TensorProto.INT64, [len(target)], target),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Cast", [f"{name}.steps"], [f"{name}.s"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", [f"{name}.levels", f"{name}.s"], [f"{name}.d"], axis=0),
        helper.make_node("Reshape", [f"{name}.d", f"{name}.natural"], [f"{name}.r"]),
    ]
    return nodes, constants


def save(path: Path, rng: np.random.Generator, *, ranges: bool) -> dict[str, Any]:
    """Write a classifier of a Kronecker layer (4 bits) and a dense one (8 bits); return its integers."""
    (n1, n2), (m1, m2), r = (4, 6), (3, 5), 2
    made = {
        "a": (rng.integers(-7, 8, (r * m1, n1)), rng.uniform(0.05, 0.1, r * m1)),
        "b": (rng.integers(-7, 8, (r * m2, n2)), rng.uniform(0.05, 0.1, r * m2)),
        "w": (rng.integers(-127, 128, (3, m1 * m2)), rng.uniform(0.005, 0.01, 3)),
    }
    made = {key: (levels, steps.astype(np.float16)) for key, (levels, steps) in made.items()}
    nodes: list[Any] = []
    constants: list[Any] = []
    for key, bits, natural, target in (
        ("a", 4, (r, m1, n1), (1, m1 * r, n1)), ("b", 4, (r, m2, n2), (r * n2, m2)), ("w", 8, (3, 15), (3, 15)),
    ):  # fmt: skip
        more, tensors = stored(key, *made[key], bits, natural, target)
        nodes, constants = nodes + more, constants + tensors
    nodes += [
        helper.make_node("Transpose", ["a.r"], ["a.t"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["a.t", "a.target"], ["a"]),
        helper.make_node("Transpose", ["b.r"], ["b.t"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["b.t", "b.target"], ["b"]),
    ]
    constants += [
        helper.make_tensor(name, TensorProto.INT64, [len(shape)], shape)
        for name, shape in (("matrix", (-1, n1, n2)), ("middle", (-1, m1, r * n2)), ("flat", (-1, m1 * m2)))
    ]
    steps = {"x": 0.02, "h": 0.03, "y": 0.05}
    constants += [helper.make_tensor(f"{key}.scale", TensorProto.FLOAT, [], [step]) for key, step in steps.items()]
    constants.append(helper.make_tensor("zero", TensorProto.UINT8, [], [128]))

    def ranged(name: str, key: str) -> str:
        if not ranges:
            return name
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{key}.scale", "zero"], [f"{name}.q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", f"{key}.scale", "zero"], [f"{name}.x"]))
        return f"{name}.x"

    nodes.append(helper.make_node("Reshape", [ranged("input", "x"), "matrix"], ["x"]))
    nodes.append(helper.make_node("MatMul", ["a", "x"], ["z"]))
    nodes.append(helper.make_node("Gelu", ["z"], ["h"]))
    nodes.append(helper.make_node("Reshape", [ranged("h", "h"), "middle"], ["h2"]))
    nodes.append(helper.make_node("MatMul", ["h2", "b"], ["y"]))
    nodes.append(helper.make_node("Relu", ["y"], ["y2"]))
    nodes.append(helper.make_node("Reshape", [ranged("y2", "y"), "flat"], ["y3"]))
    nodes.append(helper.make_node("Gemm", ["y3", "w.r"], ["logits"], transB=1))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
              for name, size in (("input", n1 * n2), ("probabilities", 3))]  # fmt: skip
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return made


@pytest.mark.parametrize("ranges", [True, False])
def test_integers_and_ranges_are_those_of_the_file(ranges: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    path = tmp_path / "net.onnx"
    made = save(path, rng, ranges=ranges)
    model = CModel.read(path)
    assert model.network is not None, model.reason
    x = rng.normal(0, 0.8, (300, 24)).astype(np.float32)
    if not ranges:
        np.savez(tmp_path / "samples.npz", inputs=x)
    network = quantize_network(model.network, model.samples, 8)
    first, second = network.parts
    assert isinstance(first, QuantizedBranches)
    assert not isinstance(second, QuantizedBranches)
    for found, key in ((first.u, "a"), (first.v, "b"), (second.weight, "w")):
        levels, steps = made[key]
        np.testing.assert_array_equal(found.values.reshape(levels.shape), levels)
        np.testing.assert_allclose(found.steps.reshape(-1), steps)
    assert (first.u.bits, first.v.bits, second.weight.bits, network.bits) == (4, 4, 8, (8, 4))
    if ranges:
        given = [first.ranges.given, *first.ranges.hidden, first.ranges.result]
        assert [each.zero for each in given] == [128] * 4
        np.testing.assert_allclose([each.scale for each in given], [0.02, 0.03, 0.03, 0.05], rtol=1e-6)
    else:
        assert first.ranges.given == Range.of(x)
    labels, out = predictions(tmp_path / "c", write_source(model, "net", None), x, 3)
    expected = outputs_of(path, x)["probabilities"]
    assert np.mean(labels == expected.argmax(1)) >= 0.98
    # With the file's ranges, rounding is all that differs: a few steps of an activation at most.
    assert np.abs(out - expected).mean() < (0.005 if ranges else 0.03)


def save_convolutions(path: Path, rng: np.random.Generator, *, ranges: bool) -> dict[str, Any]:
    """Write a classifier of a convolution with max-pooling and a Kronecker layer, of 4 bits; return its integers."""
    filters, (n1, n2), (m1, m2), r = 6, (8, 9), (2, 3), 2
    graph = Graph(rng, 2, 5, 7)
    made: dict[str, Any] = {}

    def weight(key: str, rows: int, columns: int, *natural: int, perm: tuple[int, ...] = ()) -> str:
        levels, steps = rng.integers(-7, 8, (rows, columns)), rng.uniform(0.05, 0.1, rows).astype(np.float16)
        made[key] = levels, steps
        nodes, constants = stored(key, levels, steps, 4, natural, natural)
        graph.nodes += nodes
        graph.constants += constants
        return graph.node("Transpose", f"{key}.r", perm=perm) if perm else f"{key}.r"

    def ranged(step: float) -> None:
        if ranges:
            scale, zero = graph.constant(np.array(step, np.float32)), graph.constant(np.array(128, np.uint8))
            graph.at = graph.node("DequantizeLinear", graph.node("QuantizeLinear", graph.at, scale, zero), scale, zero)

    kernel = weight("w", filters, 2 * 2 * 2, filters, 2, 2, 2)
    first = graph.node(
        "Reshape", weight("a", r * m1, n1, r, m1, n1, perm=(1, 0, 2)), graph.constant(np.array([1, m1 * r, n1]))
    )
    second = graph.node(
        "Reshape", weight("b", r * m2, n2, r, m2, n2, perm=(0, 2, 1)), graph.constant(np.array([r * n2, m2]))
    )
    ranged(0.02)
    graph.at = graph.node("Conv", graph.at, kernel, graph.normal(filters, fan=9), kernel_shape=(2, 2))
    graph.activate("relu")
    ranged(0.03)
    graph.at = graph.node("MaxPool", graph.at, kernel_shape=(2, 1), strides=(2, 1))
    graph.shape = (filters, 2, 6)
    graph.matrix(n1, n2)
    graph.at = graph.node("MatMul", first, graph.at)
    graph.activate("tanh")
    ranged(0.01)
    graph.at = graph.node("MatMul", graph.reshape(graph.at, m1, r * n2), second)
    graph.at = graph.reshape(graph.at, m1 * m2)
    graph.shape = (m1 * m2,)
    graph.classify()
    graph.save(path, (2, 5, 7))
    return made


@pytest.mark.parametrize("ranges", [True, False])
def test_convolutions_and_a_kronecker_head_keep_their_integers(ranges: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    path = tmp_path / "net.onnx"
    made = save_convolutions(path, rng, ranges=ranges)
    model = CModel.read(path)
    assert model.network is not None, model.reason
    x = rng.normal(0, 0.8, (300, 2, 5, 7)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", inputs=x)
    network = quantize_network(model.network, model.samples, 8)
    convolution, head = network.parts
    assert isinstance(head, QuantizedBranches)
    assert not isinstance(convolution, QuantizedBranches)
    for found, key in ((convolution.weight, "w"), (head.u, "a"), (head.v, "b")):
        levels, steps = made[key]
        np.testing.assert_array_equal(found.values.reshape(levels.shape), levels)
        np.testing.assert_allclose(found.steps.reshape(-1), steps)
    assert network.bits == (4,)
    if ranges:
        given = [network.given, head.ranges.given, *head.ranges.hidden]
        np.testing.assert_allclose([each.scale for each in given], [0.02, 0.03, 0.01, 0.01], rtol=1e-6)
    labels, out = predictions(tmp_path / "c", write_source(model, "net", None), x, 6)
    z = forward(network, quantized_inputs(model, network.given, x))
    np.testing.assert_array_equal(labels, z.argmax(1))
    np.testing.assert_array_equal(out, probabilities(z, network.fraction))
    assert np.abs(out - outputs_of(path, x)["probabilities"]).mean() < (0.005 if ranges else 0.03)


def test_bits_are_those_of_the_file(tmp_path: Path) -> None:
    save(tmp_path / "net.onnx", np.random.default_rng(2), ranges=True)
    model = CModel.read(tmp_path / "net.onnx")
    with pytest.raises(ExportError, match=r"net\.onnx stores its weights as integers already: leave out --bits"):
        write_source(model, "net", 8)
