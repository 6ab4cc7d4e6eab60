"""Networks that nobody trained, for the sweep and the self-test: graphs as `kronmodel` exports them, random weights.

Imports onnx, so it belongs into processes whose memory nobody measures.
"""

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10


class _Graph:
    """Nodes and initialisers of a network under construction; `at` is the name of the last value."""

    def __init__(self, seed: int) -> None:
        self.at = "input"
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def weights(self, *shape: int, scale: float) -> str:
        return self.tensor((scale * self._rng.standard_normal(shape)).astype(np.float32))

    def tensor(self, array: NDArray[np.float32] | NDArray[np.int64]) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        self.at = name

    def reshape(self, *shape: int) -> None:
        self.add("Reshape", self.at, self.tensor(np.array(shape, np.int64)))

    def bytes(self, width: int) -> bytes:
        self.nodes.append(helper.make_node("Identity", [self.at], ["output"]))
        specs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("input", "output")
        ]
        graph = helper.make_graph(self.nodes, "synthetic", specs[:1], specs[1:], self.tensors)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        serialized: bytes = made.SerializeToString()
        return serialized


def dense(width: int, *, layers: int, seed: int, padding_bytes: int = 0) -> bytes:
    """`layers` times (width -> width, gelu), as an ONNX file.

    Args:
        width: features in and out.
        layers: how many.
        seed: of the weights.
        padding_bytes: of an initialiser besides, a multiple of 4, that is looked up but changes nothing.
    """
    graph = _Graph(seed)
    for _ in range(layers):
        graph.add("MatMul", graph.at, graph.weights(width, width, scale=width**-0.5))
        graph.add("Add", graph.at, graph.weights(width, scale=0.1))
        graph.add("Gelu", graph.at)
    if padding_bytes:
        _pad(graph, padding_bytes)
    return graph.bytes(width)


def kronecker(width: int, rank: int, *, layers: int, seed: int) -> bytes:
    """As many Kronecker dual layers of the same width, with square factors, left first.

    Of each layer `Y = gelu(sum_k gelu(A_k X + C_k) B_k^T + D)` the rows of all `A_k` lie interleaved in one matrix, so
    that the sum over the branches is one product with all `B_k`: two matrix products a layer, whatever the rank.
    """
    side = math.isqrt(width)
    if side * side != width:
        raise ValueError(f"width: got {width}, expected a square number")
    graph = _Graph(seed)
    for _ in range(layers):
        graph.reshape(-1, side, side)  # (batch, n1, n2)
        graph.add("MatMul", graph.weights(side * rank, side, scale=side**-0.5), graph.at)  # (batch, m1 * r, n2)
        graph.add("Add", graph.at, graph.weights(side * rank, side, scale=0.1))
        graph.add("Gelu", graph.at)
        graph.reshape(-1, side, rank * side)  # (batch, m1, r * n2)
        graph.add("MatMul", graph.at, graph.weights(rank * side, side, scale=(rank * side) ** -0.5))  # (batch, m1, m2)
        graph.reshape(-1, width)
        graph.add("Add", graph.at, graph.weights(width, scale=0.1))
        graph.add("Gelu", graph.at)
    return graph.bytes(width)


def dense_macs(width: int, layers: int) -> int:
    """Multiply-adds of a sample."""
    return layers * width * width


def kronecker_macs(width: int, rank: int, layers: int) -> int:
    """Multiply-adds of a sample."""
    return layers * 2 * rank * width * math.isqrt(width)


def _pad(graph: _Graph, padding_bytes: int) -> None:
    """A table from which an entry is looked up that depends on the input: no optimisation folds it away."""
    last = graph.at
    table = graph.tensor(np.zeros((padding_bytes // 4, 1), np.float32))
    graph.add("ReduceMax", "input", keepdims=0)
    graph.add("Mul", graph.at, graph.tensor(np.zeros(1, np.float32)))
    graph.add("Cast", graph.at, to=TensorProto.INT64)
    graph.add("Gather", table, graph.at)
    graph.add("Add", last, graph.at)
