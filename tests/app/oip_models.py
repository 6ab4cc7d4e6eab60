"""Models of every datatype and many shapes."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.app.graphs import CARD, Array, classifier, publish, weights

LAYERS = weights([6, 3], seed=1)
OLD_LAYERS = weights([6, 3], seed=9)
TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
DIGITS = CARD | {"name": "digits"}
Spec = tuple[str, int, list[int | str | None]]


def graph(
    nodes: list[onnx.NodeProto], inputs: list[Spec], outputs: list[Spec], constants: dict[str, Array] | None = None
) -> onnx.ModelProto:
    """A model of these nodes, inputs, outputs and constants."""
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*spec) for spec in inputs],
        [helper.make_tensor_value_info(*spec) for spec in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def echo(datatype: int, shape: list[int | str | None]) -> onnx.ModelProto:
    """A model whose output is its input."""
    return graph([helper.make_node("Identity", ["x"], ["y"])], [("x", datatype, shape)], [("y", datatype, shape)])


def two() -> onnx.ModelProto:
    """A model with two inputs, float and integer, and the outputs `sum` and `product`."""
    nodes = [
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["a", "c"], ["sum"]),
        helper.make_node("Mul", ["a", "c"], ["product"]),
    ]
    shape: list[int | str | None] = ["batch", 3]
    return graph(
        nodes,
        [("a", TensorProto.FLOAT, shape), ("b", TensorProto.INT64, shape)],
        [("sum", TensorProto.FLOAT, shape), ("product", TensorProto.FLOAT, shape)],
    )


def outer() -> onnx.ModelProto:
    """x (n, 4) times the transpose of y (m, 4): their first axes are free and of different sizes."""
    nodes = [helper.make_node("Transpose", ["y"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["x", "t"], ["out"])]
    inputs: list[Spec] = [("x", TensorProto.FLOAT, ["n", 4]), ("y", TensorProto.FLOAT, ["m", 4])]
    return graph(nodes, inputs, [("out", TensorProto.FLOAT, ["n", "m"])])


def centred() -> onnx.ModelProto:
    """x minus the mean of the batch: rows depend on each other, although the shapes do not show it."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    specs: list[Spec] = [(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    return graph(nodes, [specs[0]], [specs[1]], {"axes": np.array([0])})


def lookup() -> onnx.ModelProto:
    """A lookup of rows in a table of five rows."""
    return graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        [("ids", TensorProto.INT64, ["batch"])],
        [("rows", TensorProto.FLOAT, ["batch", 2])],
        {"table": np.arange(10, dtype=np.float32).reshape(5, 2)},
    )


def halved() -> onnx.ModelProto:
    """Half of a bfloat16 input, as bfloat16 and as float, and an integer input unchanged."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["wide", "two"], ["float"]),
        helper.make_node("Cast", ["float"], ["half"], to=TensorProto.BFLOAT16),
        helper.make_node("Identity", ["number"], ["same"]),
    ]
    shape: list[int | str | None] = ["batch", 3]
    return graph(
        nodes,
        [("x", TensorProto.BFLOAT16, shape), ("number", TensorProto.INT64, shape)],
        [
            ("half", TensorProto.BFLOAT16, shape),
            ("float", TensorProto.FLOAT, shape),
            ("same", TensorProto.INT64, shape),
        ],
        {"two": np.array(2, np.float32)},
    )


def reciprocal() -> onnx.ModelProto:
    """1 / x: infinite at 0."""
    specs: list[Spec] = [(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    return graph([helper.make_node("Reciprocal", ["x"], ["y"])], [specs[0]], [specs[1]])


def publish_all(folder: Path) -> None:
    """Write all models to a folder."""
    for name, datatype in TYPES.items():
        publish(folder, f"echo-{name}", echo(datatype, ["batch", 3]))
    publish(folder, "digits", classifier(OLD_LAYERS, card=DIGITS), version=9)
    publish(folder, "digits", classifier(LAYERS, card=DIGITS), version=10)
    publish(folder, "plain", classifier(LAYERS, outputs=("logits",)))
    publish(folder, "fixed", classifier(LAYERS, batch=4))
    publish(folder, "two", two())
    publish(folder, "outer", outer())
    publish(folder, "centred", centred())
    publish(folder, "lookup", lookup())
    publish(folder, "reciprocal", reciprocal())
    publish(folder, "half", halved())
    publish(folder, "vector", echo(TensorProto.FLOAT, [5]))
    publish(folder, "scalar", echo(TensorProto.INT32, []))
    publish(folder, "ragged", echo(TensorProto.FLOAT, ["batch", "width"]))
    publish(folder, "ragged2", echo(TensorProto.FLOAT, ["batch", "height", "width"]))
    publish(folder, "word", echo(TensorProto.STRING, [1]))
