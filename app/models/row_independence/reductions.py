"""Rules of operators that combine the elements along some axes: reductions, norms, softmax, sorting."""

from collections.abc import Mapping, Sequence

from app.models.row_independence.elementwise import broadcast
from app.models.row_independence.node import Node, Rule, axis_in, rank_of
from app.models.row_independence.sizes import ONE, integers, product
from app.models.row_independence.values import Rows, RowsInteract, Value, known_value


def rows_off(value: Value, axes: Sequence[int], does: str) -> Rows | None:
    """The rows of a value, none of which lies on these axes.

    Raises:
        RowsInteract: the operator works along the rows.
    """
    if value.sized:
        raise RowsInteract("computes with the number of rows", certain=True)
    if value.rows is not None and value.rows.axis in axes:
        raise RowsInteract(does, certain=True)
    return value.rows


def reduction(node: Node) -> Sequence[Value]:
    """A reduction over axes that are not that of the rows."""
    value = node.input(0)
    if node.op == "ReduceProd" and value.known is not None:
        return [known_value([product(*value.known)], scalar=not node.attribute("keepdims", 1))]
    rank = rank_of(value)
    shape = value.sizes
    axes = node.integers_of("axes", 1, "axes")
    if not axes:
        if node.attribute("noop_with_empty_axes", 0):
            return [Value(shape=shape, rows=rows_off(value, (), ""))]
        axes = list(range(rank))
    return [_reduced(value, {axis_in(axis, rank) for axis in axes}, node, "reduces over all rows")]


def _reduced(value: Value, axes: set[int], node: Node, does: str) -> Value:
    rows = rows_off(value, tuple(axes), does)
    shape = value.sizes
    if node.attribute("keepdims", 1):
        return Value(shape=tuple(ONE if axis in axes else size for axis, size in enumerate(shape)), rows=rows)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    return Value(
        shape=tuple(shape[axis] for axis in kept), rows=None if rows is None else rows.at(kept.index(rows.axis))
    )


def arg(node: Node) -> Sequence[Value]:
    """ArgMax and ArgMin along an axis that is not that of the rows."""
    value = node.input(0)
    axis = axis_in(node.attribute("axis", 0), rank_of(value))
    return [_reduced(value, {axis}, node, "searches through all rows")]


def softmax(node: Node) -> Sequence[Value]:
    """Softmax and its kind; before operator set 13 over all axes from the given one on."""
    value = node.input(0)
    rank = rank_of(value)
    axis = axis_in(node.attribute("axis", -1 if node.version >= 13 else 1), max(rank, 1))
    axes = [axis] if node.version >= 13 else range(axis, rank)
    return [Value(shape=value.shape, rows=rows_off(value, list(axes), "normalizes over all rows"))]


def lp_normalization(node: Node) -> Sequence[Value]:
    """Normalization along one axis."""
    value = node.input(0)
    axis = axis_in(node.attribute("axis", -1), rank_of(value))
    return [Value(shape=value.shape, rows=rows_off(value, [axis], "normalizes over all rows"))]


def mean_variance(node: Node) -> Sequence[Value]:
    """MeanVarianceNormalization over axes, by default that of the batch among them."""
    value = node.input(0)
    rank = rank_of(value)
    axes = [axis_in(axis, rank) for axis in node.attribute("axes", (0, 2, 3))]
    return [Value(shape=value.shape, rows=rows_off(value, axes, "normalizes over all rows"))]


def layer_normalization(node: Node) -> Sequence[Value]:
    """Normalization over the last axes, with a scale and a bias."""
    node.require_constant(*range(1, len(node.inputs)))
    value = node.input(0)
    rank = rank_of(value)
    first = axis_in(node.attribute("axis", -1), rank)
    rows = rows_off(value, range(first, rank), "normalizes over all rows")
    for index in range(1, len(node.inputs)):  # a scale that spans the rows would need another one for each
        if node.has(index) and rows is not None:
            broadcast(node, [value, node.input(index)])
    statistics = Value(shape=(*value.sizes[:first], *(ONE for _ in range(first, rank))), rows=rows)
    return [Value(shape=value.shape, rows=rows), *[statistics] * (node.outputs - 1)]


def skip_normalization(node: Node) -> Sequence[Value]:
    """Onnxruntime's sum of two values and its normalization over the last axis."""
    node.require_constant(*range(2, len(node.inputs)))
    total = broadcast(node, [node.input(0), node.input(1)])
    rows = rows_off(total, [rank_of(total) - 1], "normalizes over all rows")
    result = Value(shape=total.shape, rows=rows)
    statistics = Value(shape=(*total.sizes[:-1], ONE), rows=rows)
    return [result, statistics, statistics, result][: node.outputs]


def cumulative(node: Node) -> Sequence[Value]:
    """Sums and products up to each element along a constant axis."""
    value = node.input(0)
    axes = node.integers(1)
    if axes is None:
        raise RowsInteract("has an axis that is computed")
    axis = axis_in(axes[0], rank_of(value))
    return [Value(shape=value.shape, rows=rows_off(value, [axis], "sums over the rows before each row"))]


def top_k(node: Node) -> Sequence[Value]:
    """The largest elements along an axis."""
    node.require_constant(1)
    value = node.input(0)
    rank = rank_of(value)
    axis = axis_in(node.attribute("axis", -1), rank)
    rows = rows_off(value, [axis], "sorts all rows")
    k = node.integers(1) if node.has(1) else [node.attribute("k", 1)]
    size = integers(*k)[0] if k else node.free_size(0, axis)
    shape = (*value.sizes[:axis], size, *value.sizes[axis + 1 :])
    return [Value(shape=shape, rows=rows)] * node.outputs


def trilu(node: Node) -> Sequence[Value]:
    """A triangle of the last two axes."""
    node.require_constant(1)
    value = node.input(0)
    rank = rank_of(value)
    rows = rows_off(value, [rank - 2, rank - 1], "takes another part of each row")
    return [Value(shape=value.shape, rows=rows)]


def determinant(node: Node) -> Sequence[Value]:
    """The determinant over the last two axes."""
    value = node.input(0)
    rank = rank_of(value)
    return [Value(shape=value.sizes[:-2], rows=rows_off(value, [rank - 2, rank - 1], "combines all rows"))]


_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

RULES: Mapping[tuple[str, str], Rule] = {
    **{("", f"Reduce{name}"): reduction for name in _REDUCTIONS.split()},
    **{("", name): arg for name in ("ArgMax", "ArgMin")},
    **{("", name): softmax for name in ("Softmax", "LogSoftmax", "Hardmax")},
    **{("", name): cumulative for name in ("CumSum", "CumProd")},
    **{
        (domain, name): layer_normalization
        for domain in ("", "com.microsoft")
        for name in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
    },
    **{
        ("com.microsoft", name): skip_normalization
        for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    },
    ("", "LpNormalization"): lp_normalization,
    ("", "MeanVarianceNormalization"): mean_variance,
    ("", "TopK"): top_k,
    ("", "Trilu"): trilu,
    ("", "Det"): determinant,
}
