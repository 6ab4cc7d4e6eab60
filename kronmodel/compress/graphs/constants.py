"""Constants of an ONNX model: stored weights, and values computed from them by reshapes, casts and dequantisation."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from kronmodel.compress.graphs.scopes import Scope, Value, is_standard, node_title, scopes_of
from kronmodel.compress.graphs.workspace import Workspace, byte_size
from kronmodel.errors import KronmodelError

__all__ = ["OVERRIDABLE_SINCE", "Constant", "Constants"]

FOLDABLE = frozenset(
    ("Identity", "Transpose", "Cast", "DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
)  # operators between stored weights and the node that uses them
LEAST_OPSETS = {"DequantizeLinear": 19}  # of onnx's reference, where the operator has computed the same ever since
OVERRIDABLE_SINCE = 4  # version of the format from which callers may override an initializer that is also an input


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant value of a model.

    Attributes:
        array: its values, as the node that uses them receives them.
        stored: the stored tensors that it is computed from.
        chain: all values on the way, from the stored tensors to this constant.
        dtype: type in which the largest stored tensor is stored.
        bytes: size of the stored tensors.
    """

    array: NDArray[Any]
    stored: frozenset[Value]
    chain: frozenset[Value]
    dtype: np.dtype[Any]
    bytes: int


class Constants:
    """Constants of a model by scope and name, and the nodes that use each value.

    Args:
        workspace: holds the weights.

    Attributes:
        scopes: the model's scopes, each before those inside it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        model = workspace.model
        self._overridable = model.ir_version >= OVERRIDABLE_SINCE
        self._opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        self.scopes = list(scopes_of(model))
        self._consumers: dict[Value, list[tuple[Scope, int | None]]] = defaultdict(list)
        for scope in self.scopes:
            for index, node in enumerate(scope.graph.node):
                for name in node.input:
                    self._add_consumer(scope, name, index)
            for output in scope.graph.output:
                self._add_consumer(scope, output.name, None)

    def _add_consumer(self, scope: Scope, name: str, index: int | None) -> None:
        found = scope.find(name) if name else None
        if found is not None:
            self._consumers[found[1]].append((scope, index))

    def consumers(self, value: Value) -> list[tuple[Scope, int | None]]:
        """List the nodes that use a value by scope and index; the index is None for an output of the scope's graph."""
        return self._consumers.get(value, [])

    def is_overridable(self, scope: Scope, name: str) -> bool:
        """Tell whether a name belongs to an initializer that callers of the model may override."""
        found = scope.find(name)
        return found is not None and self._overridable and found[0].is_overridable(name)

    def find(self, scope: Scope, name: str) -> Constant | None:
        """Compute a constant; None if the value depends on inputs of the model.

        Raises:
            KronmodelError: the operators between the stored weights and the value can't be computed.
        """
        found = scope.find(name) if name else None
        if found is None or self.is_overridable(scope, name):
            return None
        home, value = found
        tensor = home.initializer(name)
        node = home.producer(name)
        if tensor is not None:
            array = self._workspace.array(tensor)
            return Constant(array, frozenset((value,)), frozenset((value,)), array.dtype, byte_size(tensor))
        if node is None or not is_standard(node):
            return None
        if node.op_type == "Constant":
            return self._constant_node(node, value)
        return self._computed(home, node, value) if node.op_type in FOLDABLE else None

    def _constant_node(self, node: onnx.NodeProto, value: Value) -> Constant | None:
        tensor = next((each.t for each in node.attribute if each.name == "value"), None)
        if tensor is None:
            return None
        array = numpy_helper.to_array(tensor)
        return Constant(array, frozenset((value,)), frozenset((value,)), array.dtype, byte_size(tensor))

    def _computed(self, scope: Scope, node: onnx.NodeProto, value: Value) -> Constant | None:
        parts = {name: self.find(scope, name) for name in node.input if name}
        known = [part for part in parts.values() if part is not None]
        if len(known) < len(parts):
            return None
        array = _compute(node, [None if not name else parts[name] for name in node.input], self._opset)
        largest = max(known, key=lambda part: part.bytes)
        return Constant(
            np.asarray(array),
            frozenset().union(*(part.stored for part in known)),
            frozenset((value,)).union(*(part.chain for part in known)),
            largest.dtype,
            sum(part.bytes for part in known),
        )


def _compute(node: onnx.NodeProto, inputs: list[Constant | None], opset: int) -> NDArray[Any]:
    """Compute the output of a node with constant inputs.

    Raises:
        KronmodelError: the node can't be computed.
    """
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    arrays = [None if each is None else np.asarray(each.array) for each in inputs]
    first = arrays[0]
    assert first is not None
    if node.op_type == "Identity":
        return first
    if node.op_type == "Transpose":
        return first.transpose(attributes.get("perm"))
    if node.op_type == "Cast":
        return first.astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))
    return _evaluated(node, arrays, opset)


def _evaluated(node: onnx.NodeProto, arrays: list[NDArray[Any] | None], opset: int) -> NDArray[Any]:
    """Compute a node with constant inputs in onnx's reference, which knows all types, such as those of 2 and 4 bits."""
    from onnx.reference import ReferenceEvaluator  # takes part of a second to import

    names = [f"input {place}" if array is not None else "" for place, array in enumerate(arrays)]
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:], copy.output[:] = names, ["output"]
    values = [onnx.ValueInfoProto(name=name) for name in (*filter(None, names), "output")]
    graph = onnx.helper.make_graph([copy], "node", values[:-1], values[-1:])
    version = max(opset, LEAST_OPSETS.get(node.op_type, 0))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    try:
        outputs: Any = ReferenceEvaluator(model).run(None, feeds)
        return np.asarray(outputs[0])
    except Exception as error:  # operators of the reference raise whatever numpy does
        reason = " ".join(str(error).split())[:200]
        raise KronmodelError(f"the weights behind {node_title(node)} can't be computed: {reason}") from error
