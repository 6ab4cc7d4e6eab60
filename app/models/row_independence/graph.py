"""Analysis of a graph: follows the rows of the batch through its nodes and subgraphs."""

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import onnx
from onnx import numpy_helper

from app.models.row_independence.node import Node
from app.models.row_independence.numbering import numbering
from app.models.row_independence.rules import ARITHMETIC, MIXING, RANDOM, RULES
from app.models.row_independence.sizes import Size, integers
from app.models.row_independence.values import (
    MAX_KNOWN,
    UNKNOWN,
    Mixed,
    RowsInteract,
    Value,
    array_value,
)

MAX_NODES = 100_000  # analysed, those of a loop's body once for each pass
MAX_DEPTH = 16  # of subgraphs in subgraphs
Scope = MutableMapping[str, Value]
# A value that is used before its operator in the file; onnxruntime sorts the operators, the analysis does not.
_LATER = Value(mixed=Mixed("the graph uses a value before the operator that computes it", certain=False))
_OF_SHAPES = frozenset({"Shape", "Size"})
# Raised by rules for attributes and inputs of other types or numbers than the operator has.
_MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class GraphAnalysis:
    """Analysis of the graph of one model and its subgraphs.

    Args:
        versions: of the operator sets, by domain.
        shapes: inferred shapes by the name of the value.
    """

    def __init__(self, versions: Mapping[str, int], shapes: Mapping[str, tuple[int | None, ...]]) -> None:
        self._versions = versions
        self._shapes = shapes
        self._nodes = 0
        self._passes = count()

    def run(self, graph: onnx.GraphProto, inputs: Scope, outer: Scope, *, depth: int = 0) -> list[Value]:
        """Analyse a graph.

        Args:
            graph: the graph.
            inputs: what is known about its inputs, by name.
            outer: the values of the graphs around it.
            depth: number of graphs around it.

        Returns:
            What is known about its outputs.

        Raises:
            RowsInteract: it is too large to be analysed.
        """
        if depth > MAX_DEPTH:
            raise RowsInteract("has subgraphs that are nested too deeply")
        scope: Scope = ChainMap({}, outer) if depth else {}
        scope.update({tensor.name: _initializer(tensor) for tensor in graph.initializer})
        scope.update({sparse.values.name: UNKNOWN for sparse in graph.sparse_initializer})
        scope.update(inputs)
        # Values of one name in other passes have other sizes.
        mark = str(next(self._passes)) if depth else ""
        for proto in graph.node:
            self._nodes += 1
            if self._nodes > MAX_NODES:
                raise RowsInteract(f"is one of more than {MAX_NODES} operators")
            scope.update(zip(proto.output, self._node(proto, scope, mark, depth), strict=True))
        return [scope.get(output.name, _LATER) for output in graph.output]

    def _node(self, proto: onnx.NodeProto, scope: Scope, mark: str, depth: int) -> Sequence[Value]:
        """What is known about the outputs of a node."""
        values = [scope.get(name, _LATER) if name else None for name in proto.input]
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        shapes = {} if depth else self._shapes
        node = Node(proto, self._versions.get(domain, 1), values, shapes, mark)
        mixed = next((value.mixed for value in values if value is not None and value.mixed is not None), None)
        try:
            results = self._apply(node, domain, scope, depth)
        except RowsInteract as error:
            mixed = mixed or Mixed(f"{_name(proto)} {error.reason}", error.certain)
            return [Value(mixed=mixed)] * len(proto.output)
        except _MALFORMED:
            mixed = mixed or Mixed(f"{_name(proto)} has inputs or attributes that are not analysed", False)
            return [Value(mixed=mixed)] * len(proto.output)
        results = [self._refine(node, output, value) for output, value in enumerate(results)]
        if node.op in _OF_SHAPES and not domain:
            return results
        numbered, limit = numbering(node)
        if numbered == "resolved":
            return results
        if results and results[0].numbered:
            mixed, numbered = Mixed(f"{_name(proto)} numbers the rows", True), results[0].numbered
        if mixed is not None:
            return [
                replace(each, mixed=mixed, known=None, array=None, numbered=numbered, limit=limit) for each in results
            ]
        return results if limit is None else [replace(each, limit=limit) for each in results]

    def _apply(self, node: Node, domain: str, scope: Scope, depth: int) -> Sequence[Value]:
        """Apply the rule of a node's operator."""
        if domain:
            return self._apply_rule(node, domain)
        if node.op in RANDOM:
            raise RowsInteract("draws random numbers", certain=True)
        if node.op == "Constant":
            return [_constant(node)]
        if node.op in {"If", "Loop", "Scan"}:
            from app.models.row_independence.control_flow import CONTROL_FLOW

            return _fill(CONTROL_FLOW[node.op](self, node, scope, depth), node.outputs)
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.proto.attribute):
            raise RowsInteract("has a graph that is not analysed")
        known = ARITHMETIC[node.op](node) if node.op in ARITHMETIC else None
        return self._apply_rule(node, domain) if known is None else [known]

    def _apply_rule(self, node: Node, domain: str) -> Sequence[Value]:
        rule = RULES.get((domain, node.op))
        if any(value.rows is not None for value in node.present):
            if rule is None:
                reason = MIXING.get((domain, node.op))
                raise RowsInteract(reason or "is not known to keep rows apart", certain=reason is not None)
            return _fill(rule(node), node.outputs)
        # Without rows, any operator will do: its results depend on what its inputs depend on.
        default = UNKNOWN if all(value.constant for value in node.present) else Value(sized=True)
        try:
            results = () if rule is None else rule(node)
        except (RowsInteract, *_MALFORMED):
            results = ()
        return _fill(results, node.outputs, default)

    def _refine(self, node: Node, output: int, value: Value) -> Value:
        """Add inferred numbers to the shape of an output."""
        inferred = node.inferred(output) if output < node.outputs else None
        if inferred is None:
            return value
        shape = value.shape
        if shape is None:
            if value.sized or value.rows is not None:
                return value
            shape = tuple(node.free_size(output, axis) for axis in range(len(inferred)))
        if len(shape) != len(inferred):
            return value
        refined = tuple(
            size if number is None or not size.symbols or size.depends_on_batch else Size(number)
            for size, number in zip(shape, inferred, strict=True)
        )
        return replace(value, shape=refined)


def _fill(results: Sequence[Value], outputs: int, default: Value = UNKNOWN) -> Sequence[Value]:
    """As many results as a node has outputs."""
    return [*results, *[default] * (outputs - len(results))][:outputs]


def _initializer(tensor: onnx.TensorProto) -> Value:
    size = 1
    for dim in tensor.dims:
        size *= dim
    if size <= MAX_KNOWN and tensor.data_location != onnx.TensorProto.EXTERNAL:
        try:
            return array_value(numpy_helper.to_array(tensor))
        except (TypeError, ValueError, KeyError):
            pass
    return Value(shape=integers(*tensor.dims))


def _constant(node: Node) -> Value:
    tensor = node.attribute("value")
    if tensor is not None:
        return _initializer(tensor)
    for name in ("value_int", "value_ints", "value_float", "value_floats"):
        value = node.attribute(name)
        if value is not None:
            return array_value(np.asarray(value, np.int64 if "int" in name else np.float32))
    strings = node.attribute("value_strings")
    if node.attribute("value_string") is not None:
        return Value(shape=())
    return UNKNOWN if strings is None else Value(shape=(Size(len(strings)),))


def _name(proto: onnx.NodeProto) -> str:
    domain = f"{proto.domain[:40]}." if proto.domain not in {"", "ai.onnx"} else ""
    name = proto.name or next((output for output in proto.output if output), "")
    return f"operator {domain}{proto.op_type[:60]} {name[:80]!r}"
