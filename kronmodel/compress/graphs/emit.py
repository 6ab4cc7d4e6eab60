"""Standard ONNX operators that apply a structured matrix in place of a Gemm, MatMul or Conv node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kronmodel.compress.graphs.layers import Use
from kronmodel.compress.matrices.structures import Structure

__all__ = ["AddConstant", "can_emit", "emit"]

Array = NDArray[Any]
AddConstant = Callable[[str, Array], str]
"""Function that adds a constant to the model, named after the given name, and returns the name of its value."""


def can_emit(use: Use, structure: Structure) -> bool:
    """Tell whether a node can be replaced by operators for a structure.

    Kronecker and Monarch matrices reshape the node's input, which needs a known number of axes.
    """
    if structure.kind in ("dense", "low-rank"):
        return True
    if use.kind not in ("Gemm", "MatMul") or use.rank is None:
        return False
    if structure.kind == "kronecker":
        return len(structure.in_shape) == 2
    return structure.kind == "monarch" and use.rank == 2


def emit(
    use: Use,
    structure: Structure,
    kernel: tuple[int, ...],
    factors: Sequence[Array],
    *,
    bias: Array | None,
    add_constant: AddConstant,
) -> list[onnx.NodeProto]:
    """Build the nodes that replace a node, from the same input to the same output.

    Args:
        use: the node to replace.
        structure: structure of the new matrix.
        kernel: shape of the kernel of a convolution.
        factors: the structure's factors, in the type of the node's weight.
        bias: new bias ``(out,)``; None keeps the node's own bias.
        add_constant: adds the factors to the model.
    """
    builder = _Builder(use, add_constant)
    if structure.kind == "dense":
        return _dense(builder, kernel, factors[0], bias)
    if use.kind == "Conv":
        return _convolutions(builder, kernel, factors, bias)
    alpha = use.attribute("alpha", 1.0) if use.kind == "Gemm" else 1.0
    if alpha != 1.0:
        factors = [*factors[:-1], (factors[-1] * factors[-1].dtype.type(alpha)).astype(factors[-1].dtype)]
    x = use.x
    if use.kind == "Gemm" and use.attribute("transA", 0):
        x = builder.add("Transpose", [x], perm=[1, 0])
    if structure.kind == "low-rank":
        return _low_rank(builder, x, factors, bias)
    rank = use.rank or 2
    apply = _kronecker if structure.kind == "kronecker" else _monarch
    return _with_bias(builder, apply(builder, x, rank, structure, factors), factors, bias)


class _Builder:
    """Nodes in place of one node, with names after that node's; the last one gets its output.

    Args:
        use: the node to replace.
        add_constant: adds constants to the model.
    """

    def __init__(self, use: Use, add_constant: AddConstant) -> None:
        self.use = use
        self.nodes: list[onnx.NodeProto] = []
        self._base = use.node.name or use.node.output[0]
        self._add_constant = add_constant

    def constant(self, name: str, array: Array) -> str:
        return self._add_constant(f"{self._base}.{name}", np.ascontiguousarray(array))

    def shape(self, name: str, *sizes: int) -> str:
        return self.constant(name, np.array(sizes, np.int64))

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node with one output, and return the name of that output."""
        name = f"{self._base}.compressed.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def finish(self) -> list[onnx.NodeProto]:
        """Give the last node the output of the replaced one, and return all nodes."""
        self.nodes[-1].output[0] = self.use.node.output[0]
        self.nodes[-1].name = self.use.node.name or self.nodes[-1].name
        return self.nodes

    def bias(self, bias: Array | None) -> str:
        """Return the name of the bias that the replaced node adds; empty without one."""
        if bias is not None:
            return self.constant("bias", bias)
        node = self.use.node
        return node.input[2] if self.use.kind in ("Gemm", "Conv") and len(node.input) > 2 else ""


def _dense(builder: _Builder, kernel: tuple[int, ...], weight: Array, bias: Array | None) -> list[onnx.NodeProto]:
    """Add the same node with another weight and bias."""
    use, node = builder.use, builder.use.node
    if use.kind == "Conv":
        weight = weight.reshape(len(weight), -1, *kernel)
    elif use.kind == "MatMul" or (use.kind == "Gemm" and not use.attribute("transB", 0)):
        weight = weight.T
    name = builder.constant("weight", weight)
    inputs = [name, use.x] if use.kind == "left MatMul" else [use.x, name]
    bias_name = builder.bias(bias) if node.op_type != "MatMul" else ""
    builder.add(node.op_type, [*inputs, *([bias_name] if bias_name else [])])
    skipped = ("beta",) if bias is not None else ()
    builder.nodes[-1].attribute.extend(each for each in node.attribute if each.name not in skipped)
    return builder.finish()


def _low_rank(builder: _Builder, x: str, factors: Sequence[Array], bias: Array | None) -> list[onnx.NodeProto]:
    left, right = factors  # (out, r), (r, in)
    if builder.use.kind == "left MatMul":
        inner = builder.add("MatMul", [builder.constant("right", right), x])
        builder.add("MatMul", [builder.constant("left", left), inner])
        return builder.finish()
    inner = builder.add("MatMul", [x, builder.constant("right", right.T)])
    bias_name = builder.bias(bias) if builder.use.kind == "Gemm" else ""
    if bias_name:
        beta = {} if bias is not None else _beta(builder.use)
        builder.add("Gemm", [inner, builder.constant("left", left.T), bias_name], **beta)
    else:
        builder.add("MatMul", [inner, builder.constant("left", left.T)])
    return builder.finish()


def _beta(use: Use) -> dict[str, float]:
    beta = use.attribute("beta", 1.0)
    return {} if beta == 1.0 else {"beta": beta}


def _convolutions(
    builder: _Builder, kernel: tuple[int, ...], factors: Sequence[Array], bias: Array | None
) -> list[onnx.NodeProto]:
    left, right = factors  # (out, r), (r, channels * prod(kernel))
    node = builder.use.node
    inner = builder.add("Conv", [node.input[0], builder.constant("right", right.reshape(len(right), -1, *kernel))])
    builder.nodes[-1].attribute.extend(node.attribute)
    ones = [1] * len(kernel)
    bias_name = builder.bias(bias)
    weight = builder.constant("left", left.reshape(*left.shape, *ones))
    builder.add("Conv", [inner, weight, *([bias_name] if bias_name else [])], kernel_shape=ones)
    return builder.finish()


def _kronecker(builder: _Builder, x: str, rank: int, structure: Structure, factors: Sequence[Array]) -> str:
    """Add the nodes of ``Σ_k A_k X B_kᵀ``, in the order that needs fewer multiply-adds."""
    a, b = factors  # (r, m1, n1), (r, m2, n2)
    (terms, m1, n1), (_, m2, n2) = a.shape, b.shape
    rows = [0] * (rank - 1)
    value = builder.add("Reshape", [x, builder.shape("in_shape", *rows, n1, n2)])
    if n1 * m2 * (n2 + m1) <= m1 * n2 * (n1 + m2):
        # (n1, n2) @ (n2, r m2) = (n1, r m2), the same values as (n1 r, m2); (m1, n1 r) @ (n1 r, m2) sums over the terms
        value = builder.add("MatMul", [value, builder.constant("right", b.transpose(2, 0, 1).reshape(n2, -1))])
        if terms > 1:
            value = builder.add("Reshape", [value, builder.shape("inner_shape", *rows, n1 * terms, m2)])
        left = builder.constant("left", a.transpose(1, 2, 0).reshape(m1, -1))
        value = builder.add("MatMul", [left, value])
    else:
        # (m1 r, n1) @ (n1, n2) = (m1 r, n2), the same values as (m1, r n2); (m1, r n2) @ (r n2, m2) sums over the terms
        value = builder.add("MatMul", [builder.constant("left", a.transpose(1, 0, 2).reshape(-1, n1)), value])
        if terms > 1:
            value = builder.add("Reshape", [value, builder.shape("inner_shape", *rows, m1, terms * n2)])
        right = builder.constant("right", b.transpose(0, 2, 1).reshape(-1, m2))
        value = builder.add("MatMul", [value, right])
    return builder.add("Reshape", [value, builder.shape("out_shape", *rows, structure.out_features)])


def _monarch(builder: _Builder, x: str, rank: int, structure: Structure, factors: Sequence[Array]) -> str:
    """Add the nodes of ``y[i, t] = Σ_jk L[t, i, j, k] Σ_p R[j, t, k, p] x[j, p]`` for inputs ``(rows, in)``."""
    left, right = factors  # (t, m1, n1, r), (n1, t, r, n2)
    (n1, n2), (m1, t), terms = structure.in_shape, structure.out_shape, structure.rank
    value = builder.add("Reshape", [x, builder.shape("in_shape", 0, n1, n2)])
    value = builder.add("Transpose", [value], perm=[1, 0, 2])  # (n1, rows, n2)
    weight = right.transpose(0, 3, 1, 2).reshape(n1, n2, t * terms)
    value = builder.add("MatMul", [value, builder.constant("right", weight)])  # (n1, rows, t r)
    value = builder.add("Reshape", [value, builder.shape("inner_shape", n1, 0, t, terms)])
    value = builder.add("Transpose", [value], perm=[2, 1, 0, 3])  # (t, rows, n1, r)
    value = builder.add("Reshape", [value, builder.shape("outer_shape", t, 0, n1 * terms)])
    weight = left.transpose(0, 2, 3, 1).reshape(t, n1 * terms, m1)
    value = builder.add("MatMul", [value, builder.constant("left", weight)])  # (t, rows, m1)
    value = builder.add("Transpose", [value], perm=[1, 2, 0])  # (rows, m1, t)
    return builder.add("Reshape", [value, builder.shape("out_shape", 0, m1 * t)])


def _with_bias(builder: _Builder, value: str, factors: Sequence[Array], bias: Array | None) -> list[onnx.NodeProto]:
    """Add the bias of a Gemm; an Add that follows a MatMul stays where it is."""
    name = builder.bias(bias) if builder.use.kind == "Gemm" else ""
    if name:
        beta = builder.use.attribute("beta", 1.0)
        if bias is None and beta != 1.0:
            name = builder.add("Mul", [name, builder.constant("beta", np.array(beta, factors[0].dtype))])
        builder.add("Add", [value, name])
    return builder.finish()
