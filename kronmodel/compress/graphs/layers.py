"""Layers of an ONNX model that can be replaced: Gemm, MatMul and Conv nodes with constant weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kronmodel.compress.graphs.constants import Constant, Constants
from kronmodel.compress.graphs.scopes import Scope, Value, is_standard, node_title, scopes_of

__all__ = ["Bias", "GraphLayer", "Kept", "Use", "find_layers"]

Kind = Literal["Gemm", "MatMul", "left MatMul", "Conv"]
KINDS = ("Gemm", "MatMul", "Conv")
SMALLEST = 1024  # weights; the nodes that a replacement adds cost more than so few weights can save
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Bias:
    """Constant that is added to a layer's outputs.

    Attributes:
        node: index of the node that adds it, in the scope of the layer.
        input: index of that node's input.
        values: its values as a vector ``(out,)``, with Gemm's ``beta`` applied.
        shape: shape of the stored constant.
    """

    node: int
    input: int
    values: NDArray[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Use:
    """A node that multiplies its input by a layer's weight.

    Attributes:
        path: path of the node's scope.
        index: index of the node in that scope.
        node: the node.
        kind: how it multiplies; a left MatMul has the weight as its first input.
        x: name of the computed input.
        rank: number of axes of the computed input; None if it is unknown.
        bias: the constant that is added to the output; None if nothing is, or something computed.
    """

    path: tuple[str, ...]
    index: int
    node: onnx.NodeProto
    kind: Kind
    x: str
    rank: int | None
    bias: Bias | None

    @property
    def key(self) -> tuple[tuple[str, ...], int]:
        """Place of the node in the model."""
        return self.path, self.index

    def attribute(self, name: str, default: Any) -> Any:
        """Return the value of an attribute of the node."""
        found = next((each for each in self.node.attribute if each.name == name), None)
        return default if found is None else helper.get_attribute_value(found)


@dataclass(frozen=True, eq=False)
class GraphLayer:
    """A weight of a model, with all nodes that use it.

    Attributes:
        title: operator and name of its first node.
        weight: matrix ``(out, in)``; the columns of a convolution are ordered ``(channels, *kernel)``.
        uses: nodes that use it.
        kernel: shape of a convolution's kernel; empty for matrices.
        constant: the weight as it is stored.
    """

    title: str
    weight: NDArray[Any]
    uses: tuple[Use, ...]
    kernel: tuple[int, ...]
    constant: Constant

    @property
    def new_dtype(self) -> np.dtype[Any]:
        """Type in which new weights are stored: the stored weight's, but the computed one's for quantised weights."""
        return self.constant.dtype if self.constant.dtype.name in FLOATS else self.constant.array.dtype

    @property
    def corrects_bias(self) -> bool:
        """Whether all nodes add a constant to their outputs, or can be made to without another node."""
        return all(
            use.bias is not None or (use.kind in ("Gemm", "Conv") and len(use.node.input) == 2) for use in self.uses
        )

    @property
    def constant_bias(self) -> NDArray[Any] | None:
        """Constant that its only node adds to the outputs, in the scale of the weight; None for shared weights."""
        if len(self.uses) != 1 or self.uses[0].bias is None:
            return None
        alpha: float = self.uses[0].attribute("alpha", 1.0)
        return self.uses[0].bias.values / alpha


@dataclass(frozen=True)
class Kept:
    """A node with constant weights that can't be compressed.

    Attributes:
        title: operator and name of the node.
        shape: shape of its weight.
        bytes: stored size of its weight.
        reason: why it is kept as it is.
    """

    title: str
    shape: tuple[int, ...]
    bytes: int
    reason: str


@dataclass(frozen=True, eq=False)
class _Found:
    use: Use
    weight: NDArray[Any]
    kernel: tuple[int, ...]
    constant: Constant


def find_layers(model: onnx.ModelProto, constants: Constants) -> tuple[list[GraphLayer], list[Kept]]:
    """Find the layers of a model, and the nodes with constant weights that can't be replaced.

    A weight that several nodes use becomes one layer, so that it stays shared.
    """
    ranks = _ranks(model)
    kept: list[Kept] = []
    groups: dict[frozenset[Value], list[_Found]] = {}
    for scope in constants.scopes:
        for index, node in enumerate(scope.graph.node):
            if node.op_type in KINDS and is_standard(node):
                found = _examine(scope, index, node, constants, ranks)
                if isinstance(found, Kept):
                    kept.append(found)
                elif found is not None:
                    groups.setdefault(found.constant.stored, []).append(found)
    layers: list[GraphLayer] = []
    for group in groups.values():
        reason = _conflict(group, constants)
        first = group[0]
        if reason is None:
            uses = tuple(each.use for each in group)
            title = _unique(node_title(first.use.node), {each.title for each in layers})
            layers.append(GraphLayer(title, first.weight, uses, first.kernel, first.constant))
        else:
            kept += [_kept(each.use.node, each.constant, reason) for each in group]
    kept += _in_functions(model)
    return layers, kept


def _unique(title: str, taken: set[str]) -> str:
    """Number a title that another layer has already: names of nodes may repeat."""
    unique, count = title, 1
    while unique in taken:
        count += 1
        unique = f"{title} ({count})"
    return unique


def _kept(node: onnx.NodeProto, constant: Constant, reason: str) -> Kept:
    return Kept(node_title(node), constant.array.shape, constant.bytes, reason)


def _examine(
    scope: Scope, index: int, node: onnx.NodeProto, constants: Constants, ranks: dict[Value, int]
) -> _Found | Kept | None:
    """Read a node's weight; None if the node has no constant weight."""
    side = 1
    constant = constants.find(scope, node.input[1])
    if constant is None and node.op_type == "MatMul":
        side, constant = 0, constants.find(scope, node.input[0])
    if constant is None or constants.find(scope, node.input[1 - side]) is not None:
        overridable = any(constants.is_overridable(scope, name) for name in node.input[:2])
        return _overridable(scope, node) if overridable else None
    array, reason, kernel = constant.array, None, ()
    if array.dtype.name not in FLOATS:
        return None
    if node.op_type == "Conv":
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        weight, kernel = array.reshape(len(array), -1), array.shape[2:]
        reason = f"a convolution in {groups} groups" if groups != 1 else None
    elif array.ndim != 2:
        return _kept(node, constant, f"its weight has {array.ndim} axes, expected 2")
    elif node.op_type == "Gemm":
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        weight = array if transposed else array.T
    else:
        weight = array.T if side else array
    if array.size < SMALLEST:
        reason = f"{array.size:,} weights, too few to save anything"
    if reason is None and not np.isfinite(np.asarray(weight, np.float32)).all():
        reason = "its weight holds values that are not finite"
    if reason is not None:
        return _kept(node, constant, reason)
    kind: Kind = "Gemm" if node.op_type == "Gemm" else "Conv" if node.op_type == "Conv" else "MatMul"
    kind = kind if side else "left MatMul"
    x = node.input[1 - side]
    home = scope.find(x)
    rank = 2 if kind == "Gemm" else None if home is None else ranks.get(home[1])
    bias = _bias(scope, index, kind, len(weight), constants)
    return _Found(Use(scope.path, index, node, kind, x, rank, bias), weight, kernel, constant)


def _overridable(scope: Scope, node: onnx.NodeProto) -> Kept | None:
    found = scope.find(node.input[1])
    tensor = found[0].initializer(node.input[1]) if found else None
    if tensor is None:
        return None
    return Kept(
        node_title(node), tuple(tensor.dims), 0, "its weight is an input of the graph, too, so callers may change it"
    )


def _bias(scope: Scope, index: int, kind: Kind, out: int, constants: Constants) -> Bias | None:
    """Find the constant that is added to a node's outputs, by the node itself or by an Add that follows a MatMul."""
    node = scope.graph.node[index]
    at, place, factor = index, 2, 1.0
    if kind == "Gemm":
        factor = next((each.f for each in node.attribute if each.name == "beta"), 1.0)
    elif kind == "MatMul":
        found = scope.find(node.output[0])
        users = constants.consumers(found[1]) if found else []
        user = users[0][1] if len(users) == 1 and users[0][0] is scope else None
        add = None if user is None else scope.graph.node[user]
        if user is None or add is None or add.op_type != "Add" or not is_standard(add):
            return None
        at, place, node = user, 1 if add.input[0] == node.output[0] else 0, add
    elif kind == "left MatMul":
        return None
    constant = constants.find(scope, node.input[place]) if len(node.input) > place else None
    if constant is None or constant.array.size != out or constant.array.shape[-1:] != (out,):
        return None
    values = np.asarray(constant.array, np.float32).reshape(out) * np.float32(factor)
    return Bias(at, place, values, constant.array.shape)


def _conflict(group: list[_Found], constants: Constants) -> str | None:
    """Return why a weight that several nodes use can't be replaced; None if it can be."""
    first = group[0]
    for other in group[1:]:
        if other.kernel != first.kernel or not np.array_equal(other.weight, first.weight):
            return f"its weight is used by {node_title(group[0].use.node)} and {node_title(other.use.node)} differently"
    keys = {each.use.key for each in group}
    chain = frozenset().union(*(each.constant.chain for each in group))
    for value in chain:
        for scope, index in constants.consumers(value):
            if index is None:
                return "its weight is an output of the graph"
            node = scope.graph.node[index]
            if (scope.path, index) not in keys and not any(Value(scope.path, name) in chain for name in node.output):
                return f"its weight is also used by {node_title(node)}, so it would stay in the file"
    return None


def _ranks(model: onnx.ModelProto) -> dict[Value, int]:
    """Infer the number of axes of each value, where onnx can."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError):
        inferred = model
    ranks: dict[Value, int] = {}
    for scope in scopes_of(inferred):
        for each in (*scope.graph.value_info, *scope.graph.input, *scope.graph.output):
            if each.type.HasField("tensor_type") and each.type.tensor_type.HasField("shape"):
                ranks[Value(scope.path, each.name)] = len(each.type.tensor_type.shape.dim)
    return ranks


def _in_functions(model: onnx.ModelProto) -> Iterator[Kept]:
    """List the layers in functions, whose weights may differ from call to call."""
    for function in model.functions:
        for node in function.node:
            if node.op_type in KINDS and is_standard(node):
                reason = (
                    f"inside the function {function.name}; onnx.inliner.inline_local_functions puts it into the graph"
                )
                yield Kept(node_title(node), (), 0, reason)
