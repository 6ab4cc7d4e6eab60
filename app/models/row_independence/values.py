"""What the analysis knows about a value of a graph: its shape, and where the rows of the batch lie in it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from numpy.typing import NDArray

from app.models.row_independence.sizes import BATCH, ONE, Size, integers, product

MAX_KNOWN = 64  # elements of an integer tensor that are tracked one by one

Shape: TypeAlias = tuple[Size, ...]


class RowsInteract(Exception):  # noqa: N818
    """Rows of a batch may influence each other.

    Args:
        reason: follows the name of the operator in a sentence.
        certain: the operator is known to mix rows; False if it is only not known to keep them apart.
    """

    def __init__(self, reason: str, *, certain: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certain = certain


@dataclass(frozen=True, slots=True)
class Mixed:
    """The operator that mixed rows first on the way to a value.

    Args:
        reason: a sentence that names the operator.
        certain: it is known to mix rows.
    """

    reason: str
    certain: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Position of the batch in a value.

    The axis has the size `outer * batch * inner`: a reshape may have merged the batch with its neighbours.

    Args:
        axis: that holds the rows.
        outer: size of the axes merged before the batch.
        inner: size of the axes merged after the batch.
    """

    axis: int
    outer: Size = ONE
    inner: Size = ONE

    @property
    def size(self) -> Size:
        """The size of the axis."""
        return product(self.outer, BATCH, self.inner)

    def at(self, axis: int) -> "Rows":
        """The same rows on another axis."""
        return replace(self, axis=axis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor of the graph, as far as it is known.

    Args:
        shape: None if the rank is not known.
        rows: where the batch lies; then the part of a row depends on that row only, and no other axis on the number of
            rows. None if the value does not depend on the rows.
        sized: it depends on the number of rows, but not on their values, such as the result of `Shape`.
        known: the elements of an integer tensor of at most one axis.
        array: the elements of a small constant.
        mixed: the elements do not depend on their own row only; shape and rows are those of the tensor nonetheless.
        numbered: `rows` if every element of row i is i, as `torch.arange` over a batch gives; `indices` if that holds
            for the first of the numbers along the last axis, and the others are those of rows; `strides` if every
            element of row i is i times `limit`; `flat` if it is that plus a number below `limit`; else empty.
        limit: of integers from 0 to below it, whatever the rows are, as `torch.arange` over another axis gives.
    """

    shape: Shape | None = None
    rows: Rows | None = None
    sized: bool = False
    known: Shape | None = None
    array: NDArray[Any] | None = None
    mixed: Mixed | None = None
    numbered: str = ""
    limit: Size | None = None

    @property
    def sizes(self) -> Shape:
        """The shape.

        Raises:
            RowsInteract: it is not known.
        """
        if self.shape is None:
            raise RowsInteract("has an input of unknown rank")
        return self.shape

    @property
    def constant(self) -> bool:
        """Whether it depends neither on the rows nor on their number."""
        return self.rows is None and not self.sized and self.mixed is None


UNKNOWN = Value()


def known_value(elements: Sequence[Size], *, scalar: bool = False) -> Value:
    """An integer tensor of no axis or one, whose elements are known."""
    shape = () if scalar else integers(len(elements))
    if len(elements) > MAX_KNOWN:
        return Value(shape=shape, sized=any(size.depends_on_batch for size in elements))
    return Value(shape=shape, known=tuple(elements), sized=any(size.depends_on_batch for size in elements))


def array_value(array: NDArray[Any]) -> Value:
    """A constant, whose elements are known if it is small."""
    shape = integers(*array.shape)
    if array.size > MAX_KNOWN:
        return Value(shape=shape)
    known = None
    if array.dtype.kind in "iub" and array.ndim <= 1:
        known = integers(*[int(element) for element in array.reshape(-1)])
    return Value(shape=shape, known=known, array=array)
