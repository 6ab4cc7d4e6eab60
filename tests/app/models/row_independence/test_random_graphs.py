"""Random graphs: where the verdict is independent rows, onnxruntime gives them together what it gives them alone."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from app.inference.trial import equal_but_rounding
from app.models.row_independence.verdict import judge
from tests.app.graphs import Array

GRAPHS = 120  # of each seed
ROWS = 3


class Builder:
    """A random graph on x (n, 2, 3, 4): each step adds an operator to the values that are there."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.values = ["x"]
        # The shape of each value for a batch of ROWS rows, to choose axes and sizes that mostly fit.
        self.shapes: dict[str, tuple[int, ...]] = {"x": (ROWS, 2, 3, 4)}

    def constant(self, value: Array) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(value, name))
        return name

    def floats(self, *shape: int) -> str:
        return self.constant(np.random.default_rng(len(self.tensors)).standard_normal(shape).astype(np.float32))

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def model(self, output: str) -> ModelProto:
        """The model of the operators that an output needs: another one could fail for itself."""
        needed, nodes = {output}, []
        for node in reversed(self.nodes):
            if node.output[0] in needed:
                needed.update(node.input)
                nodes.append(node)
        graph = helper.make_graph(
            nodes[::-1],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 3, 4])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    def step(self) -> None:
        """Add an operator to one of the last values; keep its result if onnxruntime can run it."""
        name = self.random.choice(self.values[-3:])
        shape = self.shapes[name]
        if not shape:
            return
        nodes, tensors = len(self.nodes), len(self.tensors)
        result = self.random.choice(STEPS)(self, name, shape)
        try:
            found = run(self.model(result), rows(ROWS))
        except Exception:  # sizes that do not fit: onnxruntime has a class for each kind of error
            del self.nodes[nodes:], self.tensors[tensors:]
            return
        if found.size and found.ndim <= 6:
            self.values.append(result)
            self.shapes[result] = found.shape


def elementwise(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    kind = b.random.randrange(4)
    if kind == 0:
        return b.add(b.random.choice(["Relu", "Tanh", "Neg", "Sigmoid"]), [name])
    if kind == 1:
        own = [size if b.random.random() < 0.5 else 1 for size in shape[b.random.randrange(len(shape) + 1) :]]
        return b.add(b.random.choice(["Add", "Mul"]), [name, b.floats(*own)])
    return b.add(b.random.choice(["Add", "Sub", "Max"]), [name, b.random.choice(b.values)])


def transpose(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    order = list(range(len(shape)))
    b.random.shuffle(order)
    return b.add("Transpose", [name], perm=order)


def reshape(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    """To a constant shape, or to one that holds the first size of x as exporters compute it."""
    sizes = list(shape)
    for _ in range(b.random.randrange(3)):
        if len(sizes) > 1:
            place = b.random.randrange(len(sizes) - 1)
            sizes[place : place + 2] = [sizes[place] * sizes[place + 1]]
    if b.random.random() < 0.5:
        place = b.random.randrange(len(sizes))
        for divisor in (2, 3):
            if sizes[place] % divisor == 0:
                parts = [divisor, sizes[place] // divisor]
                b.random.shuffle(parts)
                sizes[place : place + 1] = parts
                break
    dynamic = ROWS in sizes and b.random.random() < 0.5
    free = sizes.index(ROWS) if dynamic else b.random.randrange(len(sizes))
    if not dynamic:
        sizes[free] = -1
        return b.add("Reshape", [name, b.constant(np.array(sizes, np.int64))])
    whole = b.add("Shape", ["x"])
    count = b.add("Gather", [whole, b.constant(np.array([0], np.int64))], axis=0)
    entries = [count if place == free else b.constant(np.array([size], np.int64)) for place, size in enumerate(sizes)]
    return b.add("Reshape", [name, b.add("Concat", entries, axis=0)])


def matmul(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    if b.random.random() < 0.3:
        return b.add("MatMul", [name, b.random.choice(b.values)])
    if b.random.random() < 0.3:
        return b.add("MatMul", [b.floats(2, shape[-2] if len(shape) > 1 else shape[0]), name])
    return b.add("MatMul", [name, b.floats(shape[-1], b.random.choice([1, 2, 4]))])


def reduce(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    axes = b.constant(np.array([b.random.randrange(len(shape))], np.int64))
    return b.add(b.random.choice(["ReduceMax", "ReduceMean"]), [name, axes], keepdims=b.random.randrange(2))


def along_axis(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    axis = b.random.randrange(len(shape))
    kind = b.random.randrange(5)
    if kind == 0:
        return b.add("Softmax", [name], axis=axis)
    if kind == 1:
        return b.add("CumSum", [name, b.constant(np.array(axis, np.int64))])
    if kind == 2:
        return b.add("Concat", [name, b.random.choice(b.values)], axis=axis)
    if kind == 3:
        indices = np.array([0] if b.random.random() < 0.5 else 0, np.int64)
        return b.add("Gather", [name, b.constant(indices)], axis=axis)
    return b.add("LayerNormalization", [name, b.floats(*shape[axis:])], axis=axis)


def cut(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    axis = b.random.randrange(len(shape))
    bounds = [np.array([value], np.int64) for value in (b.random.choice([0, 0, 1]), b.random.choice([2, 2**40]), axis)]
    if b.random.random() < 0.5:
        return b.add("Slice", [name, *map(b.constant, bounds)])
    pads = [0] * (2 * len(shape))
    pads[axis] = b.random.randrange(2)
    return b.add("Pad", [name, b.constant(np.array(pads, np.int64))])


def axes_of_one(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    if 1 in shape and b.random.random() < 0.5:
        axes = b.constant(np.array([shape.index(1)], np.int64))
        return b.add("Squeeze", [name, axes] if b.random.random() < 0.8 else [name])
    return b.add("Unsqueeze", [name, b.constant(np.array([b.random.randrange(len(shape) + 1)], np.int64))])


def expand(b: Builder, name: str, shape: tuple[int, ...]) -> str:
    """Of the value or a constant to the shape of another value, or repeated."""
    if b.random.random() < 0.3:
        return b.add("Tile", [name, b.constant(np.array([b.random.choice([1, 1, 2]) for _ in shape], np.int64))])
    target = b.add("Shape", [b.random.choice(b.values)])
    return b.add("Expand", [name if b.random.random() < 0.5 else b.floats(1, 1), target])


STEPS: list[Callable[[Builder, str, tuple[int, ...]], str]] = [
    elementwise, elementwise, transpose, reshape, reshape, matmul, reduce, along_axis, along_axis, cut, axes_of_one,
    expand,
]  # fmt: skip


def rows(count: int) -> Array:
    values: Array = np.random.default_rng(7).standard_normal((count, 2, 3, 4)).astype(np.float32)
    values *= np.array([1, -300, 5], np.float32)[:count, None, None, None]
    return values


def run(model: ModelProto, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": x})[0]
    return found


def agree(model: ModelProto) -> bool:
    """Whether onnxruntime gives rows together what it gives them alone."""
    x = rows(ROWS)
    together = run(model, x)
    if together.shape[:1] != (ROWS,):
        return False
    try:
        alone = [run(model, x[row : row + 1]) for row in range(ROWS)]
    except Exception:
        return False
    return all(equal_but_rounding(together[row : row + 1], values) for row, values in enumerate(alone))


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_the_graph_keeps_apart_have_the_same_outputs_together_and_alone(seed: int) -> None:
    independent = agreeing = 0
    for number in range(GRAPHS):
        builder = Builder(seed * 10_000 + number)
        for _ in range(builder.random.randrange(1, 9)):
            builder.step()
        model = builder.model(builder.values[-1])
        if len(builder.values) == 1:
            continue
        agrees = agree(model)
        verdict = judge(model)
        assert agrees or not verdict.independent, (seed, number, verdict, builder.nodes)
        independent += verdict.independent
        agreeing += agrees
    # The analysis may refuse graphs whose rows happen to agree, but not most of them.
    assert independent >= 0.8 * agreeing > 0.1 * GRAPHS
