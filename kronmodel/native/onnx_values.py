"""Values that a reader of exported graphs follows from node to node, and the layers that are made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from kronmodel.native.network import Activation, KroneckerArrays

__all__ = [
    "Array", "Features", "Half", "Probabilities", "Sum", "UnsupportedError", "Value",
    "as_floats", "fold", "kronecker_arrays", "recover_factor",
]  # fmt: skip

Array = NDArray[Any]
MAX_CONSTANT = 1 << 26  # elements of an array that constant nodes compute


class UnsupportedError(Exception):
    """Reason why a node is not part of a network that can be read."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a sample, from the input or a finished layer.

    Attributes:
        layers: number of layers before.
        shape: present shape of a sample, after reshapes.
        shift: what has to be added to the values to get the features, of the same shape; None for nothing.
        final: whether the values are scaled outputs, which no layer may take.
    """

    layers: int
    shape: tuple[int, ...]
    shift: Array | None = None
    final: bool = False


@dataclass(frozen=True, eq=False)
class Half:
    """Features after the first product of a Kronecker layer.

    Attributes:
        source: features that the product takes.
        right: whether the second factor stands in this product.
        factor: ``(r * m1, n1)`` with the branch as the faster index, or ``(n2, r * m2)`` with the slower.
        shape: present shape of a sample, after reshapes.
        bias: inner bias, of the shape that the product gives; None for none.
        inner: activation.
        shift: as for features.
    """

    source: Features
    right: bool
    factor: Array
    shape: tuple[int, ...]
    bias: Array | None = None
    inner: Activation | None = None
    shift: Array | None = None


@dataclass(frozen=True, eq=False)
class Sum:
    """Sum of the branches of a Kronecker layer, or the product of a dense one, without an activation.

    Attributes:
        source: features that the layer takes.
        parts: branches of one order each: the half before the second product, and the second factor; for a dense
            layer None and its weight ``(out, in)``.
        shape: present shape of a sample, after reshapes.
        bias: ``(features,)``, float64; or None.
    """

    source: Features
    parts: tuple[tuple[Half | None, Array], ...]
    shape: tuple[int, ...]
    bias: Array | None = None


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Softmax of the last layer's output."""

    layers: int


Value = Features | Half | Sum | Probabilities


def as_floats(values: Array) -> NDArray[np.float32]:
    """Convert values to a contiguous float32 array."""
    return np.ascontiguousarray(values, np.float32)


def fold(node: onnx.NodeProto, inputs: list[Array], attributes: dict[str, Any]) -> Array:
    """Compute a node whose inputs are constant.

    Raises:
        UnsupportedError: it is none that an exported network has, or its result is too large.
    """
    if node.op_type == "Constant" and "value" in attributes:
        return numpy_helper.to_array(attributes["value"])
    if node.op_type in {"Add", "Mul"} and len(inputs) == 2:
        _check_size(np.broadcast_shapes(*(each.shape for each in inputs)))
        combined: Array = inputs[0] * inputs[1] if node.op_type == "Mul" else inputs[0] + inputs[1]
        return combined
    if node.op_type == "Flatten" and len(inputs) == 1:
        rows = math.prod(inputs[0].shape[: attributes.get("axis", 1)])
        return inputs[0].reshape(rows, -1)
    if node.op_type in _WEIGHT_RULES and inputs:
        return _WEIGHT_RULES[node.op_type](inputs, attributes)
    raise UnsupportedError("its inputs are constants")


def _dequantized(inputs: list[Array], attributes: dict[str, Any]) -> Array:
    """Multiply levels by the step size of all, or of each index of an axis."""
    levels, steps, *zeros = (np.asarray(each, np.float32) for each in inputs)
    if attributes.get("block_size", 0) or steps.ndim > 1:
        raise UnsupportedError("it dequantises in blocks")
    if steps.ndim:
        shape = [1] * levels.ndim
        shape[attributes.get("axis", 1)] = steps.size
        steps, zeros = steps.reshape(shape), [each.reshape(shape) for each in zeros]
    values: Array = (levels - sum(zeros, np.float32(0))) * steps
    return values


def _gathered(inputs: list[Array], attributes: dict[str, Any]) -> Array:
    """Choose branches of a factor or bias, which a layer with both orders has."""
    values, indices = inputs
    if indices.dtype != np.int64 or indices.ndim != 1 or attributes.get("axis", 0) != 0 or not values.ndim:
        raise UnsupportedError("it chooses other parts of a constant than rows")
    if indices.size and not (indices.min() >= 0 and indices.max() < len(values)):
        raise UnsupportedError(f"it chooses rows that a constant of {len(values):,} rows lacks")
    _check_size((indices.size, *values.shape[1:]))
    chosen: Array = values[indices]
    return chosen


def _check_size(shape: Sequence[int]) -> None:
    if math.prod(shape) > MAX_CONSTANT:
        raise UnsupportedError(f"its constant has more than {MAX_CONSTANT:,} elements")


_WEIGHT_RULES: dict[str, Callable[[list[Array], dict[str, Any]], Array]] = {
    "Cast": lambda inputs, attributes: np.asarray(inputs[0], np.float32),
    "DequantizeLinear": _dequantized,
    "Gather": _gathered,
    "Identity": lambda inputs, attributes: inputs[0],
    "Reshape": lambda inputs, attributes: inputs[0].reshape(inputs[1].tolist()),
    "Transpose": lambda inputs, attributes: inputs[0].transpose(attributes.get("perm")),
}
"""What computes weights from their quantised values, beside Add."""


def recover_factor(half: Half, matrix: Array) -> Array:
    """Recover the second factor of a layer from the matrix of a Gemm, a Kronecker product with an identity.

    Args:
        half: the flattened half that the Gemm takes.
        matrix: ``(width, out)``.

    Returns:
        the factor as the constant of a MatMul: ``(r * n2, m2)`` on the right, or ``(m1, n1 * r)`` on the left.
    """
    width, out = matrix.shape
    common = math.gcd(half.factor.shape[1 if half.right else 0], out)
    for size in (size for size in range(common, 0, -1) if common % size == 0):
        if half.right:
            blocks = matrix.reshape(width // size, size, out // size, size).transpose(1, 3, 2, 0)
        else:
            blocks = matrix.reshape(size, width // size, size, out // size).transpose(0, 2, 1, 3)
        same = np.eye(size, dtype=bool)  # of the axes that the identity stands in
        if not blocks[~same].any() and (blocks[same] == blocks[0, 0]).all():
            factor: Array = blocks[0, 0]
            return factor
    raise UnsupportedError("its matrix is not a factor")  # not reached: the size 1 always fits


def kronecker_arrays(parts: Sequence[tuple[Half, Array]], bias: Array, activation: Activation) -> KroneckerArrays:
    """Split the products of a layer into its branches."""
    parts = sorted(parts, key=lambda part: part[0].right)  # the left ones first
    inner = {half.inner or "none" for half, _ in parts}
    if len(inner) > 1:
        raise UnsupportedError(f"its branches have different activations: {', '.join(sorted(inner))}")
    first, second, right = [], [], []
    biases: dict[bool, list[Array]] = {False: [], True: []}
    for half, other in parts:
        size = math.prod(half.shape)
        if half.right:  # (n1, r, m2) between the products
            n2, columns = half.factor.shape
            n1 = size // columns
            (m1, inside), rank = other.shape, other.shape[1] // n1
            m2 = columns // rank if rank else 0
            fits = inside == n1 * rank and columns == rank * m2
            middle = (n1, rank, m2)
        else:  # (m1, r, n2)
            rows, n1 = half.factor.shape
            n2 = size // rows
            (inside, m2), rank = other.shape, other.shape[0] // n2
            m1 = rows // rank if rank else 0
            fits = inside == rank * n2 and rows == m1 * rank
            middle = (m1, rank, n2)
        if not fits:
            raise UnsupportedError(f"its factors {half.factor.shape} and {other.shape} don't fit each other")
        if half.right:
            first.append(other.reshape(m1, n1, rank).transpose(2, 0, 1))
            second.append(half.factor.reshape(n2, rank, m2).transpose(1, 2, 0))
        else:
            first.append(half.factor.reshape(m1, rank, n1).transpose(1, 0, 2))
            second.append(other.reshape(rank, n2, m2).transpose(0, 2, 1))
        right.extend([half.right] * rank)
        offset = np.zeros(size) if half.bias is None else half.bias
        biases[half.right].append(offset.reshape(middle).transpose(1, 0, 2))
    has_bias = any(half.bias is not None for half, _ in parts)
    left_bias, right_bias = (
        as_floats(np.concatenate(biases[side])) if has_bias and biases[side] else None for side in (False, True)
    )
    return KroneckerArrays(
        first=as_floats(np.concatenate(first)),
        second=as_floats(np.concatenate(second)),
        right=np.array(right),
        left_bias=left_bias,
        right_bias=right_bias,
        bias=as_floats(bias),
        inner=inner.pop(),
        activation=activation,
    )
