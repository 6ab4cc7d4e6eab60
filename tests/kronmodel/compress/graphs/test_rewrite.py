"""Replaced layers: onnxruntime on the new graph against numpy with the matrix that the factors imply."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kronmodel.compress.graphs.emit import can_emit
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.structures import dense, kronecker, low_rank, monarch
from kronmodel.errors import KronmodelError
from tests.kronmodel.compress.onnx_models import Array, layers_of, make_model, random_fit, replaced, run, save

RNG = np.random.default_rng(0)
OUT, IN = 60, 84
WEIGHT = RNG.standard_normal((OUT, IN)).astype(np.float32)
BIAS = RNG.standard_normal(OUT).astype(np.float32)
STRUCTURES = [
    dense(IN, OUT), low_rank(IN, OUT, 5), kronecker((12, 7), (5, 12), 3), kronecker((6, 14), (10, 6), 1),
    kronecker((3, 28), (30, 2), 4), monarch((12, 7), (5, 12), 2),
]  # fmt: skip
VERSIONS = [(7, 3), (11, 4), (17, 8), (24, 13)]  # of the operators and of the format
node = helper.make_node
Oracle = Callable[[Array, Array, Array | float], Array]

CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, Array], list[int | str], tuple[int, ...], Oracle, bool]] = {
    "Gemm": (
        [node("Gemm", ["x", "w", "b"], ["y"], "layer", alpha=0.5, beta=2.0, transB=1)],
        {"w": WEIGHT, "b": BIAS}, ["n", IN], (5, IN), lambda m, x, d: 0.5 * (x @ m.T) + 2 * BIAS + 0.5 * d, True,
    ),
    "Gemm of a transposed input": (
        [node("Gemm", ["x", "w", "b"], ["y"], transA=1)],
        {"w": WEIGHT.T, "b": BIAS[None]}, [IN, "n"], (IN, 5), lambda m, x, d: x.T @ m.T + BIAS + d, True,
    ),
    "MatMul and Add": (
        [node("MatMul", ["x", "w"], ["h"]), node("Add", ["b", "h"], ["y"])],
        {"w": WEIGHT.T, "b": BIAS}, ["n", "t", IN], (3, 4, IN), lambda m, x, d: x @ m.T + BIAS + d, True,
    ),
    "MatMul": (
        [node("MatMul", ["x", "w"], ["y"])],
        {"w": WEIGHT.T}, ["n", IN], (3, IN), lambda m, x, d: x @ m.T, False,
    ),
    "MatMul with the weight first": (
        [node("MatMul", ["w", "x"], ["y"])],
        {"w": WEIGHT}, ["n", IN, "t"], (3, IN, 7), lambda m, x, d: m @ x, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("opset", "ir"), VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_each_node_in_each_structure(case: str, opset: int, ir: int, tmp_path: Path) -> None:
    nodes, weights, x_shape, shape, oracle, has_bias = CASES[case]
    path = save(make_model(nodes, weights, x_shape, opset=opset, ir=ir), tmp_path)
    with Workspace(path) as workspace:
        _, (layer,), _ = layers_of(workspace)
        possible = [each for each in STRUCTURES if can_emit(layer.uses[0], each)]
    assert len(possible) >= 2
    x = RNG.standard_normal(shape).astype(np.float32)
    for structure in possible:
        for bias in [None, RNG.standard_normal(OUT)] if has_bias else [None]:
            fit = random_fit(structure, bias)
            model = replaced(path, fit)
            onnx.checker.check_model(model, full_check=True)
            np.testing.assert_allclose(
                run(model, x=x)[0], oracle(fit.matrix(), x, 0.0 if bias is None else bias), atol=2e-4
            )
            names = {each.name for each in model.graph.initializer}
            assert "w" not in names
            assert ("b" in names) == (has_bias and bias is None)
            assert [entry.version for entry in model.opset_import] == [opset]
            listed = {each.name for each in model.graph.input}
            assert listed == ({"x"} | names if ir <= 3 else {"x"})


def test_the_dynamic_batch_stays(tmp_path: Path) -> None:
    path = save(
        make_model([node("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"w": WEIGHT, "b": BIAS}, ["batch", IN]), tmp_path
    )
    for structure in STRUCTURES:
        model = replaced(path, random_fit(structure))
        assert model.graph.input == onnx.load(path).graph.input
        assert model.graph.output == onnx.load(path).graph.output
        for rows in (0, 1, 3, 64):
            assert run(model, x=np.zeros((rows, IN), np.float32))[0].shape == (rows, OUT)


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((1, 1), {}),
        ((3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}),
        ((3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ((5,), {"auto_pad": "SAME_UPPER"}),
    ],
)
def test_convolutions(kernel: tuple[int, ...], attributes: dict[str, Any], tmp_path: Path) -> None:
    weight = RNG.standard_normal((24, 50, *kernel)).astype(np.float32)
    size = (9, 8)[: len(kernel)]
    nodes = [node("Conv", ["x", "w", "b"], ["y"], **attributes)]
    path = save(make_model(nodes, {"w": weight, "b": BIAS[:24]}, ["n", 50, *size]), tmp_path)
    x = RNG.standard_normal((2, 50, *size)).astype(np.float32)
    for structure in (low_rank(weight[0].size, 24, 7), dense(weight[0].size, 24)):
        fit = random_fit(structure, RNG.standard_normal(24))
        assert fit.bias is not None
        bias = (BIAS[:24] + fit.bias).astype(np.float32)
        expected = make_model(
            nodes, {"w": fit.matrix().reshape(weight.shape).astype(np.float32), "b": bias}, ["n", 50, *size]
        )
        np.testing.assert_allclose(run(replaced(path, fit), x=x)[0], run(expected, x=x)[0], atol=2e-3)


def test_a_grouped_convolution_is_kept(tmp_path: Path) -> None:
    weight = RNG.standard_normal((24, 25, 3, 3)).astype(np.float32)
    path = save(
        make_model([node("Conv", ["x", "w"], ["y"], "grouped", group=2)], {"w": weight}, ["n", 50, 5, 5]), tmp_path
    )
    with Workspace(path) as workspace:
        _, layers, (kept,) = layers_of(workspace)
    assert not layers
    assert (kept.title, kept.reason) == ("Conv 'grouped'", "a convolution in 2 groups")


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_behind_a_cast_stays_half(stored: type, tmp_path: Path) -> None:
    nodes = [node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT), node("MatMul", ["x", "w32"], ["y"])]
    path = save(make_model(nodes, {"w": WEIGHT.T.astype(stored)}, ["n", IN]), tmp_path)
    fit = random_fit(low_rank(IN, OUT, 5))
    model = replaced(path, fit)
    assert {onnx.numpy_helper.to_array(each).dtype for each in model.graph.initializer} == {np.dtype(stored)}
    x = RNG.standard_normal((3, IN)).astype(np.float32)
    left, right = (factor.astype(stored).astype(np.float32) for factor in fit.factors)
    np.testing.assert_allclose(run(model, x=x)[0], x @ (left @ right).T, atol=1e-3)


def test_a_model_in_float16(tmp_path: Path) -> None:
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    half = np.float16
    model = make_model(nodes, {"w": WEIGHT.astype(half), "b": BIAS.astype(half)}, ["n", IN], kind=TensorProto.FLOAT16)
    path = save(model, tmp_path)
    x = RNG.standard_normal((3, IN)).astype(half)
    for structure in STRUCTURES:
        fit = random_fit(structure, np.full(OUT, 0.5))
        got = run(replaced(path, fit), x=x)[0]
        assert got.dtype == half
        np.testing.assert_allclose(got, x.astype(np.float32) @ fit.matrix().T + BIAS + 0.5, atol=0.15)


def test_weights_out_of_the_range_of_float16_are_refused(tmp_path: Path) -> None:
    nodes = [node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT), node("MatMul", ["x", "w32"], ["y"], "wide")]
    path = save(make_model(nodes, {"w": WEIGHT.T.astype(np.float16)}, ["n", IN]), tmp_path)
    fit = random_fit(low_rank(IN, OUT, 5))
    fit.factors[0][0, 0] = 1e6
    with pytest.raises(KronmodelError, match="MatMul 'wide': the new weights are out of the range of float16"):
        replaced(path, fit)


def test_weights_behind_transpose_identity_and_dequantisation(tmp_path: Path) -> None:
    quantised = RNG.integers(-127, 127, (OUT, IN)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"], axis=0),
        node("Identity", ["d"], ["i"]),
        node("Transpose", ["i"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["y"]),
    ]
    scale = RNG.uniform(0.01, 0.02, OUT).astype(np.float32)
    path = save(
        make_model(nodes, {"q": quantised, "scale": scale, "zero": np.zeros(OUT, np.int8)}, ["n", IN]), tmp_path
    )
    with Workspace(path) as workspace:
        _, (layer,), _ = layers_of(workspace)
        np.testing.assert_allclose(layer.weight, quantised * scale[:, None], rtol=1e-6)
        assert layer.constant.bytes == OUT * IN + 5 * OUT
    fit = random_fit(low_rank(IN, OUT, 5))
    model = replaced(path, fit)
    assert [each.op_type for each in model.graph.node] == ["MatMul", "MatMul"]
    x = RNG.standard_normal((3, IN)).astype(np.float32)
    np.testing.assert_allclose(run(model, x=x)[0], x @ fit.matrix().T, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "bits", "opset", "ir"),
    [("int4", 4, 21, 10), ("uint4", 4, 21, 10), ("int2", 2, 25, 13), ("uint2", 2, 25, 13), ("float8_e4m3fn", 8, 19, 9)],
)
@pytest.mark.parametrize("scaled_by", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("out", [OUT, 4 * OUT])  # the larger weight is outside of the model, packed
def test_weights_of_few_bits(
    kind: str, bits: int, opset: int, ir: int, scaled_by: type, out: int, tmp_path: Path
) -> None:
    levels = RNG.integers(0 if kind.startswith("u") else -2, 2, (out, IN))
    steps: Array = RNG.uniform(0.01, 0.02, out).astype(scaled_by)
    zero = np.full(out, 1 if kind == "uint4" else 0)
    stored = np.dtype(getattr(ml_dtypes, kind))
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"], axis=0),
        node("Cast", ["d"], ["w32"], to=TensorProto.FLOAT),
        node("Reshape", ["w32", "sizes"], ["r"]),
        node("Gemm", ["x", "r"], ["y"], "layer", transB=1),
    ]
    weights = {"q": levels.astype(stored), "zero": zero.astype(stored), "scale": steps, "sizes": np.array([out, -1])}
    path = save(make_model(nodes, weights, ["n", IN], opset=opset, ir=ir), tmp_path)
    exact = (levels - zero[:, None]) * steps.astype(np.float64)[:, None]
    with Workspace(path) as workspace:
        _, (layer,), _ = layers_of(workspace)
        np.testing.assert_allclose(layer.weight, exact, rtol=5e-3)
        assert layer.constant.bytes == (out * IN * bits + out * bits) // 8 + 2 * out + 16
    fit = random_fit(low_rank(IN, out, 5))
    x = RNG.standard_normal((3, IN)).astype(np.float32)
    np.testing.assert_allclose(run(replaced(path, fit), x=x)[0], x @ fit.matrix().T, atol=1e-4)


def test_a_node_with_constant_inputs_that_cannot_be_computed_is_named(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["w", "sizes"], ["r"], "wrong"), node("MatMul", ["x", "r"], ["y"])]
    path = save(make_model(nodes, {"w": WEIGHT, "sizes": np.array([7, 9])}, ["n", IN]), tmp_path)
    with Workspace(path) as workspace, pytest.raises(KronmodelError, match="the weights behind Reshape 'wrong' can't"):
        layers_of(workspace)


def test_everything_else_stays_bit_for_bit(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "first"),
        node("Relu", ["h"], ["r"], "relu", doc_string="kept"),
        node("MatMul", ["r", "v"], ["y"], "second"),
    ]
    model = make_model(nodes, {"w": WEIGHT.T, "v": WEIGHT, "unused": BIAS}, ["n", IN])
    model.producer_name, model.doc_string = "someone", "about"
    model.metadata_props.add(key="author", value="Ann")
    path = save(model, tmp_path)
    after = replaced(path, {"MatMul 'first'": random_fit(low_rank(IN, OUT, 5))})
    assert after.graph.node[2:] == model.graph.node[1:]
    assert [each for each in after.graph.initializer if each.name in ("v", "unused")] == list(model.graph.initializer)[
        1:
    ]
    for field in ("producer_name", "doc_string", "metadata_props", "opset_import", "ir_version"):
        assert getattr(after, field) == getattr(model, field)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    square = RNG.standard_normal((IN, IN)).astype(np.float32)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Tanh", ["h"], ["t"]), node("MatMul", ["t", "w"], ["y"])]
    path = save(make_model(nodes, {"w": square}, ["n", IN]), tmp_path)
    fit = random_fit(kronecker((12, 7), (7, 12), 2))
    model = replaced(path, fit)
    floats = [each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT]
    assert sum(int(np.prod(each.dims)) for each in floats) == fit.structure.weights  # not twice
    x = RNG.standard_normal((3, IN)).astype(np.float32)
    np.testing.assert_allclose(run(model, x=x)[0], np.tanh(x @ fit.matrix().T) @ fit.matrix().T, atol=1e-3)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            node("Gather", ["w", "i"], ["g"], "lookup"),
            "its weight is also used by Gather 'lookup', so it would stay in the file",
        ),
        (
            node("MatMul", ["w", "x2"], ["g"], "second"),
            "its weight is used by MatMul 'first' and MatMul 'second' differently",
        ),
    ],
)
def test_weights_with_other_uses_are_kept(more: onnx.NodeProto, reason: str, tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], "first"), node("Transpose", ["x"], ["x2"], perm=[1, 0]), more]
    square = RNG.standard_normal((IN, IN)).astype(np.float32)
    weights = {"w": square, "i": np.array([1])}
    path = save(make_model(nodes, weights, ["n", IN]), tmp_path)
    with Workspace(path) as workspace:
        _, layers, kept = layers_of(workspace)
    assert not layers
    assert kept[0].reason == reason


def test_a_weight_that_callers_may_override_is_kept(tmp_path: Path) -> None:
    model = make_model([node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT.T}, ["n", IN])
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [IN, OUT]))
    with Workspace(save(model, tmp_path)) as workspace:
        _, layers, (kept,) = layers_of(workspace)
    assert not layers
    assert kept.reason == "its weight is an input of the graph, too, so callers may change it"


def test_subgraphs_of_if_and_loop(tmp_path: Path) -> None:
    """Layers in branches and in loops, with a name that both branches use."""
    path = save(branches(), tmp_path)
    with Workspace(path) as workspace:
        _, layers, _ = layers_of(workspace)
    assert len(layers) == 3
    fits = {layer.title: random_fit(STRUCTURES[1 + place], seed=place) for place, layer in enumerate(layers)}
    model = replaced(path, fits)
    onnx.checker.check_model(model, full_check=True)
    matrices = [fits[f"MatMul '{name} layer'"].matrix() for name in ("then", "else", "loop")]
    for flag in (True, False):
        x = RNG.standard_normal((3, IN)).astype(np.float32)
        expected = x @ matrices[0 if flag else 1].T
        got, looped = run(model, x=x, flag=np.array(flag))
        np.testing.assert_allclose(got, expected, atol=1e-3)
        np.testing.assert_allclose(looped, np.stack([x @ matrices[2].T] * 2), atol=1e-3)


def branches() -> onnx.ModelProto:
    info = helper.make_tensor_value_info

    def branch(name: str, weight: str) -> onnx.GraphProto:
        tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(WEIGHT.T), "inner")] if weight == "inner" else []
        nodes = [node("MatMul", ["x", weight], ["h"], f"{name} layer")]
        return helper.make_graph(nodes, name, [], [info("h", 1, [None, OUT])], tensors)

    body = helper.make_graph(
        [node("Identity", ["going"], ["still"]), node("MatMul", ["x", "third"], ["z"], "loop layer")],
        "body",
        [info("turn", TensorProto.INT64, []), info("going", TensorProto.BOOL, [])],
        [info("still", TensorProto.BOOL, []), info("z", 1, [None, OUT])],
    )
    nodes = [
        node("If", ["flag"], ["y"], then_branch=branch("then", "inner"), else_branch=branch("else", "outer")),
        node("Loop", ["twice", ""], ["loops"], body=body),
    ]
    weights = {"outer": WEIGHT.T * 2, "third": WEIGHT.T * 3, "twice": np.array(2)}
    model = make_model(nodes, weights, ["n", IN])
    model.graph.input.append(info("flag", TensorProto.BOOL, []))
    model.graph.output.append(info("loops", 1, [None, None, OUT]))
    return model
