"""Kinds of a table's columns: numbers, truth values, categories, dates and times, or left out, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.tables.values import LARGEST, MISSING, epoch_unit, parse_dates, parse_numbers, truth_values

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Column", "Distinct", "Kind", "column_of", "distinct_texts", "number_text"]

Kind = Literal["number", "boolean", "category", "date", "left out"]

FEW_WRONG = 5  # most cells that are no numbers in a column of numbers; they are errors, not another kind
WRONG_FRACTION = 0.1  # as many in a long column
MAX_TEXT = 200  # characters of a category's name
REPEATED = 2  # average number of rows with the same text, from which on texts are categories
_ID = re.compile(
    r"unnamed: ?\d+|index|idx|rownames?|row[ _]?(number|num|nr|no|id)?|nr|no|#|(.*[ _-])?id", re.IGNORECASE
)
_CAMEL_ID = re.compile(r".*[a-z0-9](ID|Id)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """A column of a table with its kind and its values.

    Attributes:
        name: name of the column.
        kind: what its values are taken for.
        why: how the column is written, or why it is left out, for the user.
        values: ``(n,)``: numbers, 1 and 0 for true and false, or seconds since 1970, in float64 with NaN for missing
            values; or texts with "" for missing ones; None if the column is left out.
        wrong: text of each cell that can't be used, by its row.
        form: format of its numbers or dates, for other rows of the same column; empty where these may have any.
    """

    name: str
    kind: Kind
    why: str
    values: NDArray[Any] | None
    wrong: Mapping[int, str] = field(default_factory=dict)
    form: str = ""

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Whether the value of each row is missing."""
        if self.values is None:
            raise ValueError(f"column {self.name!r} is left out")
        return np.asarray(self.values == "" if self.kind == "category" else np.isnan(self.values), bool)

    def take(self, rows: NDArray[Any]) -> Column:
        """Return the column with some of its rows only, all of them usable."""
        return replace(self, values=None if self.values is None else self.values[rows], wrong={})


@dataclass(frozen=True, kw_only=True, eq=False)
class Distinct:
    """Distinct texts of a column, and which of them each row has.

    Attributes:
        texts: the distinct texts without spaces around them, none of them missing.
        rows: ``(n,)``: index of each row's text, -1 where it is missing.
        counts: number of rows of each text.
    """

    texts: list[str]
    rows: NDArray[np.int64]
    counts: NDArray[np.int64]

    def spread(self, values: NDArray[Any], missing: Any) -> NDArray[Any]:
        """Return the value of each row, from the values of the distinct texts."""
        if not len(values):
            return np.full(len(self.rows), missing)
        return np.where(self.rows < 0, missing, values[np.maximum(self.rows, 0)])


def distinct_texts(array: pa.ChunkedArray) -> Distinct:
    """Find the distinct texts of a column of texts."""
    import pyarrow as pa
    from pyarrow import compute as pc

    encoded = pc.utf8_trim_whitespace(array.cast(pa.large_string())).combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    rows = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    known = np.array([text is not None and text.lower() not in MISSING for text in texts], bool)
    number = np.append(np.where(known, np.cumsum(known) - 1, -1), -1).astype(np.int64)
    rows = number[rows]
    kept = [text for text, keep in zip(texts, known, strict=True) if keep]
    return Distinct(texts=kept, rows=rows, counts=np.bincount(rows[rows >= 0], minlength=len(kept)))


def number_text(value: float) -> str:
    """Write a number as the name of a category: whole numbers without a decimal point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def column_of(name: str, array: pa.ChunkedArray, kind: Kind | None, *, comma: bool, form: str = "") -> Column:
    """Interpret a column of a table.

    Args:
        name: name of the column.
        array: its cells as read; texts, or values of other types.
        kind: kind that the user asked for; None to infer it.
        comma: a comma between digits is a decimal comma where it may be either that or between thousands.
        form: format of its numbers or dates, as in other rows of the same column; empty to infer it.
    """
    import pyarrow as pa

    if kind == "left out":
        return Column(name=name, kind=kind, why="left out as asked for", values=None)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        column = _numbers_at_once(name, array) if kind in (None, "number") and not form else None
        found = column or _of_texts(name, distinct_texts(array), kind, comma=comma, form=form)
    else:
        found = _of_values(name, array, kind, form)
    return found if kind is not None or found.values is None else _without_information(found)


def _numbers_at_once(name: str, array: pa.ChunkedArray) -> Column | None:
    """Parse a column in which every text is a plain number or missing; None if it is not such a column."""
    import pyarrow as pa
    from pyarrow import compute as pc

    trimmed = pc.utf8_trim_whitespace(array)
    missing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(sorted(MISSING), trimmed.type))
    try:
        numbers = pc.if_else(missing, pa.scalar(None, trimmed.type), trimmed).cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    values = numbers.to_numpy().astype(np.float64)
    given = ~np.isnan(values)
    if not (np.abs(values[given]) <= LARGEST).all() or int(given.sum()) + pc.sum(missing).as_py() < len(values):
        return None  # the slower parser names the cells
    return Column(name=name, kind="number", why="numbers", values=values)


def _of_texts(name: str, distinct: Distinct, kind: Kind | None, *, comma: bool, form: str) -> Column:
    texts, total = distinct.texts, int(distinct.counts.sum())
    if kind in (None, "boolean"):
        truth = truth_values(texts)
        if truth is not None:
            why = " and ".join(sorted(texts, key=str.lower))
            return Column(name=name, kind="boolean", why=f"only {why}", values=distinct.spread(truth, np.nan))
    if kind in (None, "number"):
        numbers, how, found = parse_numbers(texts, comma=comma, form=form)
        unusable = ~np.isfinite(numbers)
        wrong = int(distinct.counts[unusable].sum())
        # A few wrong cells are errors of the file; many of them make the column one of texts.
        if kind == "number" or _few(wrong, total):
            column = Column(name=name, kind="number", why=how, values=numbers, form=found)
            return _with_wrong(column, distinct, unusable, "a finite number")
    if kind in (None, "date"):
        seconds, how, found = parse_dates(texts, form)
        unusable = np.isnan(seconds)
        if kind == "date" and unusable.all():
            numbers, _, _ = parse_numbers(texts, comma=comma)
            if np.isfinite(numbers).any():
                numbers[~np.isfinite(numbers)] = np.nan
                seconds, how = epoch_unit(numbers, form)
                found = how
                unusable = np.isnan(seconds)
        if kind == "date" or (how and _few(int(distinct.counts[unusable].sum()), total)):
            column = Column(name=name, kind="date", why=how or "dates", values=seconds, form=found)
            return _with_wrong(column, distinct, unusable, "a date or a time")
    if kind == "category":
        return _categories(name, distinct, "as asked for")
    return _categories_or_text(name, distinct)


def _few(wrong: int, total: int) -> bool:
    return total > 0 and 2 * wrong < total and (wrong <= FEW_WRONG or wrong <= WRONG_FRACTION * total)


def _with_wrong(column: Column, distinct: Distinct, unusable: NDArray[np.bool_], expected: str) -> Column:
    """Complete a column, given with the values of the distinct texts, with those of the rows and the unusable cells."""
    values, wrong = np.asarray(column.values), {}
    if unusable.any():
        rows = np.flatnonzero(distinct.spread(unusable, False))
        wrong = {int(row): f"got {distinct.texts[distinct.rows[row]][:40]!r}, expected {expected}" for row in rows}
        values = np.where(unusable, np.nan, values)
    return replace(column, values=distinct.spread(values, np.nan), wrong=wrong)


def _categories(name: str, distinct: Distinct, why: str) -> Column:
    values = distinct.spread(np.array([text[:MAX_TEXT] for text in distinct.texts], object), "").astype(object)
    return Column(name=name, kind="category", why=why, values=values)


def _categories_or_text(name: str, distinct: Distinct) -> Column:
    count, total = len(distinct.texts), int(distinct.counts.sum())
    if total < REPEATED * count:
        what = "different in every row" if count == total else f"{count:,} different texts in {total:,} rows"
        return Column(name=name, kind="left out", why=f"free text or names: {what}", values=None)
    return _categories(name, distinct, f"{count:,} different texts" if count > 1 else "")


def _of_values(name: str, array: pa.ChunkedArray, kind: Kind | None, form: str) -> Column:
    """Interpret a column that is not of texts: of Parquet, Feather or JSON."""
    import pyarrow as pa
    from pyarrow import types

    of = array.type
    if types.is_null(of):
        return Column(name=name, kind="left out", why="every value is missing", values=None)
    if types.is_boolean(of):
        numbers, found, why = array.cast(pa.int8()).cast(pa.float64()), "boolean", "true and false"
    elif types.is_integer(of) or types.is_floating(of) or types.is_decimal(of):
        numbers, found, why = array.cast(pa.float64(), safe=False), "number", f"numbers ({of})"
    elif types.is_timestamp(of) or types.is_date(of):
        numbers = array.cast(pa.timestamp("us", getattr(of, "tz", None)), safe=False).cast(pa.int64())
        numbers, found, why = numbers.cast(pa.float64(), safe=False), "date", f"dates and times ({of})"
    elif types.is_time(of):
        unit = pa.time64("us")
        numbers, found, why = array.cast(unit, safe=False).cast(pa.int64()).cast(pa.float64()), "date", "times of day"
    else:
        return Column(name=name, kind="left out", why=f"values of the type {of}", values=None)
    values = numbers.to_numpy().astype(np.float64)
    if found == "date":
        values = values / 1e6
    kept = values[~np.isnan(values)]
    if kind == "category":
        texts = np.array(["" if np.isnan(value) else number_text(value) for value in values.tolist()], object)
        if found == "boolean":
            texts = np.where(texts == "", "", np.where(values == 1, "true", "false")).astype(object)
        return Column(name=name, kind="category", why="as asked for", values=texts)
    if kind == "date" and found == "number" and len(kept):
        seconds, why = epoch_unit(values, form)
        strange = np.flatnonzero(np.isnan(seconds) & ~np.isnan(values))
        wrong = {int(row): f"got {number_text(values[row])}, expected {why}" for row in strange}
        return Column(name=name, kind="date", why=why, values=seconds, wrong=wrong, form=why)
    unusable = np.flatnonzero(~np.isnan(values) & ~(np.abs(values) <= LARGEST))
    wrong = {int(row): f"got {values[row]}, expected a finite number" for row in unusable}
    values[unusable] = np.nan
    return Column(name=name, kind=found, why=why, values=values, wrong=wrong)  # type: ignore[arg-type]  # a string of the kind


def _without_information(column: Column) -> Column:
    """Leave a column out that is an index of the rows, or always missing."""
    missing = column.missing
    if missing.all() and not column.wrong:
        return Column(name=column.name, kind="left out", why="every value is missing", values=None)
    if column.values is None or column.kind != "number" or missing.any() or len(column.values) < 20:
        return column
    named = _ID.fullmatch(column.name.strip()) or _CAMEL_ID.fullmatch(column.name.strip())
    if (
        named
        and len(np.unique(column.values)) == len(column.values)
        and (column.values == np.round(column.values)).all()
    ):
        return Column(name=column.name, kind="left out", why="an id: another number in every row", values=None)
    return column
