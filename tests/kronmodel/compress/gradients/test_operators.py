"""Operators of ONNX in torch against onnxruntime: their values, and their gradients by differences of its outputs."""

from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from kronmodel.compress.gradients.module import GraphModule
from kronmodel.compress.gradients.operators import OPERATORS
from kronmodel.errors import KronmodelError
from tests.kronmodel.compress.onnx_models import Array

rng = np.random.default_rng(5)
MATRIX = rng.standard_normal((6, 4)).astype(np.float32)
ROW = rng.standard_normal(6).astype(np.float32)
IMAGE = (2, 3, 7, 6)
KERNEL = rng.standard_normal((4, 3, 3, 2)).astype(np.float32)
CHANNELS = [rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4)]
STEP = 1e-2


def number(value: float) -> Array:
    return np.array(value, np.float32)


class Case(NamedTuple):
    """A node: its inputs after the first one (None for one that is left out), attributes, and shape of the first."""

    op_type: str
    others: tuple[Any, ...] = ()
    attributes: dict[str, Any] = {}  # noqa: RUF012
    shape: tuple[int, ...] = (5, 6)
    opset: int = 20
    kind: type = np.float32
    outputs: int = 1


CASES = [
    Case("Abs"),
    Case("Add", (ROW,)),
    Case("And", (ROW > 0,), kind=np.bool_),
    Case("AveragePool", (), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}, IMAGE),
    Case("AveragePool", (), {"kernel_shape": [2, 2], "count_include_pad": 1, "auto_pad": "SAME_LOWER"}, IMAGE),
    Case("BatchNormalization", (*CHANNELS,), {"epsilon": 0.01}, IMAGE),
    Case("Cast", (), {"to": onnx.TensorProto.DOUBLE}),
    Case("Ceil"),
    Case("Celu", (), {"alpha": 0.6}),
    Case("Clip", (number(-0.3), number(0.7))),
    Case("Clip", (), {"min": -0.3, "max": 0.7}, opset=6),
    Case("Concat", (MATRIX[:2].T[:3, :1].repeat(6, 1),), {"axis": 0}),
    Case("Conv", (KERNEL, ROW[:4]), {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}, IMAGE),
    Case("Conv", (KERNEL[:3, :1],), {"group": 3, "auto_pad": "SAME_UPPER", "strides": [2, 2]}, IMAGE),
    Case("Conv", (KERNEL[:, :, 0],), {"kernel_shape": [2]}, (2, 3, 8)),
    Case("ConvTranspose", (KERNEL.swapaxes(0, 1),), {"strides": [2, 3], "pads": [1, 0, 1, 0]}, IMAGE),
    Case("Cos"),
    Case("Div", (np.abs(ROW) + 1,)),
    Case("Div", (np.array([-4, 3, 2, 5, -7, 1]),), kind=np.int64),
    Case("Dropout"),
    Case("Einsum", (MATRIX,), {"equation": "bi,ij->jb"}),
    Case("Elu", (), {"alpha": 0.7}),
    Case("Equal", (np.array([-1, 0, 1, 2, 0, 0]),), kind=np.int64),
    Case("Erf"),
    Case("Exp"),
    Case("Expand", (np.array([3, 1, 6]),)),
    Case("Flatten", (), {"axis": 0}),
    Case("Floor"),
    Case("Gather", (np.array([[2, -1], [0, 4], [1, 1]]),)),
    Case("Gather", (np.array([5, 0, -2]),), {"axis": 1}),
    Case("Gelu"),
    Case("Gelu", (), {"approximate": "tanh"}),
    Case("Gemm", (MATRIX, ROW[:4]), {"alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (np.ascontiguousarray(MATRIX.T),), {"transB": 1}),
    Case("GlobalAveragePool", shape=IMAGE),
    Case("GlobalMaxPool", shape=IMAGE),
    Case("Greater", (ROW,)),
    Case("GreaterOrEqual", (ROW,)),
    Case("HardSigmoid", (), {"alpha": 0.3}),
    Case("HardSwish"),
    Case("Identity"),
    Case("InstanceNormalization", (*CHANNELS[:2],), {"epsilon": 0.01}, IMAGE),
    Case("LayerNormalization", (ROW, ROW[::-1]), {"epsilon": 0.01}),
    Case("LayerNormalization", (rng.uniform(1, 2, (7, 6)).astype(np.float32),), {"axis": 2}, IMAGE),
    Case("LeakyRelu", (), {"alpha": 0.2}),
    Case("Less", (ROW,)),
    Case("LessOrEqual", (ROW,)),
    Case("LogSoftmax"),
    Case("MatMul", (MATRIX,)),
    Case("MatMul", (rng.standard_normal((2, 1, 6, 4)).astype(np.float32),), shape=IMAGE),
    Case("Max", (ROW, number(0.2))),
    Case("MaxPool", (), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1], "dilations": [1, 2]}, IMAGE),
    Case("Min", (ROW, number(0.2))),
    Case("Mish"),
    Case("Mul", (ROW,)),
    Case("Neg"),
    Case("Not", kind=np.bool_),
    Case("Or", (ROW > 0,), kind=np.bool_),
    Case("PRelu", (np.abs(ROW),)),
    Case("Pad", (np.array([1, 0, 2, 3]), number(0.5))),
    Case("Pow", (number(3),)),
    Case("Pow", (np.array(2),)),
    Case("ReduceL1", (np.array([1]),)),
    Case("ReduceL2", (np.array([-1]),), {"keepdims": 0}),
    Case("ReduceLogSumExp", (np.array([0]),)),
    Case("ReduceMax", (np.array([1, 3]),), shape=IMAGE),
    Case("ReduceMean"),
    Case("ReduceMean", (), {"axes": [1, -1], "keepdims": 0}, IMAGE, 13),
    Case("ReduceMin", (np.array([1]),)),
    Case("ReduceSum", (np.array([0, 2]),), {"keepdims": 0}, IMAGE),
    Case("ReduceSum", (), {"noop_with_empty_axes": 1}),
    Case("ReduceSumSquare", (np.array([1]),)),
    Case("Relu"),
    Case("Reshape", (np.array([0, 2, -1]),)),
    Case(
        "Resize",
        (None, np.array([1, 1, 2, 3], np.float32)),
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        IMAGE,
    ),
    Case("Resize", (None, None, np.array([2, 3, 10, 4])), {"mode": "linear"}, IMAGE),
    Case("Selu"),
    Case("Sigmoid"),
    Case("Sin"),
    Case("Slice", (np.array([-2, 4]), np.array([9, -7]), np.array([2, 3]), np.array([1, -2])), shape=IMAGE),
    Case("Slice", (), {"starts": [1, 0], "ends": [-1, 3]}, opset=9),
    Case("Softmax", (), {"axis": -1}),
    Case("Softplus"),
    Case("Softsign"),
    Case("Split", (np.array([1, 3, 1]),), outputs=3),
    Case("Split", (), {"num_outputs": 4, "axis": 1}, outputs=4),
    Case("Split", (), {"split": [2, 4], "axis": 1}, opset=11, outputs=2),
    Case("Squeeze", (np.array([1, -1]),), shape=(3, 1, 4, 1)),
    Case("Squeeze", shape=(3, 1, 4, 1)),
    Case("Sub", (ROW,)),
    Case("Sum", (ROW, MATRIX[:5, :1])),
    Case("Tanh"),
    Case("Tile", (np.array([2, 3]),)),
    Case("Transpose"),
    Case("Unsqueeze", (np.array([-1, 0, 2]),)),
    Case("Unsqueeze", (), {"axes": [1]}, opset=11),
    Case("Where", (ROW, MATRIX[:5, :1]), kind=np.bool_),
]


def model_of(case: Case) -> onnx.ModelProto:
    """A model of one node, with the sum of a Split's outputs where they are several."""
    names = ["" if each is None else f"c{place}" for place, each in enumerate(case.others)]
    stored = {name: np.asarray(each) for name, each in zip(names, case.others, strict=True) if name}
    outputs = [f"y{place}" for place in range(case.outputs)]
    nodes = [helper.make_node(case.op_type, ["x", *names], outputs, **case.attributes)]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(case.kind))
    x = helper.make_tensor_value_info("x", kind, ["batch", *case.shape[1:]])
    tensors = [numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in stored.items()]
    graph = helper.make_graph(nodes, "graph", [x], [onnx.ValueInfoProto(name=name) for name in outputs], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op_type}-{case.opset}")
def test_operators_compute_what_onnxruntime_computes(case: Case) -> None:
    model = model_of(case)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    own = np.random.default_rng(1)
    x = (
        (2 * own.standard_normal(case.shape)).astype(case.kind)
        if case.kind != np.bool_
        else own.random(case.shape) < 0.5
    )
    wanted: list[Array] = session.run(None, {"x": x})
    for place, want in enumerate(wanted):
        module = GraphModule(model, numpy_helper.to_array, f"y{place}", lambda name: False)
        given = torch.from_numpy(x)
        if case.kind == np.float32:
            given.requires_grad_()
        found = module(given)
        assert found.detach().numpy().dtype == want.dtype
        np.testing.assert_allclose(found.detach().numpy(), want, rtol=1e-5, atol=1e-5)
        if not found.requires_grad:
            continue
        weights, direction = (own.standard_normal(shape) for shape in (want.shape, case.shape))
        (gradient,) = torch.autograd.grad((found * torch.from_numpy(weights)).sum(), given)
        ends = [session.run(None, {"x": (x + s * STEP * direction).astype(np.float32)})[place] for s in (-1, 1)]
        difference = float(((ends[1].astype(np.float64) - ends[0]) * weights).sum()) / (2 * STEP)
        assert float((gradient.numpy() * direction).sum()) == pytest.approx(difference, rel=0.03, abs=0.05)


def test_logarithms_and_roots() -> None:
    x = np.array([[0.5, 0.25, 3]], np.float32)
    for name, want in {"Log": np.log(x), "Sqrt": np.sqrt(x), "Reciprocal": 1 / x}.items():
        module = GraphModule(model_of(Case(name, shape=x.shape)), numpy_helper.to_array, "y0", lambda name: False)
        np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), want, rtol=1e-6)


def test_shapes_and_what_is_made_of_them() -> None:
    x = np.ones((2, 5), np.float32)
    filled = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [2.5])
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=-1),
        helper.make_node("ConstantOfShape", ["s"], ["c"], value=filled),
        helper.make_node("Squeeze", ["s"], ["n"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Constant", [], ["two"], value_int=2),
        helper.make_node("Range", ["zero", "n", "two"], ["r"]),
        helper.make_node("Cast", ["r"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["f", "axes"], ["u"]),
        helper.make_node("Add", ["u", "c"], ["y"]),
    ]
    info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "columns"])
    axes = numpy_helper.from_array(np.array([1]), "axes")
    graph = helper.make_graph(nodes, "graph", [info], [onnx.ValueInfoProto(name="y")], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    want = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    found = GraphModule(model, numpy_helper.to_array, "y", lambda name: False)(torch.from_numpy(x))
    np.testing.assert_array_equal(found.numpy(), want)


def test_every_operator_is_compared() -> None:
    others = {"ConstantOfShape", "Log", "Range", "Reciprocal", "Shape", "Sqrt"}  # in the tests above
    assert {case.op_type for case in CASES} | others == set(OPERATORS)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("Gather", (np.array([5, 6]),)), "out of range"),
        (Case("Pad", (np.array([1, 0, 2, 3]),), {"mode": "reflect"}), "not constant"),
        (Case("Resize", (None, None, np.array([2, 5, 7, 6])), {"mode": "nearest"}, IMAGE), "the batch or the channels"),
        (Case("Resize", (None, None, np.array([2, 3, 9, 9])), {"mode": "cubic"}, IMAGE), "neither"),
        (Case("AveragePool", (), {"kernel_shape": [3, 2], "ceil_mode": 1}, IMAGE), "over the end"),
        (Case("ConstantOfShape", kind=np.int64, shape=(2,)), "too large"),
    ],
)
def test_what_is_not_known_is_refused(case: Case, message: str) -> None:
    module = GraphModule(model_of(case), numpy_helper.to_array, "y0", lambda name: False)
    x: Array = np.full(case.shape, 1 << 20, case.kind)
    with pytest.raises(ValueError, match=message):
        module(torch.from_numpy(x))


def test_a_second_output_is_refused() -> None:
    case = Case("LayerNormalization", (ROW,), outputs=2)
    with pytest.raises(KronmodelError, match="gradient of LayerNormalization"):
        GraphModule(model_of(case), numpy_helper.to_array, "y1", lambda name: False)
