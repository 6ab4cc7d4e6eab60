"""Rules of recurrent layers, attention and embeddings: operators with an axis for the batch in a fixed place."""

from collections.abc import Mapping, Sequence

from app.models.row_independence.node import Node, Rule, rank_of
from app.models.row_independence.sizes import BATCH, ONE, Size
from app.models.row_independence.values import Rows, RowsInteract, Value


def _require_rows(node: Node, index: int, axis: int) -> None:
    """Check that an input, if it is there, has its rows on an axis."""
    if node.has(index) and node.input(index).rows != Rows(axis):
        raise RowsInteract(f"has an input ({node.proto.input[index]!r:.60}) whose axis {axis} is not that of the rows")


def _optional_rows(node: Node, index: int, rank: int | None = None) -> None:
    """Check that an input, if it is there, has its rows first, or is the same for all of them."""
    if not node.has(index):
        return
    value = node.input(index)
    if rank is not None and rank_of(value) != rank:
        raise RowsInteract(f"has an input ({node.proto.input[index]!r:.60}) of a form that is not analysed")
    if value.rows == Rows(0):
        return
    if not value.constant or value.shape is None or (value.shape and value.sizes[0] != ONE):
        raise RowsInteract(f"has an input ({node.proto.input[index]!r:.60}) that is not certain to have rows")


def recurrent(node: Node) -> Sequence[Value]:
    """RNN, GRU and LSTM: the batch is the second axis, or with `layout` 1 the first one."""
    layout = node.attribute("layout", 0)
    batch = 0 if layout else 1
    node.require_constant(1, 2, 3, 7)
    if all(value.constant for value in node.present):
        return [Value()] * node.outputs
    _require_rows(node, 0, batch)
    _require_rows(node, 4, 0)
    _require_rows(node, 5, batch)
    _require_rows(node, 6, batch)
    shape = node.input(0).shape
    weights = node.input(1).shape
    if shape is None or len(shape) != 3 or weights is None or len(weights) != 3:
        raise RowsInteract("has an input of unknown rank")
    hidden = Size(node.attribute("hidden_size", 0))
    time, directions = shape[1 if layout else 0], weights[0]
    if layout:
        every = Value(shape=(BATCH, time, directions, hidden), rows=Rows(0))
        last = Value(shape=(BATCH, directions, hidden), rows=Rows(0))
    else:
        every = Value(shape=(time, directions, BATCH, hidden), rows=Rows(2))
        last = Value(shape=(directions, BATCH, hidden), rows=Rows(1))
    return [every, last, last][: node.outputs]


def attention(node: Node) -> Sequence[Value]:
    """Attention of ONNX: queries, keys, values, a mask, and past keys and values; the batch comes first."""
    if all(value.constant for value in node.present):
        return [Value()] * node.outputs
    for index in (0, 1, 2, 4, 5, 6):
        _require_rows(node, index, 0)
    if node.has(3):
        mask = node.input(3)
        if mask.rows is not None:
            if mask.rows != Rows(0) or rank_of(mask) != 4:
                raise RowsInteract("has a mask whose first axis is not that of the rows")
        elif not mask.constant or (rank_of(mask) == 4 and mask.shape is not None and mask.shape[0] != ONE):
            raise RowsInteract("has a mask that is not certain to have rows")
    return [_first(node, output, 0) for output in range(node.outputs)]


def _first(node: Node, output: int, like: int) -> Value:
    """A value with the rows first, of the rank of an input."""
    rank = rank_of(node.input(like))
    inferred = node.inferred(output)
    if inferred is not None:
        rank = len(inferred)
    elif output:
        rank = 4
    return Value(shape=(BATCH, *(node.free_size(output, axis) for axis in range(1, rank))), rows=Rows(0))


def microsoft_attention(node: Node) -> Sequence[Value]:
    """Onnxruntime's attention with constant projections; the batch comes first."""
    node.require_constant(1, 2, 6)
    if node.has(4):
        raise RowsInteract("has past states, which are not analysed")
    _require_rows(node, 0, 0)
    if node.has(3):
        mask = node.input(3)
        if mask.rows != Rows(0) or mask.shape is None or mask.shape[0] != BATCH or len(mask.shape) not in {1, 2, 3, 4}:
            raise RowsInteract("has a mask whose first axis is not that of the rows")
    _optional_rows(node, 5, 4)
    shape, weights = node.input(0).shape, node.input(1).shape
    if shape is None or len(shape) != 3 or weights is None or node.outputs > 1:
        raise RowsInteract("has outputs that are not analysed")
    return [Value(shape=(*shape[:2], weights[-1].divide(Size(3)) or node.free_size(0, 2)), rows=Rows(0))]


def multi_head_attention(node: Node) -> Sequence[Value]:
    """Onnxruntime's attention of projected queries, keys and values; the batch comes first."""
    for index in (0, 1, 2):
        _require_rows(node, index, 0)
    node.require_constant(3)
    if node.has(4):
        _require_rows(node, 4, 0)
        if rank_of(node.input(4)) < 2:
            raise RowsInteract("has a mask of a form that is not analysed")
    _optional_rows(node, 5, 4)
    if any(node.has(index) for index in range(6, len(node.inputs))) or node.outputs > 1:
        raise RowsInteract("has past states, which are not analysed")
    return [_first(node, 0, 0)] if rank_of(node.input(0)) == 3 else [Value(rows=Rows(0))]


def embedding(node: Node) -> Sequence[Value]:
    """EmbedLayerNormalization: sums of table entries, normalized; its mask has one number for each row."""
    node.require_constant(2, 3, 4, 5, 6)
    _require_rows(node, 0, 0)
    _require_rows(node, 1, 0)
    _require_rows(node, 7, 0)
    _optional_rows(node, 8, 2)
    ids, table = node.input(0).shape, node.input(2).shape
    if ids is None or len(ids) != 2 or table is None:
        raise RowsInteract("has an input of unknown rank")
    vectors = Value(shape=(*ids, table[-1]), rows=Rows(0))
    return [vectors, Value(shape=(BATCH,), rows=Rows(0)), vectors][: node.outputs]


def transform(node: Node) -> Sequence[Value]:
    """DFT and STFT: along an axis that is not that of the rows."""
    value = node.input(0)
    node.require_constant(*range(1, len(node.inputs)))
    rank = rank_of(value)
    if value.sized or value.shape is None or (value.rows is not None and value.rows.axis != 0):
        raise RowsInteract("transforms along the rows")
    if node.op == "DFT" and value.rows is not None:
        axis = node.integers(2) if node.has(2) else [node.attribute("axis", 1 if node.version < 20 else -2)]
        if axis is None or axis[0] % rank == 0:
            raise RowsInteract("may transform along the rows")
    ranks = node.inferred(0)
    total = len(ranks) if ranks is not None else (rank if node.op == "DFT" else 4)
    return [Value(shape=(value.sizes[0], *(node.free_size(0, axis) for axis in range(1, total))), rows=value.rows)]


RULES: Mapping[tuple[str, str], Rule] = {
    **{("", name): recurrent for name in ("RNN", "GRU", "LSTM")},
    **{("", name): transform for name in ("DFT", "STFT")},
    ("", "Attention"): attention,
    ("com.microsoft", "Attention"): microsoft_attention,
    ("com.microsoft", "MultiHeadAttention"): multi_head_attention,
    ("com.microsoft", "EmbedLayerNormalization"): embedding,
}
