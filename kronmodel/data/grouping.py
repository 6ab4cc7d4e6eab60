"""Splits of a table by groups or by time, where rows of the test must not resemble rows of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.split import Indices
from kronmodel.data.tables.columns import column_of, distinct_texts
from kronmodel.errors import Argument, DataError, Message

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RowSplit", "group_split", "time_split"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSplit:
    """Split that a column decides.

    Attributes:
        column: name of the column.
        codes: ``(n,)``: number of each row's group, or its time.
        by_time: the latest rows are the test; else whole groups are drawn for it.
    """

    column: str
    codes: NDArray[np.float64]
    by_time: bool

    def split(self, fraction: float, seed: int) -> tuple[Indices, Indices, str]:
        """Return the indices of training and test rows, both in ascending order, and a sentence about the choice.

        Rows of the same group, or of the same time, are all on one side.

        Raises:
            DataError: all rows are of one group or time.
        """
        values, sizes = np.unique(self.codes, return_counts=True)
        if len(values) < 2:
            what = "time" if self.by_time else "group"
            raise DataError(f"column {self.column!r} has the same {what} in every row, so it can't split them")
        order = np.arange(len(values))[::-1] if self.by_time else np.random.default_rng(seed).permutation(len(values))
        totals = np.cumsum(sizes[order])
        wanted = fraction * len(self.codes)
        # The number of groups whose rows come closest to the fraction; one stays for the training.
        count = 1 + int(np.abs(totals[:-1] - wanted).argmin())
        in_test = np.isin(self.codes, values[order[:count]])
        if self.by_time:
            how = f"the latest {in_test.mean():.3g} of the samples by {self.column!r} for the test"
        else:
            how = f"{count:,} of {len(values):,} groups of {self.column!r} for the test, drawn with seed {seed}"
        return np.flatnonzero(~in_test), np.flatnonzero(in_test), how


def group_split(table: pa.Table, name: str, rows: Indices) -> RowSplit:
    """Make the split by the groups that a column names, for the chosen rows of a table.

    Raises:
        DataError: a row has no group.
    """
    found = distinct_texts(table.column(name))
    codes = found.rows[rows]
    _check(name, codes < 0, "groups")
    return RowSplit(column=name, codes=codes.astype(np.float64), by_time=False)


def time_split(table: pa.Table, name: str, rows: Indices, *, comma: bool) -> RowSplit:
    """Make the split by the order of a column of dates, times or numbers, for the chosen rows of a table.

    Raises:
        DataError: the column is of another kind, or a row has no value.
    """
    column = column_of(name, table.column(name), None, comma=comma)
    if column.kind not in ("date", "number") or column.values is None:
        text = f": column {name!r} is taken for {column.kind}, expected dates, times or numbers"
        raise DataError(Message(Argument("time_order"), text))
    times = np.asarray(column.values, np.float64)[rows]
    _check(name, np.isnan(times), "time_order")
    return RowSplit(column=name, codes=times, by_time=True)


def _check(name: str, missing: NDArray[np.bool_] | Sequence[bool], option: str) -> None:
    count = int(np.sum(missing))
    if count:
        rows = "row" if count == 1 else "rows"
        raise DataError(Message(Argument(option), f": column {name!r} has no value in {count:,} {rows}"))
