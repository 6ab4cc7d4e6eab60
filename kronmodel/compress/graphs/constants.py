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
from kronmodel.compress.graphs.session import open_session, run
from kronmodel.compress.graphs.workspace import Workspace, byte_size
from kronmodel.errors import KronmodelError

__all__ = ["OVERRIDABLE_SINCE", "Constant", "Constants"]

FOLDABLE = frozenset(
    ("Identity", "Transpose", "Cast", "DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
)  # operators between stored weights and the node that uses them
IR_VERSION = 10  # the first with all types of quantised weights
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
        KronmodelError: onnxruntime can't run the node.
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
    return _run(node, arrays, opset)


def _run(node: onnx.NodeProto, arrays: list[NDArray[Any] | None], opset: int) -> NDArray[Any]:
    """Compute a node with constant inputs in onnxruntime."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    names = [f"input {place}" if array is not None else "" for place, array in enumerate(arrays)]
    copy.input[:], copy.output[:] = names, ["output"]
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    graph = onnx.helper.make_graph(
        [copy],
        "node",
        [onnx.helper.make_tensor_value_info(name, kinds[name], list(feeds[name].shape)) for name in feeds],
        [onnx.ValueInfoProto(name="output")],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
    try:
        outputs = run(open_session(model.SerializeToString()), feeds, node_title(node))
    except KronmodelError as error:
        raise KronmodelError(f"the weights behind {node_title(node)} can't be computed: {error}") from error
    return np.asarray(outputs[0])
