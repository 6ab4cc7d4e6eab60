"""Queries and edits of an ONNX graph for passes: nodes, producers, consumers, shapes and constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["Graph"]

Array = NDArray[Any]


class Graph:
    """Queries and in-place edits of the main graph of an ONNX model.

    Shapes are inferred once, on construction.

    Args:
        model: the model to edit; its nodes must not hold subgraphs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._outputs = {output.name for output in model.graph.output}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self._shapes = {
            each.name: tuple(dim.dim_value for dim in each.type.tensor_type.shape.dim)
            for each in (*inferred.value_info, *inferred.input, *inferred.output)
        }

    def nodes(self, op_type: str) -> list[onnx.NodeProto]:
        """List the nodes of an operator type in topological order."""
        return [node for node in self._graph.node if node.op_type == op_type]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the inferred shape of a value, with 0 for a dynamic size; an empty tuple if the shape is unknown."""
        return self._shapes.get(name, ())

    def constant(self, name: str) -> Array | None:
        """Return the array of an initializer, or None if there is no initializer of this name."""
        found = next((each for each in self._graph.initializer if each.name == name), None)
        return None if found is None else numpy_helper.to_array(found)

    def split(self, node: onnx.NodeProto) -> tuple[str, str]:
        """Return the names of a node's computed input and its constant input.

        Both names are empty strings unless the node has exactly one input of each kind.
        """
        names = {each.name for each in self._graph.initializer}
        computed = [name for name in node.input if name not in names]
        constant = [name for name in node.input if name in names]
        return (computed[0], constant[0]) if len(computed) == len(constant) == 1 else ("", "")

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a value; None for inputs and constants of the graph."""
        return next((node for node in self._graph.node if name in node.output), None)

    def consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that consumes a value if it is the only one; None if the value is an output of the graph."""
        found = self._consumers(name)
        return found[0] if len(found) == 1 and name not in self._outputs else None

    def set_constant(self, node: onnx.NodeProto, name: str, value: Array) -> None:
        """Replace the value of a constant input of one node; other consumers of the constant keep the old value."""
        if len(self._consumers(name)) == 1:
            next(each for each in self._graph.initializer if each.name == name).CopyFrom(
                numpy_helper.from_array(value, name)
            )
        else:
            own = self.add_constant(f"{node.output[0]}.{name}", value)
            node.input[:] = [own if each == name else each for each in node.input]

    def add_constant(self, name: str, value: Array) -> str:
        """Add an initializer to the graph, and return its name."""
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def insert(self, before: onnx.NodeProto, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Insert a node with a single output before another node, and return the name of that output."""
        index = next(index for index, node in enumerate(self._graph.node) if node is before)
        self._graph.node.insert(index, helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def remove(self, *nodes: onnx.NodeProto) -> None:
        """Remove nodes from the graph, and then all constants that no remaining node consumes."""
        for node in nodes:
            self._graph.node.remove(node)
        used = {name for node in self._graph.node for name in node.input}
        for constant in [each for each in self._graph.initializer if each.name not in used]:
            self._graph.initializer.remove(constant)

    def _consumers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self._graph.node for each in node.input if each == name]
