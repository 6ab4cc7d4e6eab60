"""Weights that an ONNX file stores as integers, behind which DequantizeLinear stands, and its ranges of activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from kronmodel.errors import ExportError
from kronmodel.native.quantize import Range

__all__ = ["StoredGraph", "unfold"]

BITS = {onnx.TensorProto.INT8: 8, onnx.TensorProto.INT4: 4, getattr(onnx.TensorProto, "INT2", -1): 2}
MAX_CONSTANT = 1 << 26  # elements of an array that constant nodes compute


@dataclass(frozen=True)
class StoredGraph:
    """Graph whose constants are computed, in versions with the same nodes.

    Attributes:
        values: with the real values of the weights.
        steps: with the real value of the number 1 in the place of each stored weight, and zeros for others.
        bits: with the bits of each stored weight, and zeros for others.
        biases: of stored weights with a number a column, and of others: the integers, and the real value of the
            number 1; zeros for the other ones.
        ranges: of activations that the graph quantises, in the order of its nodes.
    """

    values: onnx.ModelProto
    steps: onnx.ModelProto
    bits: onnx.ModelProto
    biases: tuple[tuple[onnx.ModelProto, onnx.ModelProto], ...]
    ranges: tuple[Range, ...]


def unfold(model: onnx.ModelProto, name: str) -> StoredGraph | None:
    """Compute the constants of a graph, and take the quantisation of activations out of it.

    Args:
        model: the model.
        name: of the model in errors.

    Returns:
        the graphs; None if the graph stores no weights as integers.

    Raises:
        ExportError: the constants can't be computed.
    """
    constants = {each.name: each for each in model.graph.initializer}
    if not any(node.op_type == "DequantizeLinear" and node.input[0] in constants for node in model.graph.node):
        return None
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    ranges = _take_ranges(plain.graph, constants)
    try:
        values, steps, bits = (_folded(plain, constants, kind) for kind in (_values, _steps, _bits))
        biases = tuple(
            (
                _folded(plain, constants, partial(_part, columns, _levels)),
                _folded(plain, constants, partial(_part, columns, _steps)),
            )
            for columns in (False, True)
        )
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, NotImplementedError) as error:
        text = " ".join(str(error).split())[:200]
        raise ExportError(f"{name}: its constants can't be computed: {text}; export it again") from error
    return StoredGraph(values, steps, bits, biases, tuple(ranges))


def _array(tensor: onnx.TensorProto) -> NDArray[Any]:
    return numpy_helper.to_array(tensor)


def _take_ranges(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> list[Range]:
    """Remove pairs of QuantizeLinear and DequantizeLinear behind activations; return their ranges."""
    ranges, kept = [], []
    renamed: dict[str, str] = {}
    quantized: dict[str, str] = {}
    for node in graph.node:
        for index, given in enumerate(node.input):
            node.input[index] = renamed.get(given, given)
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants and len(node.input) == 3:
            scale, zero = (_array(constants[each]) for each in node.input[1:] if each in constants)
            if scale.size == 1 and zero.dtype in (np.uint8, np.int8):
                quantized[node.output[0]] = node.input[0]
                offset = 128 if zero.dtype == np.int8 else 0
                ranges.append(Range(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]) + offset))
                continue
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized:
            renamed[node.output[0]] = quantized[node.input[0]]
            continue
        kept.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)
    return ranges


Kind = Callable[[onnx.TensorProto, NDArray[Any]], NDArray[Any]]


def _values(levels: onnx.TensorProto, steps: NDArray[Any]) -> NDArray[Any]:
    product: NDArray[Any] = _array(levels).astype(np.float32) * steps
    return product


def _steps(levels: onnx.TensorProto, steps: NDArray[Any]) -> NDArray[Any]:
    return np.broadcast_to(steps, tuple(levels.dims)).astype(np.float32)


def _levels(levels: onnx.TensorProto, _: NDArray[Any]) -> NDArray[Any]:
    return _array(levels).astype(np.float32)


def _part(columns: bool, kind: Kind, levels: onnx.TensorProto, steps: NDArray[Any]) -> NDArray[Any]:
    """Compute weights that have one number a column only, or others; zeros in the place of the rest."""
    sizes = tuple(levels.dims)
    is_column = len(sizes) > 1 and sizes[-1] != 1 and sizes[-2] == 1
    return kind(levels, steps) if is_column == columns else np.zeros(sizes, np.float32)


def _bits(levels: onnx.TensorProto, steps: NDArray[Any]) -> NDArray[Any]:
    return np.full(tuple(levels.dims), BITS[levels.data_type], np.float32)


def _folded(model: onnx.ModelProto, constants: dict[str, onnx.TensorProto], kind: Kind) -> onnx.ModelProto:
    """Compute all nodes of constants, with other numbers in the place of stored weights.

    Weights in floats become zeros in the versions with steps and bits; what shapes need stays.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    known = {name: _array(tensor) for name, tensor in constants.items()}
    plain = set(known)  # that hold no stored weight
    rest = []
    for node in graph.node:
        if not all(each in known for each in node.input if each) or not node.input:
            rest.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        if node.op_type == "DequantizeLinear" and constants.get(node.input[0], onnx.TensorProto()).data_type in BITS:
            known[node.output[0]] = _dequantized(node, constants[node.input[0]], known[node.input[1]], kind)
            plain.discard(node.input[0])
            continue
        if any(known[each].size > MAX_CONSTANT for each in node.input if each):
            raise ValueError(f"{node.op_type} takes more than {MAX_CONSTANT:,} elements")
        result: Any = ReferenceEvaluator(node).run(None, {each: known[each] for each in node.input if each})
        known.update(zip(node.output, result, strict=True))
        if all(each in plain for each in node.input if each):
            plain.update(node.output)
    used = {each for node in rest for each in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rest)
    for name in sorted(used & known.keys()):
        values = known[name]
        if kind is not _values and name in plain and values.dtype == np.float32:
            values = np.zeros_like(values)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return folded


def _dequantized(node: onnx.NodeProto, levels: onnx.TensorProto, steps: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """Compute a DequantizeLinear node with symmetric levels, of one step or of one a slice along an axis."""
    attributes = {each.name: each.i for each in node.attribute}
    if len(node.input) > 2 and node.input[2]:
        raise ValueError(f"{node.output[0]} has a zero point, expected weights without one")
    if attributes.get("block_size", 0):
        raise ValueError(f"{node.output[0]} has steps of blocks, expected one for each row")
    steps = steps.astype(np.float32)
    if steps.size > 1:
        shape = [1] * len(levels.dims)
        shape[attributes.get("axis", 1)] = steps.size
        steps = steps.reshape(shape)
    return kind(levels, steps)
