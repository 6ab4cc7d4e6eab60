"""Made-up inputs: numbers and texts on which a model is tried when it is loaded."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from app.inference.datatypes import BF16, BOOL, BYTES, DTYPES, ROW_DTYPES, Array, Tensor

FLOATS = frozenset({*ROW_DTYPES, BF16})
FREE_SIZES = (5, 1, 64, 512)  # of axes other than the batch, tried in this order
BOUNDS = (100, 3, 2, 1)  # integers are below one of these, as they may be indices of a small table
POISON = -1  # the number of the row that holds NaN and infinities
_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
_LARGE = 300.0


@dataclass(frozen=True, slots=True)
class MadeUp:
    """A way to make inputs up: the size of free axes, and the bound of integers.

    Row 0 has floats from 0 to 1, row 1 negative ones, row 2 large ones of both signs, and so on; all rows differ.

    Args:
        free_size: of axes of any size, other than the batch.
        bound: integers are from 0 to below this; with 1, texts are empty, else they are the digits of integers.
        larger: the bounds of inputs that take larger integers, by name.
    """

    free_size: int
    bound: int
    larger: Mapping[str, int] = field(default_factory=dict)

    def inputs(self, tensors: Sequence[Tensor], rows: Sequence[int], *, has_batch_axis: bool) -> dict[str, Array]:
        """Make up the inputs of a run.

        Args:
            tensors: the model's inputs.
            rows: numbers of the rows; a model without a batch axis gets the first one.
            has_batch_axis: the first axis of each input is the batch.
        """
        feeds: dict[str, Array] = {}
        for tensor in tensors:
            if has_batch_axis:
                shape = self._shape(tensor.shape[1:])
                feeds[tensor.name] = np.stack([self._row(tensor, shape, row) for row in rows])
            else:
                feeds[tensor.name] = self._row(tensor, self._shape(tensor.shape), rows[0])
        return feeds

    def _shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.free_size if size < 0 else size for size in shape)

    def _row(self, tensor: Tensor, shape: tuple[int, ...], row: int) -> Array:
        count, datatype = math.prod(shape), tensor.datatype
        if datatype in FLOATS:
            return _floats(count, row).reshape(shape).astype(DTYPES[datatype])
        bound = self.larger.get(tensor.name, self.bound)
        integers = (np.arange(count) * (row + 1) + row) % bound
        if not row:
            integers[-1:] = bound - 1  # so that the first row shows whether the model takes all integers
        if datatype == BYTES:
            texts = [str(number) if bound > 1 else "" for number in integers.tolist()]
            return np.array(texts, object).reshape(shape)
        if datatype == BOOL:
            return ((integers + (bound > 1) * row) % 2).astype(DTYPES[BOOL]).reshape(shape)
        return integers.reshape(shape).astype(DTYPES[datatype])

    def with_larger(self, tensors: Sequence[Tensor], name: str) -> "Iterator[MadeUp]":
        """Ways in which one input has larger integers, the largest first; none if there is only one such input."""
        if sum(tensor.datatype not in FLOATS for tensor in tensors) > 1:
            for bound in BOUNDS:
                if bound > self.bound:
                    yield replace(self, larger={**self.larger, name: bound})


def ways(tensors: Sequence[Tensor], *, has_batch_axis: bool) -> Iterator[MadeUp]:
    """All ways to make up inputs for a model, the most telling one first."""
    free = any(size < 0 for tensor in tensors for size in tensor.shape[has_batch_axis:])
    bounded = any(tensor.datatype not in FLOATS for tensor in tensors)
    for free_size in FREE_SIZES if free else FREE_SIZES[:1]:
        for bound in BOUNDS if bounded else BOUNDS[:1]:
            yield MadeUp(free_size, bound)


def _floats(count: int, row: int) -> Array:
    # As good as random numbers here, without loading numpy.random.
    values: Array = (np.arange(1, count + 1) + 7 * row) * _GOLDEN_RATIO % 1
    if row == POISON:
        values[::2] = np.nan
        values[1::4] = np.inf
        values[3::4] = -np.inf
    elif row % 3 == 1:
        values = -values
    elif row % 3 == 2:
        values = (values - 0.5) * 2 * _LARGE
    return values
