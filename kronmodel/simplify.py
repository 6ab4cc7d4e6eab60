"""An exported graph without reshapes that undo each other: a sixth of a small network's nodes and of their cost."""

from __future__ import annotations

import math

import onnx
from onnx import numpy_helper

__all__ = ["merge_reshapes"]

_ELEMENTWISE = frozenset({"Gelu", "Relu", "Tanh"})


def merge_reshapes(model: onnx.ModelProto) -> int:
    """Give a bias and an activation the shape that is there anyway; the model is changed in place.

    Between two Kronecker layers the features are flattened for the bias and folded again for the next factor. Where
    what is flattened has the shape to which it is folded, both reshapes go, and the bias gets that shape.

    Returns:
        How many reshapes were dropped.
    """
    graph = model.graph
    before = len(graph.node)
    shapes = _shapes(model)
    constants = {each.name: each for each in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    kept = {output.name for output in graph.output}

    def only_consumer(name: str) -> onnx.NodeProto | None:
        found = consumers.get(name, [])
        return found[0] if len(found) == 1 and name not in kept else None

    for add in [node for node in graph.node if node.op_type == "Add"]:
        flat, bias = _split(add, constants)
        flatten = producers.get(flat)
        if flatten is None or flatten.op_type != "Reshape" or not bias or only_consumer(flat) is not add:
            continue
        last, after = add, only_consumer(add.output[0])
        while after is not None and after.op_type in _ELEMENTWISE:
            last, after = after, only_consumer(after.output[0])
        if after is None or after.op_type != "Reshape" or len(consumers[bias]) != 1:
            continue
        source = flatten.input[0]
        there, wanted = shapes.get(source, ()), tuple(numpy_helper.to_array(constants[after.input[1]]).tolist())
        values = numpy_helper.to_array(constants[bias])
        if not there or there[1:] != wanted[1:] or values.shape != (math.prod(there[1:]),):
            continue
        constants[bias].CopyFrom(numpy_helper.from_array(values.reshape(there[1:]), bias))
        add.input[:] = [source if name == flat else name for name in add.input]
        last.output[0] = after.output[0]
        for node in (flatten, after):
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for constant in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(constant)
    return before - len(graph.node)


def _split(add: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[str, str]:
    """What is added up: the features and the bias; an empty name for what it hasn't."""
    features = [name for name in add.input if name not in constants]
    biases = [name for name in add.input if name in constants]
    return (features[0], biases[0]) if len(features) == len(biases) == 1 else ("", "")


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every value; a variable size is 0."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return {
        each.name: tuple(dim.dim_value for dim in each.type.tensor_type.shape.dim) for each in inferred.graph.value_info
    }
