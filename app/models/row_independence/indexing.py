"""Rules of operators that take elements by index."""

from collections.abc import Mapping, Sequence

from app.models.row_independence.node import Node, Rule, axis_in, rank_of
from app.models.row_independence.numbering import takes_own_entries
from app.models.row_independence.sizes import ONE, integers, product
from app.models.row_independence.values import Rows, RowsInteract, Value, known_value


def gather(node: Node) -> Sequence[Value]:
    """Gather entries of one axis: of constant tables by the rows' indices, or of the rows by constant indices."""
    data, indices = node.input(0), node.input(1)
    if data.known is not None and data.shape is not None and len(data.shape) == 1:
        wanted = node.integers(1)
        if wanted is not None and all(-len(data.known) <= each < len(data.known) for each in wanted):
            return [known_value([data.known[each] for each in wanted], scalar=indices.shape == ())]
    if data.sized or indices.sized:
        raise RowsInteract("takes entries by the number of rows", certain=True)
    rank, index_rank = rank_of(data), rank_of(indices)
    axis = axis_in(node.attribute("axis", 0), rank)
    shape = (*data.sizes[:axis], *indices.sizes, *data.sizes[axis + 1 :])
    if takes_own_entries(node, data, indices) and indices.rows is not None:
        return [Value(shape=shape, rows=indices.rows)]
    if data.rows is None:
        rows = None if indices.rows is None else indices.rows.at(axis + indices.rows.axis)
        return [Value(shape=shape, rows=rows)]
    if data.rows.axis == axis:
        raise RowsInteract("takes some of the rows", certain=indices.constant)
    if indices.rows is not None:
        raise RowsInteract("takes entries of each row by the indices of every row", certain=True)
    position = data.rows.axis if data.rows.axis < axis else data.rows.axis - 1 + index_rank
    return [Value(shape=shape, rows=data.rows.at(position))]


def gather_elements(node: Node) -> Sequence[Value]:
    """GatherElements along an axis that is not that of the rows."""
    return [_aligned(node, node.input(1), (0, 1))]


def scatter_elements(node: Node) -> Sequence[Value]:
    """ScatterElements along an axis that is not that of the rows."""
    return [_aligned(node, node.input(0), (0, 1, 2))]


def _aligned(node: Node, shaped: Value, operands: Sequence[int]) -> Value:
    """Operands of one rank, each with its rows on the same axis, which is not the one that is indexed."""
    values = [node.input(index) for index in operands]
    rank = rank_of(values[0])
    axis = axis_in(node.attribute("axis", 0), rank)
    rows = values[0].rows
    if any(value.sized or rank_of(value) != rank or value.rows != rows for value in values):
        raise RowsInteract("has inputs of which some have no rows, or rows on other axes")
    if rows is not None and rows.axis == axis:
        raise RowsInteract("takes or writes entries of other rows", certain=True)
    return Value(shape=shaped.shape, rows=rows)


def gather_nd(node: Node) -> Sequence[Value]:
    """GatherND: of constant tables, or within each row where `batch_dims` counts the axis of the rows."""
    data, indices = node.input(0), node.input(1)
    if data.sized or indices.sized:
        raise RowsInteract("takes entries by the number of rows", certain=True)
    rank, index_rank = rank_of(data), rank_of(indices)
    depth = indices.sizes[-1].number if indices.shape else None
    batch_dims = node.attribute("batch_dims", 0)
    if depth is None:
        raise RowsInteract("has indices of unknown depth")
    own = takes_own_entries(node, data, indices)
    if own and indices.rows is not None and indices.rows.axis < index_rank - 1:
        rows: Rows | None = indices.rows  # each row takes its own entries
    elif data.rows is None and not batch_dims and indices.rows is not None and indices.rows.axis < index_rank - 1:
        rows = indices.rows
    elif data.rows == indices.rows and data.rows is not None and data.rows.axis < batch_dims:
        rows = data.rows
    elif data.rows is None and indices.rows is None:
        rows = None
    else:
        raise RowsInteract("takes entries of other rows")
    return [Value(shape=(*indices.sizes[:-1], *data.sizes[min(rank, batch_dims + depth) :]), rows=rows)]


def one_hot(node: Node) -> Sequence[Value]:
    """OneHot of constant depth, which adds an axis."""
    node.require_constant(1, 2)
    value = node.input(0)
    rank = rank_of(value) + 1
    if value.sized:
        raise RowsInteract("computes with the number of rows", certain=True)
    axis = axis_in(node.attribute("axis", -1), rank)
    depth = node.integers(1)
    size = integers(*depth)[0] if depth else node.free_size(0, axis)
    rows = None if value.rows is None else value.rows.at(value.rows.axis + (value.rows.axis >= axis))
    return [Value(shape=(*value.sizes[:axis], size, *value.sizes[axis:]), rows=rows)]


def compress(node: Node) -> Sequence[Value]:
    """Compress by a constant condition along an axis that is not that of the rows."""
    node.require_constant(1)
    value = node.input(0)
    rank = rank_of(value)
    axis = node.attribute("axis")
    if value.sized or (value.rows is not None and (axis is None or value.rows.axis == axis_in(axis, rank))):
        raise RowsInteract("takes some of the rows", certain=True)
    if axis is None:
        return [Value(shape=(node.free_size(0, 0),))]
    shape = list(value.sizes)
    shape[axis_in(axis, rank)] = node.free_size(0, axis_in(axis, rank))
    return [Value(shape=tuple(shape), rows=value.rows)]


def reverse_sequence(node: Node) -> Sequence[Value]:
    """ReverseSequence, whose batch axis is that of the rows."""
    value, lengths = node.input(0), node.input(1)
    batch, time = node.attribute("batch_axis", 1), node.attribute("time_axis", 0)
    if value.sized or lengths.sized:
        raise RowsInteract("computes with the number of rows", certain=True)
    if value.rows is None and lengths.rows is None:
        return [Value(shape=value.shape)]
    if value.rows is None or value.rows.axis != batch or batch == time or lengths.rows != value.rows.at(0):
        raise RowsInteract("reverses another axis than its lengths are of")
    return [Value(shape=value.shape, rows=value.rows)]


def array_feature_extractor(node: Node) -> Sequence[Value]:
    """Entries of the last axis: constant columns of the rows, or entries of a list by the rows' indices."""
    value, indices = node.input(0), node.input(1)
    rank = rank_of(value)
    if value.sized or indices.sized:
        raise RowsInteract("takes entries by the number of rows", certain=True)
    if value.rows is None and indices.rows is not None:
        if product(*value.sizes[:-1]) != ONE:
            raise RowsInteract("takes entries of a table by the indices of every row")
        axis = indices.rows.axis  # the operator flattens its indices
        outer = product(*indices.sizes[:axis], indices.rows.outer)
        inner = product(indices.rows.inner, *indices.sizes[axis + 1 :])
        return [Value(shape=(ONE, product(*indices.sizes)), rows=Rows(1, outer, inner))]
    node.require_constant(1)
    if rank < 2 or (value.rows is not None and value.rows.axis == rank - 1):
        raise RowsInteract("takes some of the rows")
    return [Value(shape=(*value.sizes[:-1], product(*indices.sizes)), rows=value.rows)]


def rotary(node: Node) -> Sequence[Value]:
    """RotaryEmbedding of values whose rows come first; its positions are constants or have rows, too."""
    standard = not node.proto.domain
    value = node.input(0)
    position, tables = (3, (1, 2)) if standard else (1, (2, 3))
    node.require_constant(*tables)
    if value.rows is not None and value.rows != Rows(0):
        raise RowsInteract("takes the axis of the rows for another one", certain=True)
    if node.has(position):
        positions = node.input(position)
        if positions.sized or (positions.rows is not None and positions.rows != value.rows):
            raise RowsInteract("has positions of other rows")
        if positions.rows is None and positions.shape not in {(), (ONE,)} and standard:
            raise RowsInteract("has positions without rows")
    elif any(rank_of(node.input(table)) > 2 for table in tables):
        raise RowsInteract("has tables with an axis of rows")
    return [Value(shape=value.shape, rows=value.rows)]


RULES: Mapping[tuple[str, str], Rule] = {
    ("", "Gather"): gather,
    ("", "GatherElements"): gather_elements,
    ("", "ScatterElements"): scatter_elements,
    ("", "Scatter"): scatter_elements,
    ("", "GatherND"): gather_nd,
    ("", "OneHot"): one_hot,
    ("", "Compress"): compress,
    ("", "ReverseSequence"): reverse_sequence,
    ("", "RotaryEmbedding"): rotary,
    ("com.microsoft", "RotaryEmbedding"): rotary,
    ("ai.onnx.ml", "ArrayFeatureExtractor"): array_feature_extractor,
}
