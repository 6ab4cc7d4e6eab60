"""Encoding of a table's rows inside an exported graph: an input for each column, in front of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kronmodel.data.tables.encoding import DAY_SECONDS, TURNS, EncodedColumn, TableEncoding
from kronmodel.errors import ExportError

__all__ = ["add_encoding", "feeds"]


def feeds(encoding: TableEncoding, rows: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the inputs of the graph for rows: ``(n, 1)`` float64, or texts as objects, by the input's name.

    Args:
        encoding: encoding of the graph.
        rows: ``(n,)`` values of each encoded column by its name.
    """
    return {
        column.input: rows[column.name].astype(object if column.kind == "category" else np.float64)[:, None]
        for column in encoding.columns
    }


def add_encoding(model: onnx.ModelProto, encoding: TableEncoding) -> None:
    """Put the encoding in front of an exported network, in place.

    The model's input ``input`` of encoded features becomes an inner value. The new inputs are ``[batch, 1]``: float64
    for numbers, for truth values as 1 and 0, and for dates as seconds since 1970, with NaN for missing values; strings
    for categories, with "" for missing ones.

    Raises:
        ExportError: the model with its encoding is not valid ONNX.
    """
    graph = model.graph
    inputs = [column.input for column in encoding.columns]
    prefix, rows = _unused("network/", inputs), _unused("rows/", inputs)
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    outputs = {output.name for output in graph.output}
    _prefix_values(graph, prefix, outputs)
    builder = _Encoder(rows)
    builder.encode(encoding, f"{prefix}input")
    nodes = [*builder.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(builder.constants)
    del graph.input[:]
    for column in encoding.columns:
        kind = TensorProto.STRING if column.kind == "category" else TensorProto.DOUBLE
        graph.input.append(helper.make_tensor_value_info(column.input, kind, [batch, 1]))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(f"the model with its encoding is not valid ONNX: {error}") from error


def _unused(prefix: str, names: Sequence[str]) -> str:
    """Lengthen a prefix until none of the names begins with it."""
    while any(name.startswith(prefix) for name in names):
        prefix = f"_{prefix}"
    return prefix


def _prefix_values(graph: onnx.GraphProto, prefix: str, outputs: set[str]) -> None:
    """Prefix the names of all values but the outputs, so that none is that of a column."""

    def renamed(name: str) -> str:
        return name if name in outputs or not name else prefix + name

    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        node.name = prefix + node.name if node.name else ""
    for constant in graph.initializer:
        constant.name = renamed(constant.name)


class _Encoder:
    """Builder of the nodes that encode rows; all columns of a kind are encoded together.

    Args:
        prefix: of the names of all values.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def encode(self, encoding: TableEncoding, output: str) -> None:
        """Add the nodes of an encoding, in the order of :meth:`TableEncoding.apply`, whose result has a given name."""
        parts = [*self._numbers(encoding.numbers), *self._categories(encoding.categories)]
        self.nodes.append(helper.make_node("Concat", parts, [output], axis=1))

    def _numbers(self, columns: Sequence[EncodedColumn]) -> list[str]:
        if not columns:
            return []
        raw = self._join([column.input for column in columns], "numbers")
        missing = self._add("IsNaN", "missing", raw)
        filled = self._add("Where", "filled", missing, self._row("fill", [column.fill for column in columns]), raw)
        centred = self._add("Sub", "centred", filled, self._row("mean", [column.mean for column in columns]))
        scaled = self._add("Mul", "scaled", centred, self._row("inverse", [column.inverse for column in columns]))
        parts = [self._float("standardised", scaled)]
        if any(column.indicator for column in columns):
            marked = self._choose("marked", missing, [column.indicator for column in columns])
            parts.append(self._float("indicators", marked))
        for name, turn in TURNS.items():
            chosen = [name in column.turns for column in columns]
            if not any(chosen):
                continue
            dates = self._choose(f"{name}_dates", filled, chosen)
            days = self._add("Div", f"{name}_days", dates, self._row("day_seconds", [DAY_SECONDS]))
            if turn.whole_days:
                days = self._add("Floor", f"{name}_whole", days)
            shifted = self._add("Add", f"{name}_shifted", days, self._row(f"{name}_shift", [turn.shift]))
            turns = self._add("Div", f"{name}_turns", shifted, self._row(f"{name}_length", [turn.days]))
            passed = self._add("Sub", f"{name}_passed", turns, self._add("Floor", f"{name}_begun", turns))
            angle = self._float(f"{name}_angle", self._add("Mul", f"{name}_arc", passed, self._row("arc", [2 * np.pi])))
            parts += [self._add("Sin", f"{name}_sine", angle), self._add("Cos", f"{name}_cosine", angle)]
        return parts

    def _categories(self, columns: Sequence[EncodedColumn]) -> list[str]:
        if not columns:
            return []
        raw = self._join([column.input for column in columns], "texts")
        missing = self._add("Equal", "no_text", raw, self._texts("empty", [""]))
        frequent = self._texts("most_frequent", [str(column.fill) for column in columns])
        filled = self._add("Where", "filled_texts", missing, frequent, raw)
        index = np.repeat(np.arange(len(columns)), [len(column.values) for column in columns])
        spread = self._add("Gather", "spread", filled, self._constant("column_of_category", index), axis=1)
        values = [value for column in columns for value in column.values]
        known = self._float("one_hot", self._add("Equal", "is_category", spread, self._texts("categories", values)))
        parts = [known]
        others = [number for number, column in enumerate(columns) if column.other]
        if others:
            member = (index[:, None] == np.array(others)).astype(np.float32)
            counted = self._add("MatMul", "counted", known, self._constant("column_members", member))
            parts.append(self._add("Sub", "others", self._constant("one", np.ones((1, 1), np.float32)), counted))
        if any(column.indicator for column in columns):
            marked = self._choose("marked_texts", missing, [column.indicator for column in columns])
            parts.append(self._float("text_indicators", marked))
        return parts

    def _join(self, inputs: Sequence[str], name: str) -> str:
        if len(inputs) == 1:
            return inputs[0]
        output = self._prefix + name
        self.nodes.append(helper.make_node("Concat", list(inputs), [output], axis=1))
        return output

    def _add(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        output = self._prefix + name
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def _float(self, name: str, value: str) -> str:
        return self._add("Cast", name, value, to=TensorProto.FLOAT)

    def _choose(self, name: str, value: str, chosen: Sequence[bool]) -> str:
        if all(chosen):
            return value
        return self._add("Gather", name, value, self._constant(f"{name}_columns", np.flatnonzero(chosen)), axis=1)

    def _row(self, name: str, values: Sequence[Any]) -> str:
        return self._constant(name, np.array([values], np.float64))

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        full = self._prefix + name
        if all(each.name != full for each in self.constants):
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), full))
        return full

    def _texts(self, name: str, values: Sequence[str]) -> str:
        full = self._prefix + name
        self.constants.append(numpy_helper.from_array(np.array([values], object), full))
        return full
