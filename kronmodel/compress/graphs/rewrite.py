"""Replacement of layers in an ONNX model by fitted structures; everything else stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kronmodel.compress.graphs.constants import OVERRIDABLE_SINCE, Constants
from kronmodel.compress.graphs.emit import emit
from kronmodel.compress.graphs.layers import GraphLayer, Use
from kronmodel.compress.graphs.scopes import Scope, Value, scopes_of
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.candidates import Fitted
from kronmodel.errors import KronmodelError

__all__ = ["replace_layers"]

Key = tuple[tuple[str, ...], int]


def replace_layers(
    workspace: Workspace,
    model: onnx.ModelProto,
    constants: Constants,
    replacements: Sequence[tuple[GraphLayer, Fitted]],
) -> onnx.ModelProto:
    """Copy a model with layers replaced; inputs, outputs, opset, metadata and all other nodes stay.

    Args:
        workspace: takes the new weights.
        model: the workspace's model, or a copy of it with more outputs and more nodes at its ends.
        constants: constants of the workspace's model.
        replacements: layers, and the structures that take their places.

    Raises:
        KronmodelError: a weight is out of the range of the type in which the layer stores its weights.
    """
    rewriter = _Rewriter(workspace, model, constants)
    for layer, fitted in replacements:
        rewriter.replace(layer, fitted)
    return rewriter.finish()


@dataclass(frozen=True)
class _Edit:
    """New name of an input of a node that stays."""

    input: int
    name: str


class _Rewriter:
    def __init__(self, workspace: Workspace, model: onnx.ModelProto, constants: Constants) -> None:
        self._workspace, self._constants = workspace, constants
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._scopes = list(scopes_of(self._model))
        self._names = {name for scope in self._scopes for name in scope.names()}
        self._nodes: dict[Key, list[onnx.NodeProto]] = {}
        self._edits: dict[Key, list[_Edit]] = {}
        self._dead: set[Value] = set()
        self._replaced_biases: list[tuple[Scope, str]] = []
        self._tensors: list[onnx.TensorProto] = []
        self._casts: list[onnx.NodeProto] = []

    def replace(self, layer: GraphLayer, fitted: Fitted) -> None:
        """Plan the replacement of a layer by a fitted structure."""
        factors = [self._typed(layer, factor) for factor in fitted.factors]
        shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}

        def add_constant(name: str, array: NDArray[Any]) -> str:
            if name.endswith(".bias"):
                return self._add_constant(name, array, None)
            if len(layer.uses) == 1:
                return self._add_constant(name, array, layer)
            key = (array.dtype.name, array.shape, array.tobytes())  # the uses of a shared weight share the new one
            if key not in shared:
                shared[key] = self._add_constant(name, array, layer)
            return shared[key]

        for use in layer.uses:
            bias = self._new_bias(layer, use, fitted)
            self._nodes[use.key] = emit(
                use, fitted.structure, layer.kernel, factors, bias=bias, add_constant=add_constant
            )
            if bias is None or use.bias is None:
                continue
            scope = next(each for each in self._constants.scopes if each.path == use.path)
            self._replaced_biases.append((scope, scope.graph.node[use.bias.node].input[use.bias.input]))
            if use.bias.node != use.index:
                name = self._add_constant(
                    f"{use.node.name or use.node.output[0]}.bias", bias.reshape(use.bias.shape), None
                )
                self._edits.setdefault((use.path, use.bias.node), []).append(_Edit(use.bias.input, name))
        self._dead |= layer.constant.chain

    def finish(self) -> onnx.ModelProto:
        """Apply the plan, and return the model."""
        self._dead |= self._dead_biases()
        for scope in reversed(self._scopes):  # inner scopes first, because the outer ones copy their nodes
            nodes = []
            for index, node in enumerate(scope.graph.node):
                key = (scope.path, index)
                for edit in self._edits.get(key, ()):
                    node.input[edit.input] = edit.name
                if key in self._nodes:
                    nodes += self._nodes[key]
                elif not (node.output and all(Value(scope.path, name) in self._dead for name in node.output)):
                    nodes.append(node)
            self._set(scope.graph.node, [*(self._casts if scope.parent is None else []), *nodes])
            self._drop(scope)
        graph = self._model.graph
        graph.initializer.extend(self._tensors)
        if self._model.ir_version < OVERRIDABLE_SINCE:
            graph.input.extend(
                helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)) for each in self._tensors
            )
        return self._model

    def _drop(self, scope: Scope) -> None:
        """Remove the tensors and descriptions of values that are gone from a graph."""
        graph = scope.graph
        dead = {value.name for value in self._dead if value.path == scope.path}
        stored = {each.name for each in graph.initializer} & dead
        self._set(graph.initializer, [each for each in graph.initializer if each.name not in dead])
        self._set(graph.input, [each for each in graph.input if each.name not in stored])
        self._set(graph.value_info, [each for each in graph.value_info if each.name not in dead])
        annotations = graph.quantization_annotation
        self._set(annotations, [each for each in annotations if each.tensor_name not in dead])

    @staticmethod
    def _set(field: Any, kept: list[Any]) -> None:
        """Set the entries of a repeated field to copies of these; nothing is done if all its entries are kept."""
        if len(kept) == len(field) and all(one is other for one, other in zip(kept, field, strict=True)):
            return
        copies = []
        for each in kept:
            copy = type(each)()
            copy.CopyFrom(each)
            copies.append(copy)
        del field[:]
        field.extend(copies)

    def _typed(self, layer: GraphLayer, factor: NDArray[Any]) -> NDArray[Any]:
        """Round a factor to the type in which the layer's weight is stored."""
        kind = layer.new_dtype
        with np.errstate(over="ignore"):
            typed = factor.astype(kind)
        if not np.isfinite(typed.astype(np.float32)).all():
            raise KronmodelError(f"{layer.title}: the new weights are out of the range of {kind}")
        return typed.astype(layer.constant.array.dtype)

    def _new_bias(self, layer: GraphLayer, use: Use, fitted: Fitted) -> NDArray[Any] | None:
        """Return the corrected bias of a use; None if it has none that can be changed."""
        if fitted.bias is None:
            return None
        alpha = use.attribute("alpha", 1.0) if use.kind == "Gemm" else 1.0
        own = 0.0 if use.bias is None else use.bias.values
        bias: NDArray[Any] = (own + alpha * fitted.bias).astype(layer.constant.array.dtype)
        return bias

    def _add_constant(self, name: str, array: NDArray[Any], layer: GraphLayer | None) -> str:
        """Add a constant to the main graph; in the type in which the layer stores its weight, with a cast after it."""
        unique = self._unique(name)
        stored = array.dtype if layer is None or array.dtype == np.int64 else layer.new_dtype
        if stored == array.dtype:
            self._tensors.append(self._workspace.tensor(unique, array))
            return unique
        self._tensors.append(self._workspace.tensor(unique, array.astype(stored)))
        cast = self._unique(f"{name}.cast")
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self._casts.append(helper.make_node("Cast", [unique], [cast], cast, to=kind))
        return cast

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name}.{count}"
        self._names.add(unique)
        return unique

    def _dead_biases(self) -> set[Value]:
        """Find the stored biases that no remaining node uses."""
        edited = {(key, edit.input) for key, edits in self._edits.items() for edit in edits}
        dead: set[Value] = set()
        for scope, name in self._replaced_biases:
            constant = self._constants.find(scope, name)
            if constant is None:
                continue
            gone = set(constant.chain)
            while True:
                alive = {value for value in gone if not self._is_unused(value, edited, gone)}
                if not alive:
                    break
                gone -= alive
            dead |= gone
        return dead

    def _is_unused(self, value: Value, edited: set[tuple[Key, int]], gone: set[Value]) -> bool:
        for scope, index in self._constants.consumers(value):
            if index is None:
                return False
            node = scope.graph.node[index]
            if (scope.path, index) in self._nodes:
                if any(value.name in each.input for each in self._nodes[scope.path, index]):
                    return False
            elif any(Value(scope.path, name) in gone for name in node.output):
                continue
            elif any(
                name == value.name and ((scope.path, index), place) not in edited
                for place, name in enumerate(node.input)
            ):
                return False
        return True
