"""Arithmetic on integers that a graph computes from sizes, element by element, for shapes of reshapes."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from app.models.row_independence.node import Node
from app.models.row_independence.sizes import ONE, Size, add, derived
from app.models.row_independence.values import MAX_KNOWN, Shape, Value, known_value

Evaluate: TypeAlias = Callable[[Node], Value | None]


def _operands(node: Node) -> tuple[list[Shape], bool] | None:
    """The known elements of all inputs, broadcast to one length, and whether the result is a scalar."""
    elements: list[Shape] = []
    scalar = True
    for value in node.present:
        if value.known is None or value.shape is None:
            return None
        elements.append(value.known)
        scalar = scalar and not value.shape
    length = max(map(len, elements), default=0)
    if any(len(each) not in {1, length} for each in elements) or not 0 < length <= MAX_KNOWN:
        return None
    return [each * length if len(each) == 1 else each for each in elements], scalar


def _each(operation: Callable[..., Size | None]) -> Evaluate:
    """An operation on the elements at one place of each input."""

    def evaluate(node: Node) -> Value | None:
        found = _operands(node)
        if found is None:
            return None
        elements, scalar = found
        results = [operation(*each) for each in zip(*elements, strict=True)]
        if any(result is None for result in results):
            return None
        return known_value([result for result in results if result is not None], scalar=scalar)

    return evaluate


def _subtract(a: Size, b: Size) -> Size:
    return add(a, Size(-b.factor, b.symbols))


def _divide(a: Size, b: Size) -> Size:
    if a.number is not None and b.number:
        quotient = abs(a.number) // abs(b.number)
        return Size(quotient if (a.number < 0) == (b.number < 0) else -quotient)
    return a.divide(b) or derived("quotient", a, b)


def _modulo(a: Size, b: Size) -> Size:
    if a.number is not None and b.number is not None and a.number >= 0 and b.number > 0:
        return Size(a.number % b.number)
    return derived("remainder", a, b)


def _multiply(a: Size, b: Size) -> Size:
    return a * b


def _negate(a: Size) -> Size:
    return Size(-a.factor, a.symbols)


def _largest(*sizes: Size) -> Size:
    numbers = [size.number for size in sizes if size.number is not None]
    if len(numbers) == len(sizes):
        return Size(max(numbers))
    return sizes[0] if len(set(sizes)) == 1 else derived("maximum", *sizes)


def _smallest(*sizes: Size) -> Size:
    numbers = [size.number for size in sizes if size.number is not None]
    if len(numbers) == len(sizes):
        return Size(min(numbers))
    return sizes[0] if len(set(sizes)) == 1 else derived("minimum", *sizes)


def _truth(value: bool) -> Size:
    return Size(int(value))


def _equal(a: Size, b: Size) -> Size:
    if a == b:
        return ONE
    if a.number is not None and b.number is not None:
        return Size(0)
    if (_is_negative(a) and b.is_axis) or (_is_negative(b) and a.is_axis):
        return Size(0)
    return derived("equal", *sorted((a, b), key=lambda size: (size.symbols, size.factor)))


def _is_negative(size: Size) -> bool:
    return size.number is not None and size.number < 0


def _less(a: Size, b: Size) -> Size:
    if a.number is not None and b.number is not None:
        return _truth(a.number < b.number)
    if _is_negative(a) and b.is_axis:
        return ONE
    if (_is_negative(b) or b == Size(0)) and a.is_axis:
        return Size(0)
    return derived("less", a, b)


def _greater(a: Size, b: Size) -> Size:
    return _less(b, a)


def _not(a: Size) -> Size:
    return derived("not", a) if a.number is None else _truth(not a.number)


def _and(a: Size, b: Size) -> Size:
    if Size(0) in {a, b}:
        return Size(0)
    return ONE if a.number and b.number else derived("and", a, b)


def _or(a: Size, b: Size) -> Size:
    if a.number or b.number:
        return ONE
    return Size(0) if a.number == 0 and b.number == 0 else derived("or", a, b)


def _choose(condition: Size, a: Size, b: Size) -> Size:
    if condition.number is not None:
        return a if condition.number else b
    return a if a == b else derived("where", condition, a, b)


def _range(node: Node) -> Value | None:
    """Range of plain numbers."""
    bounds: list[int] = []
    for index in range(3):
        found = node.integers(index)
        if not found:
            return None
        bounds.append(found[0])
    start, limit, delta = bounds
    if not delta or len(range(start, limit, delta)) > MAX_KNOWN:
        return None
    return known_value([Size(each) for each in range(start, limit, delta)])


RULES: Mapping[str, Evaluate] = {
    "Add": _each(add),
    "Sub": _each(_subtract),
    "Mul": _each(_multiply),
    "Div": _each(_divide),
    "Mod": _each(_modulo),
    "Neg": _each(_negate),
    "Max": _each(_largest),
    "Min": _each(_smallest),
    "Equal": _each(_equal),
    "Less": _each(_less),
    "Greater": _each(_greater),
    "Not": _each(_not),
    "And": _each(_and),
    "Or": _each(_or),
    "Where": _each(_choose),
    "Range": _range,
}
