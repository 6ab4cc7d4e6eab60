"""Rules of matrix products, convolutions, pooling and resizing."""

from collections.abc import Mapping, Sequence

from app.models.row_independence.elementwise import broadcast
from app.models.row_independence.node import Node, Rule, rank_of
from app.models.row_independence.sizes import ONE, Size
from app.models.row_independence.values import Rows, RowsInteract, Shape, Value


def product_of(node: Node, a: Value, b: Value) -> Value:
    """The matrix product of two values, whose leading axes are broadcast.

    Raises:
        RowsInteract: it sums over the rows.
    """
    rank_a, rank_b = rank_of(a), rank_of(b)
    if a.sized or b.sized:
        raise RowsInteract("computes with the number of rows", certain=True)
    if not rank_a or not rank_b:
        raise RowsInteract("multiplies a scalar as a matrix")
    for value, rank, axis in ((a, rank_a, -1), (b, rank_b, -2)):
        if value.rows is not None and value.rows.axis == max(0, rank + axis):
            raise RowsInteract("sums over the rows", certain=True)
    shape_a = a.sizes if rank_a > 1 else (ONE, *a.sizes)
    shape_b = b.sizes if rank_b > 1 else (*b.sizes, ONE)
    rank = max(len(shape_a), len(shape_b))
    # The rows of the result are those of the left matrices, its columns those of the right ones; each is broadcast
    # over the other's axis, which the size 1 stands for.
    left = Value(shape=(*shape_a[:-1], ONE), rows=None if a.rows is None else a.rows)
    right = Value(shape=(*shape_b[:-2], ONE, shape_b[-1]), rows=None if b.rows is None else b.rows)
    result = broadcast(node, [left, right])
    rows, shape = result.rows, list(result.sizes)
    if rank_a == 1:
        del shape[rank - 2]
        rows = None if rows is None else rows.at(rows.axis - (rows.axis > rank - 2))
    if rank_b == 1:
        del shape[-1]
    return Value(shape=tuple(shape), rows=rows)


def _transposed(value: Value, transpose: object) -> Value:
    if not transpose:
        return value
    rank = rank_of(value)
    if rank < 2 or value.shape is None:
        return value
    order = [*range(rank - 2), rank - 1, rank - 2]
    rows = None if value.rows is None else value.rows.at(order.index(value.rows.axis))
    return Value(shape=tuple(value.sizes[axis] for axis in order), rows=rows, sized=value.sized)


def matmul(node: Node) -> Sequence[Value]:
    """MatMul and MatMulInteger, whose zero points are constants."""
    node.require_constant(2, 3)
    return [product_of(node, node.input(0), node.input(1))]


def fused_matmul(node: Node) -> Sequence[Value]:
    """Onnxruntime's product with transposed operands."""
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        raise RowsInteract("moves the axis of the batch")
    a = _transposed(node.input(0), node.attribute("transA", 0))
    b = _transposed(node.input(1), node.attribute("transB", 0))
    return [product_of(node, a, b)]


def quantized_matmul(node: Node) -> Sequence[Value]:
    """QLinearMatMul: two matrices, each with a scale and a zero point."""
    node.require_constant(1, 2, 4, 5, 6, 7)
    return [product_of(node, node.input(0), node.input(3))]


def integer_to_float(node: Node) -> Sequence[Value]:
    """MatMulIntegerToFloat of constant scales and zero points."""
    node.require_constant(*range(2, len(node.inputs)))
    return [product_of(node, node.input(0), node.input(1))]


def constant_weights(node: Node) -> Sequence[Value]:
    """A product of rows with packed constant weights: MatMulNBits."""
    node.require_constant(*range(1, len(node.inputs)))
    value = node.input(0)
    rank = rank_of(value)
    if value.shape is None or value.sized or (value.rows is not None and value.rows.axis == rank - 1):
        raise RowsInteract("sums over the rows", certain=True)
    return [Value(shape=(*value.sizes[:-1], node.free_size(0, rank - 1)), rows=value.rows)]


def gemm(node: Node) -> Sequence[Value]:
    """Gemm: a product of matrices and an optional summand."""
    a = _transposed(node.input(0), node.attribute("transA", 0))
    b = _transposed(node.input(1), node.attribute("transB", 0))
    result = product_of(node, a, b)
    return [broadcast(node, [result, node.input(2)])] if node.has(2) else [result]


def einsum(node: Node) -> Sequence[Value]:
    """Einsum, whose rows have one letter that is not summed over."""
    equation = node.text("equation").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    if "." in equation or not arrow or len(letters) != len(node.present):
        raise RowsInteract("has an equation that is not analysed")
    sizes: dict[str, Size] = {}
    found: dict[str, Rows] = {}
    for term, value in zip(letters, node.present, strict=True):
        if len(term) != rank_of(value) or value.shape is None or value.sized:
            raise RowsInteract("has an equation that does not fit its inputs")
        for letter, size in zip(term, value.sizes, strict=True):
            sizes[letter] = size if sizes.get(letter, ONE) == ONE else sizes[letter]
        if value.rows is not None:
            found[term[value.rows.axis]] = value.rows
            if term.count(term[value.rows.axis]) > 1:
                raise RowsInteract("takes a diagonal of the rows", certain=True)
    if not found:
        return [Value(shape=tuple(sizes[letter] for letter in result))]
    (letter, rows), *others = found.items()
    if others or result.count(letter) != 1:
        raise RowsInteract("sums over the rows", certain=True)
    for term, value in zip(letters, node.present, strict=True):
        if letter in term and (value.rows is None or value.rows.at(0) != rows.at(0)):
            raise RowsInteract("combines each row with each entry of another value")
    return [Value(shape=tuple(sizes[each] for each in result), rows=rows.at(result.index(letter)))]


def images(node: Node) -> Sequence[Value]:
    """Convolutions, pooling and other operators on (batch, channels, ...), which treat each image by itself."""
    node.require_constant(*range(1, len(node.inputs)))
    return _images(node, _channels_of_weights(node))


def _channels_of_weights(node: Node) -> Size | None:
    weights = {"Conv": 1, "ConvInteger": 1, "FusedConv": 1, "QLinearConv": 3}.get(node.op)
    if weights is None or not node.has(weights):
        return None
    shape = node.input(weights).shape
    return None if not shape else shape[0]


def _images(node: Node, channels: Size | None = None) -> Sequence[Value]:
    value = node.input(0)
    rank = rank_of(value)
    if value.shape is None or value.sized or (value.rows is not None and value.rows.axis != 0):
        raise RowsInteract("takes the axis of the rows for one of channels or pixels", certain=True)
    if node.op.startswith("Global"):
        return [Value(shape=(*value.sizes[:2], *(ONE for _ in range(rank - 2))), rows=value.rows)]
    second = channels or (value.sizes[1] if "Pool" in node.op and rank > 1 else node.free_size(0, 1))
    shape: Shape = (value.sizes[0], second, *(node.free_size(0, axis) for axis in range(2, rank)))
    return [Value(shape=shape[:rank], rows=value.rows)]


def pool(node: Node) -> Sequence[Value]:
    """Pooling; the indices that MaxPool can return count from the first row."""
    if node.outputs > 1 and node.proto.output[1]:
        raise RowsInteract("returns indices that count from the first row", certain=True)
    return images(node)


def quantized_image(node: Node) -> Sequence[Value]:
    """QLinearConv and the quantized pools: scales, zero points and weights are constants."""
    return images(node)


def fused_conv(node: Node) -> Sequence[Value]:
    """Onnxruntime's convolution with an activation and a summand."""
    node.require_constant(1, 2)
    result = _images(node, _channels_of_weights(node))
    if node.has(3) and node.input(3).rows != result[0].rows:
        raise RowsInteract("adds a value that has no rows")
    return result


def resize(node: Node) -> Sequence[Value]:
    """Resize and Upsample, which leave the axis of the rows as it is."""
    value = node.input(0)
    rank = rank_of(value)
    if value.shape is None or value.sized:
        raise RowsInteract("resizes what depends on the number of rows")
    for index in range(1, len(node.inputs)):
        if node.has(index) and (node.input(index).rows is not None or (node.input(index).sized and index != 3)):
            raise RowsInteract("has a size that depends on the rows")
    if node.text("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise RowsInteract("may crop the rows")
    shape = [node.free_size(0, axis) for axis in range(rank)]
    if value.rows is None:
        node.require_constant(*range(1, len(node.inputs)))
        return [Value(shape=tuple(shape))]
    axis = value.rows.axis
    shape[axis] = value.sizes[axis]
    axes = [each % rank for each in node.attribute("axes", range(rank))]
    if axis not in axes:
        node.require_constant(3)
    elif not _keeps_axis(node, value.rows.size, axes.index(axis), len(axes)):
        raise RowsInteract("may change the number of rows")
    return [Value(shape=tuple(shape), rows=value.rows)]


def _keeps_axis(node: Node, size: Size, place: int, count: int) -> bool:
    """Whether a Resize leaves an axis as it is, by its sizes or scales."""
    if node.has(3):
        sizes = node.known(3)
        return (
            sizes is not None
            and len(sizes) == count
            and sizes[place] == size
            and not any(other.depends_on_batch for other in (*sizes[:place], *sizes[place + 1 :]))
            and node.text("keep_aspect_ratio_policy", "stretch") == "stretch"
        )
    scales = node.attribute("scales")
    if scales is None:
        index = 1 if node.op == "Upsample" or node.version < 11 else 2
        array = node.input(index).array if node.has(index) else None
        scales = None if array is None else array.reshape(-1).tolist()
    return scales is not None and len(scales) == count and scales[place] == 1


def grid_sample(node: Node) -> Sequence[Value]:
    """Operators of two values of which each has the rows first: GridSample."""
    for index in (0, 1):
        if node.input(index).rows != Rows(0):
            raise RowsInteract("has an input without rows first")
    grid = node.input(1).shape
    rank = rank_of(node.input(0))
    if grid is None or node.input(0).shape is None:
        raise RowsInteract("has an input of unknown rank")
    shape = node.input(0).sizes
    return [Value(shape=(*shape[:2], *(node.free_size(0, axis) for axis in range(2, rank))), rows=Rows(0))]


def normalization_of_images(node: Node) -> Sequence[Value]:
    """Instance, group and local response normalization, and batch normalization with constant statistics."""
    if node.attribute("training_mode", 0) or (node.op == "BatchNormalization" and node.outputs > 1):
        raise RowsInteract("computes its statistics over all rows (training mode)", certain=True)
    node.require_constant(*range(1, len(node.inputs)))
    value = node.input(0)
    if value.sized or (value.rows is not None and value.rows.axis != 0):
        raise RowsInteract("takes the axis of the rows for one of channels or pixels", certain=True)
    return [Value(shape=value.shape, rows=value.rows)]


_IMAGES = "Conv ConvInteger ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool SpaceToDepth"
_POOLS = "AveragePool LpPool MaxPool"
_NORMALIZATIONS = "BatchNormalization GroupNormalization InstanceNormalization LRN"

RULES: Mapping[tuple[str, str], Rule] = {
    **{("", name): images for name in _IMAGES.split()},
    **{("", name): pool for name in _POOLS.split()},
    **{("", name): normalization_of_images for name in _NORMALIZATIONS.split()},
    ("", "MatMul"): matmul,
    ("", "MatMulInteger"): matmul,
    ("", "QLinearMatMul"): quantized_matmul,
    ("", "Gemm"): gemm,
    ("", "Einsum"): einsum,
    ("", "QLinearConv"): quantized_image,
    ("", "Resize"): resize,
    ("", "Upsample"): resize,
    ("", "GridSample"): grid_sample,
    ("com.microsoft", "FusedMatMul"): fused_matmul,
    ("com.microsoft", "MatMulIntegerToFloat"): integer_to_float,
    ("com.microsoft", "MatMulNBits"): constant_weights,
    ("com.microsoft", "FusedConv"): fused_conv,
    ("com.microsoft", "QLinearAveragePool"): images,
    ("com.microsoft", "QLinearGlobalAveragePool"): images,
}
