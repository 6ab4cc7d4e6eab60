"""Rules of operators that change the shape of a value, or move its axes."""

from collections.abc import Mapping, Sequence

from onnx import TensorProto, numpy_helper

from app.models.row_independence.node import Node, Rule, axis_in, rank_of
from app.models.row_independence.sizes import BATCH, ONE, Size, add, integers, product
from app.models.row_independence.values import Rows, RowsInteract, Shape, Value, known_value

_MAX_ROWS = 1_000_000  # of a batch; an end beyond it is that of the axis


def shape_of(node: Node) -> Sequence[Value]:
    """Shape: the sizes of all axes, or of some."""
    shape = node.input(0).sizes
    end = node.attribute("end")
    return [known_value(shape[node.attribute("start", 0) : len(shape) if end is None else end])]


def size_of(node: Node) -> Sequence[Value]:
    """Size: the number of elements."""
    return [known_value([product(*node.input(0).sizes)], scalar=True)]


def moved(value: Value, target: Shape) -> Value:
    """A value in another shape of as many elements in the same order.

    Raises:
        RowsInteract: the target's axes do not keep rows apart.
    """
    rows = value.rows
    if rows is None:
        return Value(shape=target, sized=any(size.depends_on_batch for size in target))
    axes = [axis for axis, size in enumerate(target) if size.depends_on_batch]
    if len(axes) != 1:
        raise RowsInteract("reshapes so that no axis, or several, have the number of rows")
    axis = axes[0]
    before = product(*value.sizes[: rows.axis], rows.outer)
    outer = before.divide(product(*target[:axis]))
    inner = None if outer is None else target[axis].divide(product(outer, BATCH))
    if outer is None or inner is None:
        raise RowsInteract("reshapes across rows")
    # As many elements lie before the rows as before, so as many lie after them: a reshape keeps their number.
    return Value(shape=target, rows=Rows(axis, outer, inner))


def reshape(node: Node) -> Sequence[Value]:
    """Reshape to a shape that is constant or computed from sizes."""
    value = node.input(0)
    target = node.known(1) if node.has(1) else integers(*node.attribute("shape", ()))
    if target is None:
        if value.constant and node.input(1).constant:
            return [Value()]
        raise RowsInteract("reshapes to a shape that is computed from values")
    sizes = _complete(node, value, target)
    result = moved(value, sizes)
    if value.known is not None and len(sizes) <= 1:
        result = known_value(value.known, scalar=not sizes)
    return [result]


def _complete(node: Node, value: Value, target: Shape) -> Shape:
    """The target of a reshape with its 0 and -1 replaced by sizes."""
    sizes = list(target)
    for axis, size in enumerate(sizes):
        if size == Size(0) and not node.attribute("allowzero", 0):
            if axis >= rank_of(value):
                raise RowsInteract("keeps the size of an axis that it does not have")
            sizes[axis] = value.sizes[axis]
    if Size(-1) in sizes:
        free = sizes.index(Size(-1))
        found = product(*value.sizes).divide(product(*sizes[:free], *sizes[free + 1 :]))
        # If it is not known: a size that depended on the rows would leave no axis, or two, for them.
        sizes[free] = node.free_size(0, free) if found is None else found
    return tuple(sizes)


def flatten(node: Node) -> Sequence[Value]:
    """Flatten to two axes."""
    value = node.input(0)
    rank = rank_of(value)
    axis = node.attribute("axis", 1)
    axis = axis + rank if axis < 0 else axis
    return [moved(value, (product(*value.sizes[:axis]), product(*value.sizes[axis:])))]


def squeeze(node: Node) -> Sequence[Value]:
    """Squeeze axes of size 1."""
    value = node.input(0)
    axes = node.integers_of("axes", 1, "axes")
    if value.known is not None:
        return [known_value(value.known, scalar=True)]
    rank = rank_of(value)
    if axes is None:
        # Any axis of size 1 goes; a batch of one row alone would go, too.
        if value.rows is not None or any(size.symbols for size in value.sizes):
            raise RowsInteract("removes every axis of size 1, and so the batch of a single row", certain=True)
        axes = [axis for axis, size in enumerate(value.sizes) if size == ONE]
    removed = {axis_in(axis, rank) for axis in axes}
    if value.rows is not None and value.rows.axis in removed:
        raise RowsInteract("removes the axis of the rows", certain=True)
    kept = [axis for axis in range(rank) if axis not in removed]
    rows = None if value.rows is None else value.rows.at(kept.index(value.rows.axis))
    return [Value(shape=tuple(value.sizes[axis] for axis in kept), rows=rows, sized=value.sized)]


def unsqueeze(node: Node) -> Sequence[Value]:
    """Insert axes of size 1."""
    value = node.input(0)
    axes = node.integers_of("axes", 1, "axes")
    if axes is None:
        raise RowsInteract("has no axes")
    rank = rank_of(value) + len(axes)
    inserted = {axis_in(axis, rank) for axis in axes}
    if value.known is not None and rank == 1:
        return [known_value(value.known)]
    kept = [axis for axis in range(rank) if axis not in inserted]
    if len(kept) != len(value.sizes):
        raise RowsInteract("inserts an axis twice")
    sizes = [ONE] * rank
    for axis, size in zip(kept, value.sizes, strict=True):
        sizes[axis] = size
    rows = None if value.rows is None else value.rows.at(kept[value.rows.axis])
    return [Value(shape=tuple(sizes), rows=rows, sized=value.sized)]


def transpose(node: Node) -> Sequence[Value]:
    """Permute axes."""
    value = node.input(0)
    rank = rank_of(value)
    order = list(node.attribute("perm", range(rank)[::-1]))
    if sorted(order) != list(range(rank)):
        raise RowsInteract("permutes other axes than its input has")
    rows = None if value.rows is None else value.rows.at(order.index(value.rows.axis))
    return [Value(shape=tuple(value.sizes[axis] for axis in order), rows=rows, sized=value.sized)]


def expand(node: Node) -> Sequence[Value]:
    """Broadcast a value to a shape."""
    value, target = node.input(0), node.known(1)
    rank = rank_of(value)
    if target is None:
        raise RowsInteract("expands to a shape that is computed from values")
    if value.sized:
        raise RowsInteract("expands what depends on the number of rows")
    total = max(rank, len(target))
    own = (ONE,) * (total - rank) + value.sizes
    wanted = (ONE,) * (total - len(target)) + target
    rows = None if value.rows is None else value.rows.at(value.rows.axis + total - rank)
    sizes: list[Size] = []
    for axis, (have, want) in enumerate(zip(own, wanted, strict=True)):
        if rows is not None and axis == rows.axis:
            if want not in {ONE, have}:
                raise RowsInteract("expands the axis of the rows")
            sizes.append(have)
        elif want.depends_on_batch:
            if rows is not None or have != ONE or want != BATCH:
                raise RowsInteract("expands another axis to the number of rows")
            rows = Rows(axis)
            sizes.append(BATCH)
        elif want in {have, ONE}:
            sizes.append(have)
        else:
            sizes.append(want if have == ONE else node.free_size(0, axis))
    return [Value(shape=tuple(sizes), rows=rows)]


def filled(node: Node) -> Sequence[Value]:
    """ConstantOfShape: one number everywhere, so each row holds the same."""
    target = node.known(0)
    if target is None:
        if node.input(0).constant:
            return [Value()]
        raise RowsInteract("makes a tensor of a shape that is computed from values")
    axes = [axis for axis, size in enumerate(target) if size.depends_on_batch]
    if not axes:
        fill = node.attribute("value")
        number = 0 if fill is None else _integer_of(fill)
        length = target[0].number if len(target) == 1 else None
        if number is not None and length is not None and 0 <= length <= 64:
            return [known_value(integers(*[number] * length))]
        return [Value(shape=target)]
    if len(axes) != 1 or target[axes[0]] != BATCH:
        return [Value(shape=target, sized=True)]
    return [Value(shape=target, rows=Rows(axes[0]))]


def _integer_of(tensor: TensorProto) -> int | None:
    array = numpy_helper.to_array(tensor)
    return int(array.reshape(-1)[0]) if array.dtype.kind in "iub" and array.size == 1 else None


def numbers(node: Node) -> Sequence[Value]:
    """Range from 0 to the number of rows, or to another size; see `numbering.py`."""
    start, limit, step = (node.known(index) for index in range(3))
    if start == (Size(0),) and limit is not None and step == (ONE,):
        if limit == (BATCH,):
            return [Value(shape=limit, rows=Rows(0), numbered="rows")]
        if not limit[0].depends_on_batch and limit[0].is_axis:
            return [Value(shape=limit, limit=limit[0])]
    raise RowsInteract("counts to a number that is computed")


def concat(node: Node) -> Sequence[Value]:
    """Join values along an axis that is not that of the rows."""
    values = node.present
    if all(value.known is not None and value.shape is not None and len(value.sizes) == 1 for value in values):
        return [known_value([size for value in values for size in value.known or ()])]
    rank = max(rank_of(value) for value in values)
    axis = axis_in(node.attribute("axis", 1), rank)
    rows = next((value.rows for value in values if value.rows is not None), None)
    if any(value.sized for value in values) or any(value.rows != rows for value in values):
        raise RowsInteract("joins values of which some have no rows, or rows on other axes")
    if rows is not None and rows.axis == axis:
        raise RowsInteract("joins values along the axis of the rows", certain=True)
    shapes = [value.shape for value in values if value.shape is not None]
    if any(len(shape) != rank for shape in shapes):
        raise RowsInteract("joins values of different ranks")
    sizes = list(shapes[0])
    for shape in shapes[1:]:
        sizes[axis] = add(sizes[axis], shape[axis])
    return [Value(shape=tuple(sizes), rows=rows)]


def split(node: Node) -> Sequence[Value]:
    """Split along an axis that is not that of the rows."""
    value = node.input(0)
    node.require_constant(1)
    rank = rank_of(value)
    axis = axis_in(node.attribute("axis", 0), rank)
    if value.sized or (value.rows is not None and value.rows.axis == axis):
        raise RowsInteract("splits the axis of the rows", certain=True)
    parts = node.integers_of("split", 1, "sizes") if node.has(1) or node.attribute("split") else None
    results = []
    for output in range(node.outputs):
        size = node.free_size(output, axis) if parts is None or output >= len(parts) else Size(parts[output])
        if parts is None:
            size = value.sizes[axis].divide(Size(node.outputs)) or size
        results.append(Value(shape=(*value.sizes[:axis], size, *value.sizes[axis + 1 :]), rows=value.rows))
    return results


def slice_of(node: Node) -> Sequence[Value]:
    """Slice; on the axis of the rows only from the first to the last."""
    value = node.input(0)
    rank = rank_of(value)
    starts = _maybe(node, "starts", 1)
    ends = _maybe(node, "ends", 2)
    axes = node.integers_of("axes", 3, "axes")
    steps = _maybe(node, "steps", 4) if node.has(4) else None
    length = len(axes or starts or ends or [])
    if axes is None:
        if not length:
            raise RowsInteract("has axes that are not known")
        axes = list(range(length))
    normal = [axis_in(axis, rank) for axis in axes]
    if value.known is not None and rank == 1 and starts and ends and (steps is None or None not in steps):
        part = slice(starts[0], ends[0], steps[0] if steps else 1)
        return [known_value(value.known[part])]
    if value.sized:
        raise RowsInteract("takes a part of what depends on the number of rows")
    sizes = list(value.sizes)
    for place, axis in enumerate(normal):
        if value.rows is not None and axis == value.rows.axis:
            whole = starts is not None and ends is not None and starts[place] == 0 and ends[place] >= _MAX_ROWS
            if not whole or (node.has(4) and (steps is None or steps[place] != 1)):
                raise RowsInteract("takes some of the rows", certain=starts is not None and ends is not None)
        else:
            sizes[axis] = node.free_size(0, axis)
    for index in range(1, 5):
        if node.has(index) and not node.input(index).constant:
            raise RowsInteract("has bounds that depend on the rows")
    return [Value(shape=tuple(sizes), rows=value.rows)]


def _maybe(node: Node, name: str, index: int) -> list[int] | None:
    if node.attribute(name) is not None:
        return [int(each) for each in node.attribute(name)]
    return node.integers(index) if node.has(index) else None


def tile(node: Node) -> Sequence[Value]:
    """Repeat along axes that are not that of the rows."""
    value, repeats = node.input(0), node.known(1)
    rank = rank_of(value)
    if repeats is None or len(repeats) != rank:
        raise RowsInteract("repeats a number of times that is computed")
    rows = value.rows
    for axis, times in enumerate(repeats):
        if rows is not None and axis == rows.axis and times != ONE:
            raise RowsInteract("repeats the rows")
        if times.depends_on_batch:
            if rows is not None or times != BATCH or value.sizes[axis] != ONE:
                raise RowsInteract("repeats as often as there are rows")
            rows = Rows(axis)
    sizes = tuple(size * times for size, times in zip(value.sizes, repeats, strict=True))
    if value.sized:
        raise RowsInteract("repeats what depends on the number of rows")
    return [Value(shape=sizes, rows=rows)]


def pad(node: Node) -> Sequence[Value]:
    """Pad axes that are not that of the rows."""
    value = node.input(0)
    node.require_constant(1, 2, 3)
    rank = rank_of(value)
    if value.sized:
        raise RowsInteract("pads what depends on the number of rows")
    pads = node.integers_of("pads", 1, "pads")
    axes = node.integers(3) if node.has(3) else list(range(rank))
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        raise RowsInteract("has pads that are computed")
    sizes = list(value.sizes)
    for place, axis in enumerate(axis_in(axis, rank) for axis in axes):
        total = pads[place] + pads[place + len(axes)]
        if pads[place] or pads[place + len(axes)]:
            if value.rows is not None and value.rows.axis == axis:
                raise RowsInteract("pads the axis of the rows", certain=True)
            sizes[axis] = add(sizes[axis], Size(total))
    return [Value(shape=tuple(sizes), rows=value.rows)]


RULES: Mapping[tuple[str, str], Rule] = {
    ("", "Shape"): shape_of,
    ("", "Size"): size_of,
    ("", "Reshape"): reshape,
    ("", "Flatten"): flatten,
    ("", "Squeeze"): squeeze,
    ("", "Unsqueeze"): unsqueeze,
    ("", "Transpose"): transpose,
    ("", "Expand"): expand,
    ("", "ConstantOfShape"): filled,
    ("", "Range"): numbers,
    ("", "Concat"): concat,
    ("", "Split"): split,
    ("", "Slice"): slice_of,
    ("", "Tile"): tile,
    ("", "Pad"): pad,
}
