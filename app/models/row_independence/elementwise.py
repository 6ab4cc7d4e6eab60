"""Rules of operators that compute each element from the elements at its place, with broadcasting."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.models.row_independence.node import Node, Rule, axis_in, rank_of
from app.models.row_independence.sizes import ONE, Size
from app.models.row_independence.values import Rows, RowsInteract, Shape, Value


def broadcast(node: Node, values: Sequence[Value]) -> Value:
    """The result of an elementwise operation on values, whose axes are aligned from the last one.

    Raises:
        RowsInteract: the rows of one value would meet several elements of another one.
    """
    shapes = [_shape(value) for value in values]
    rank = max(map(len, shapes))
    rows: Rows | None = None
    for value, shape in zip(values, shapes, strict=True):
        if value.rows is not None:
            aligned = value.rows.at(rank - len(shape) + value.rows.axis)
            if rows is not None and aligned != rows:
                raise RowsInteract("combines values whose rows lie on different axes", certain=True)
            rows = aligned
    sizes = []
    for axis in range(rank):
        here = [
            (value, shape[axis - rank + len(shape)])
            for value, shape in zip(values, shapes, strict=True)
            if axis >= rank - len(shape)
        ]
        if rows is not None and axis == rows.axis:
            if any(value.rows is None and size != ONE for value, size in here):
                raise RowsInteract("combines each row with each entry of another value")
            sizes.append(rows.size)
        else:
            sizes.append(_common_size(node, axis, [size for _, size in here]))
    return Value(shape=tuple(sizes), rows=rows)


def _shape(value: Value) -> Shape:
    if value.sized:
        raise RowsInteract("computes with the number of rows", certain=True)
    return value.sizes


def _common_size(node: Node, axis: int, sizes: Sequence[Size]) -> Size:
    others = {size for size in sizes if size != ONE}
    if len(others) <= 1:
        return next(iter(others), ONE)
    numbers = {size for size in others if not size.symbols}
    return next(iter(numbers)) if len(numbers) == 1 else node.free_size(0, axis)


def same(node: Node) -> Sequence[Value]:
    """An operator of one input whose output has its shape; other inputs are options."""
    node.require_constant(*range(1, len(node.inputs)))
    value = node.input(0)
    _check_sized(value)
    return [Value(shape=value.shape, rows=value.rows)] * node.outputs


def _check_sized(value: Value) -> None:
    if value.sized:
        raise RowsInteract("computes with the number of rows", certain=True)


def identity(node: Node) -> Sequence[Value]:
    """An operator that returns its input."""
    return [node.input(0)]


def cast(node: Node) -> Sequence[Value]:
    """A conversion of the datatype, which keeps known integers only if the result is one."""
    value = node.input(0)
    if node.attribute("to") in {6, 7}:  # INT32, INT64
        return [replace(value, array=None)]
    return [replace(value, array=None, known=None)]


def cast_like(node: Node) -> Sequence[Value]:
    """A conversion to the datatype of another value."""
    return [replace(node.input(0), array=None, known=None)]


def all_inputs(node: Node) -> Sequence[Value]:
    """An elementwise operator of any number of inputs."""
    if node.attribute("broadcast") is not None:  # before operator set 7, with another alignment
        raise RowsInteract("is of an operator set before 7")
    return [broadcast(node, node.present)]


def dropout(node: Node) -> Sequence[Value]:
    """Dropout, which is the identity unless it is told to train."""
    if node.has(2) and node.integers(2) != [0]:
        raise RowsInteract("may draw random numbers (training_mode)", certain=True)
    return [Value(shape=node.input(0).shape, rows=node.input(0).rows)] * node.outputs


def quantize(node: Node) -> Sequence[Value]:
    """QuantizeLinear and DequantizeLinear, whose scales are constants."""
    node.require_constant(1, 2)
    value, scale = node.input(0), node.input(1)
    _check_sized(value)
    if value.rows is not None and scale.shape != ():
        rank = rank_of(value)
        one = scale.shape is not None and scale.shape == (ONE,)
        if node.attribute("block_size", 0) or rank_of(scale) > 1:
            raise RowsInteract("scales blocks of elements")
        if not one and axis_in(node.attribute("axis", 1), rank) == value.rows.axis:
            raise RowsInteract("has another scale for each row", certain=True)
    return [Value(shape=value.shape, rows=value.rows)]


def quantized_binary(node: Node) -> Sequence[Value]:
    """QLinearAdd and QLinearMul: two values, each with a scale and a zero point."""
    node.require_constant(1, 2, 4, 5, 6, 7)
    return [broadcast(node, [node.input(0), node.input(3)])]


_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Celu Ceil Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign "
    "Sqrt Swish Tan Tanh ThresholdedRelu RegexFullMatch"
)
_BROADCASTING = (
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min "
    "Mod Mul Or PRelu Pow StringConcat Sub Sum Where Xor"
)
_MICROSOFT_UNARY = "Gelu QLinearLeakyRelu QLinearSigmoid QuickGelu"
_MICROSOFT_BROADCASTING = "BiasAdd BiasGelu FastGelu"

RULES: Mapping[tuple[str, str], Rule] = {
    **{("", name): same for name in _UNARY.split()},
    **{("", name): all_inputs for name in _BROADCASTING.split()},
    **{("com.microsoft", name): same for name in _MICROSOFT_UNARY.split()},
    **{("com.microsoft", name): all_inputs for name in _MICROSOFT_BROADCASTING.split()},
    ("", "Identity"): identity,
    ("", "Cast"): cast,
    ("", "CastLike"): cast_like,
    ("", "Clip"): same,
    ("", "Dropout"): dropout,
    ("", "QuantizeLinear"): quantize,
    ("", "DequantizeLinear"): quantize,
    ("com.microsoft", "QuantizeLinear"): quantize,
    ("com.microsoft", "DequantizeLinear"): quantize,
    ("com.microsoft", "QLinearAdd"): quantized_binary,
    ("com.microsoft", "QLinearMul"): quantized_binary,
}
