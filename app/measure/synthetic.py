"""Synthetic networks for the sweep and the self-test: graphs as `kronmodel` exports them, with random weights.

Imports onnx, so only processes whose memory is not measured may import it.
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
    """Builder of an ONNX graph; `output` is the name of the last node's output."""

    def __init__(self, seed: int) -> None:
        self.output = "input"
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def weights(self, *shape: int, scale: float) -> str:
        """Add an initialiser of normally distributed numbers and return its name."""
        return self.tensor((scale * self._rng.standard_normal(shape)).astype(np.float32))

    def tensor(self, array: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """Add an initialiser and return its name."""
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> None:
        """Add a node; its output becomes `output`."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        self.output = name

    def reshape(self, *shape: int) -> None:
        """Add a node that reshapes `output`."""
        self.add("Reshape", self.output, self.tensor(np.array(shape, np.int64)))

    def bytes(self, width: int) -> bytes:
        """The ONNX file of the graph, with an input and an output (batch, width)."""
        self.nodes.append(helper.make_node("Identity", [self.output], ["output"]))
        specs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("input", "output")
        ]
        graph = helper.make_graph(self.nodes, "synthetic", specs[:1], specs[1:], self.tensors)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        serialized: bytes = made.SerializeToString()
        return serialized


def dense(width: int, *, layers: int, seed: int, padding_bytes: int = 0) -> bytes:
    """A network of dense layers with GELU, as an ONNX file.

    Args:
        width: input and output features of each layer.
        layers: number of layers.
        seed: seed of the weights.
        padding_bytes: size of an additional initialiser, a multiple of 4, that the graph reads without any effect.
    """
    graph = _Graph(seed)
    for _ in range(layers):
        graph.add("MatMul", graph.output, graph.weights(width, width, scale=width**-0.5))
        graph.add("Add", graph.output, graph.weights(width, scale=0.1))
        graph.add("Gelu", graph.output)
    if padding_bytes:
        _pad(graph, padding_bytes)
    return graph.bytes(width)


def kronecker(width: int, rank: int, *, layers: int, seed: int) -> bytes:
    """A network of Kronecker dual layers `Y = gelu(sum_k gelu(A_k X + C_k) B_k^T + D)`, as an ONNX file.

    The rows of all `A_k` are interleaved in one matrix, so that the sum over the branches is one product with all
    `B_k`: a layer is two matrix products for any rank.

    Args:
        width: input and output features of each layer, a square number.
        rank: number of branches.
        layers: number of layers.
        seed: seed of the weights.

    Raises:
        ValueError: `width` is not a square number.
    """
    side = math.isqrt(width)
    if side * side != width:
        raise ValueError(f"width: got {width}, expected a square number")
    graph = _Graph(seed)
    for _ in range(layers):
        graph.reshape(-1, side, side)  # (batch, n1, n2)
        graph.add("MatMul", graph.weights(side * rank, side, scale=side**-0.5), graph.output)  # (batch, m1 * r, n2)
        graph.add("Add", graph.output, graph.weights(side * rank, side, scale=0.1))
        graph.add("Gelu", graph.output)
        graph.reshape(-1, side, rank * side)  # (batch, m1, r * n2)
        graph.add(
            "MatMul", graph.output, graph.weights(rank * side, side, scale=(rank * side) ** -0.5)
        )  # (batch, m1, m2)
        graph.reshape(-1, width)
        graph.add("Add", graph.output, graph.weights(width, scale=0.1))
        graph.add("Gelu", graph.output)
    return graph.bytes(width)


def dense_macs(width: int, layers: int) -> int:
    """Multiply-adds of one sample in a network that `dense` builds."""
    return layers * width * width


def kronecker_macs(width: int, rank: int, layers: int) -> int:
    """Multiply-adds of one sample in a network that `kronecker` builds."""
    return layers * 2 * rank * width * math.isqrt(width)


def _pad(graph: _Graph, padding_bytes: int) -> None:
    """Add an initialiser and a lookup that depends on the input, so that no optimisation removes it."""
    output = graph.output
    table = graph.tensor(np.zeros((padding_bytes // 4, 1), np.float32))
    graph.add("ReduceMax", "input", keepdims=0)
    graph.add("Mul", graph.output, graph.tensor(np.zeros(1, np.float32)))
    graph.add("Cast", graph.output, to=TensorProto.INT64)
    graph.add("Gather", table, graph.output)
    graph.add("Add", output, graph.output)
