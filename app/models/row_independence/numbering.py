"""Numbers of rows in a graph: exporters take an entry of each row of a batch by indices that start with its number.

PyTorch writes `x[torch.arange(n), i]` so, as language models and their attention masks do: with GatherND by pairs of
numbers, or with Gather of the flattened rows, by the number of the row times their length plus the index in the row.
Numbers of rows are the only values that depend on the place of a row in the batch and yet may lead to rows that keep
apart.
"""

from app.models.row_independence.node import Node
from app.models.row_independence.sizes import ONE, Size
from app.models.row_independence.values import UNKNOWN, Rows, Value

_KEEPING = frozenset({"Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_WIDE_INTEGERS = frozenset({6, 7})  # INT32 and INT64 in TensorProto.DataType; others may not hold the numbers
Numbering = tuple[str, Size | None]  # `numbered` and `limit` of the results
_NONE: Numbering = "", None


def numbering(node: Node) -> Numbering:
    """How the results of a node number the rows; `resolved` if each row takes its own entries by its number."""
    first, *others = node.present or [UNKNOWN]
    if node.proto.domain or (node.op in {"Add", "Mul"} and len(others) != 1):
        return _NONE
    if node.op in {"GatherND", "Gather"}:
        return ("resolved", None) if others and takes_own_entries(node, first, others[0]) else _NONE
    if node.op in {"Add", "Mul"}:
        return _arithmetic(node.op, first, others[0])
    if all(value.mixed is None for value in others):
        return _kept(node, first)
    return _NONE


def _kept(node: Node, first: Value) -> Numbering:
    """The numbers of a value that is reshaped, or to which the indices in the rows are appended."""
    if node.op in _KEEPING or (node.op == "Cast" and node.attribute("to") in _WIDE_INTEGERS):
        return (first.numbered if first.numbered != "indices" else ""), first.limit
    if node.op == "Concat" and first.numbered == "rows" and first.shape:
        last = node.attribute("axis") in {-1, len(first.shape) - 1} and first.shape[-1] == ONE
        return ("indices" if last else ""), None
    return _NONE


def _arithmetic(op: str, a: Value, b: Value) -> Numbering:
    """The number of each row times the length of the rows, and that plus an index in the row."""
    numbers, other = (a, b) if a.numbered else (b, a)
    if other.mixed is not None:
        return _NONE
    if op == "Mul" and numbers.numbered == "rows" and other.known is not None and len(other.known) == 1:
        (length,) = other.known
        return ("strides", length) if length.is_axis and not length.depends_on_batch else _NONE
    if op == "Add" and numbers.numbered == "strides" and other.limit is not None and other.limit == numbers.limit:
        return "flat", numbers.limit
    return _NONE


def takes_own_entries(node: Node, data: Value, indices: Value) -> bool:
    """Whether a node takes for each row entries of that row of its data."""
    if data.mixed is not None or data.rows is None or not indices.numbered or not indices.shape:
        return False
    if node.op == "GatherND":
        single = indices.numbered == "rows" and indices.shape[-1] == ONE
        return (
            data.rows == Rows(0) and not node.attribute("batch_dims", 0) and (single or indices.numbered == "indices")
        )
    flat = indices.numbered == "flat" and indices.limit is not None and node.attribute("axis", 0) == 0
    return flat and data.rows == Rows(0, ONE, indices.limit or ONE)
