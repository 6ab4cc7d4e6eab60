"""Random small networks as ONNX graphs, written node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
CONVOLUTIONS = 12  # seeds from here on have convolutions and Kronecker layers only; even ones with zeros between them
ACTIVATIONS = {"relu": "Relu", "gelu": "Gelu", "tanh": "Tanh"}


class Graph:
    """Graph that grows at its end.

    Args:
        rng: draws the weights.
        shape: of a sample.
    """

    def __init__(self, rng: np.random.Generator, *shape: int) -> None:
        self.rng, self.shape, self.at = rng, shape, "input"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def constant(self, values: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def normal(self, *shape: int, fan: int = 1) -> str:
        return self.constant(self.rng.normal(0, 1.4 / np.sqrt(fan), shape).astype(np.float32))

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def activate(self, name: str) -> None:
        if name != "none":
            self.at = self.node(ACTIVATIONS[name], self.at)

    def reshape(self, value: str, *shape: int) -> str:
        return self.node("Reshape", value, self.constant(np.array([-1, *shape])))

    def standardise(self) -> None:
        self.at = self.node("Sub", self.at, self.normal(*self.shape))
        self.at = self.node("Mul", self.at, self.constant(self.rng.uniform(0.3, 2, self.shape).astype(np.float32)))

    def pad(self, zeros: int) -> None:
        self.at = self.node("Pad", self.at, self.constant(np.array([0, 0, 0, zeros])))
        self.shape = (self.shape[0] + zeros,)

    def dense(self, outputs: int, activation: str = "none") -> None:
        (inputs,) = self.shape
        weight, bias = self.normal(outputs, inputs, fan=inputs), self.normal(outputs, fan=9)
        self.at = self.node("Gemm", self.at, weight, bias, transB=1)
        self.activate(activation)
        self.shape = (outputs,)

    def kronecker(
        self,
        given: tuple[int, int],
        to: tuple[int, int],
        right: Sequence[bool],
        inner: str,
        activation: str,
        *,
        bias: str = "full",
    ) -> None:
        """Add a Kronecker layer; its bias is full, none, or a number a row and a number a column."""
        (n1, n2), (m1, m2) = given, to
        x = self.at if self.shape == given else self.reshape(self.at, n1, n2)
        total = ""
        for order in sorted(set(right)):
            r = sum(each == order for each in right)
            if order:  # X B_k^T for all k, then the sum of A_k Z_k
                z = self.node("MatMul", x, self.normal(n2, r * m2, fan=n2))
                z = z if bias == "none" else self.node("Add", z, self.normal(n1, r * m2, fan=9))
                z = z if inner == "none" else self.node(ACTIVATIONS[inner], z)
                z = self.reshape(z, n1 * r, m2)
                y = self.node("MatMul", self.normal(1, m1, n1 * r, fan=n1 * r), z)
            else:  # A_k X for all k, then the sum of Z_k B_k^T
                z = self.node("MatMul", self.normal(1, m1 * r, n1, fan=n1), x)
                if bias == "vectors":
                    z = self.node("Add", z, self.normal(m1 * r, 1, fan=9))
                elif bias == "full":
                    z = self.node("Add", z, self.normal(m1 * r, n2, fan=9))
                z = z if inner == "none" else self.node(ACTIVATIONS[inner], z)
                z = self.reshape(z, m1, r * n2)
                y = self.node("MatMul", z, self.normal(r * n2, m2, fan=r * n2))
            total = self.node("Add", total, y) if total else y
        if bias == "vectors":
            total = self.node("Add", total, self.normal(m1, 1, fan=9))
            total = self.node("Add", total, self.normal(1, m2, fan=9))
        elif bias == "full":
            total = self.node("Add", total, self.normal(m1, m2, fan=9))
        self.at = total
        self.activate(activation)
        self.at = self.reshape(self.at, m1 * m2)
        self.shape = (m1 * m2,)

    def convolution(
        self,
        filters: int,
        kernel: tuple[int, int],
        activation: str,
        *,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        strides: tuple[int, int] = (1, 1),
        pool: tuple[int, int] = (1, 1),
        bias: bool = True,
    ) -> None:
        """Add a convolution; pads are those of ONNX: top, left, bottom, right."""
        channels, height, width = self.shape
        weight = self.normal(filters, channels, *kernel, fan=channels * kernel[0] * kernel[1])
        names = [weight, self.normal(filters, fan=9)] if bias else [weight]
        self.at = self.node("Conv", self.at, *names, kernel_shape=kernel, pads=pads, strides=strides)
        self.activate(activation)
        height = (height + pads[0] + pads[2] - kernel[0]) // strides[0] + 1
        width = (width + pads[1] + pads[3] - kernel[1]) // strides[1] + 1
        if pool != (1, 1):
            self.at = self.node("MaxPool", self.at, kernel_shape=pool, strides=pool)
        self.shape = (filters, height // pool[0], width // pool[1])

    def flatten(self, *, channels_last: bool) -> None:
        channels, height, width = self.shape
        if channels_last:
            self.at = self.node("Transpose", self.at, perm=[0, 2, 3, 1])
        self.at = self.reshape(self.at, channels * height * width)
        self.shape = (channels * height * width,)

    def matrix(self, rows: int, columns: int) -> None:
        """Reshape the maps of convolutions to the matrix of a Kronecker layer in one node, channels last."""
        self.at = self.reshape(self.node("Transpose", self.at, perm=[0, 2, 3, 1]), rows, columns)
        self.shape = (rows, columns)

    def classify(self) -> None:
        self.nodes[-1].output[0] = self.at = "logits"
        self.at = self.node("Softmax", self.at, output="probabilities", axis=-1)

    def scale(self) -> None:
        self.at = self.node("Mul", self.at, self.constant(self.rng.uniform(1, 9, self.shape).astype(np.float32)))
        self.at = self.node("Add", self.at, self.normal(*self.shape), output="prediction")

    def save(self, path: Path, shape: Sequence[int]) -> Path:
        """Write the ONNX file; ``shape`` is a sample's."""
        outputs = ["logits", "probabilities"] if self.at == "probabilities" else [self.at]
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *self.shape]) for name in outputs],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path


def random_graph(seed: int) -> tuple[Graph, tuple[int, ...]]:
    """Draw a network of one of the kinds that the templates know; return it and the shape of a sample."""
    rng = np.random.default_rng(seed)
    activations = ["relu", "gelu", "tanh"]
    act = activations[seed % 3]
    inner = [*activations, "none"][int(rng.integers(4))]
    if seed >= CONVOLUTIONS:
        shape: tuple[int, ...] = (2, 11, 9)
        graph = Graph(rng, *shape)
        graph.convolution(5, (3, 2), act, pads=(1, 0, 2, 1), pool=(2, 3))
        graph.convolution(6, (3, 3), act, pads=(1, 1, 1, 1), pool=(2, 1))
        if seed % 2:
            graph.matrix(6, 9)  # 3 x 3 x 6 values
        else:
            graph.flatten(channels_last=True)
            graph.pad(6)
        columns = 9 if seed % 2 else 10
        graph.kronecker((6, columns), (4, 5), [False, False], inner, act, bias="vectors")
        graph.kronecker((4, 5), (2, 3), [False], inner, "none", bias="full")
        graph.classify()
        return graph, shape
    if seed % 4 == 0:
        shape = (int(rng.integers(1, 4)), 11, 9)
        graph = Graph(rng, *shape)
        if rng.random() < 0.5:
            graph.standardise()
        graph.convolution(5, (3, 2), act, pads=(1, 0, 2, 1), pool=(2, 3), bias=bool(rng.integers(2)))
        graph.convolution(6, (2, 2), act, strides=(2, 1), pads=(1, 1, 1, 1))
        graph.flatten(channels_last=bool(rng.integers(2)))
        graph.dense(12, act)
        graph.kronecker((3, 4), (2, 5), [False, True], inner, "none")
        graph.classify()
        return graph, shape
    shape = (29,)
    graph = Graph(rng, *shape)
    if rng.random() < 0.5:
        graph.standardise()
    graph.pad(1)
    orders = [[False], [True], [False, False, True], [True, True]][int(rng.integers(4))]
    bias = ["full", "vectors", "none"][int(rng.integers(3))]
    graph.kronecker((5, 6), (7, 3), orders, inner, act, bias=bias)
    graph.kronecker((3, 7), (4, 2), [False, False], inner, act, bias=bias)
    graph.dense(7, act)
    graph.dense(3 + seed % 4)
    if seed % 2:
        graph.classify()
    else:
        graph.scale()
    return graph, shape


def outputs_of(path: Path, x: Array) -> dict[str, Array]:
    """Compute the outputs of a model by onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": x}), strict=True))
