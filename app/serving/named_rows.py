"""Conversion of rows with the columns' names, from JSON, to the arrays of a model, with errors that name the place."""

import datetime as dt
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest
from app.models.column_inputs import ColumnInputs
from app.parsing import fits_float32, name_of

TRUTH = {
    "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "t": 1.0, "f": 0.0, "y": 1.0, "n": 0.0, "on": 1.0, "off": 0.0,
}  # fmt: skip
# Texts that stand for a missing value in tables, in lower case; the training takes them for one, too.
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "?", "<na>", "nat"})


def separate_columns(rows: object, inputs: ColumnInputs, *, max_rows: int) -> dict[str, NDArray[Any]]:
    """Convert rows with names to an array ``(n, 1)`` for each input of a graph: float64, or strings as objects.

    Args:
        rows: parsed JSON: a list of objects with a value for each column; null is a missing one.
        inputs: the columns.
        max_rows: most rows.

    Raises:
        BadRequest: a row lacks a column, has an unknown one, or a value of another kind.
    """
    objects = _check_rows(rows, inputs, max_rows)
    feeds = {}
    for column in inputs.columns:
        parse, name = _PARSERS[column.kind], column.name
        values: list[Any] = []
        for index, row in enumerate(objects):
            try:
                values.append(parse(row[name]))
            except ValueError as error:
                raise BadRequest(f"rows[{index}]: {name!r}: {error}") from None
        array = np.empty((len(values), 1), object if column.kind == "category" else np.float64)
        array[:, 0] = values
        feeds[column.input] = array
    return feeds


def joined_columns(rows: object, inputs: ColumnInputs, *, max_rows: int) -> NDArray[np.float32]:
    """Convert rows with names to the rows of a model that takes numbers only: float32 ``(n, columns)``.

    Args:
        rows: parsed JSON: a list of objects with a number for each column.
        inputs: the columns, in the order of a row's values.
        max_rows: most rows.

    Raises:
        BadRequest: a row lacks a column, has an unknown one, or a value that is not a number.
    """
    objects = _check_rows(rows, inputs, max_rows)
    array = np.empty((len(objects), len(inputs.columns)), np.float32)
    for index, row in enumerate(objects):
        for position, column in enumerate(inputs.columns):
            value = row[column.name]
            if type(value) not in (int, float) or not fits_float32(value):
                got = name_of(value) if type(value) not in (int, float) else repr(value)
                raise BadRequest(f"rows[{index}]: {column.name!r}: got {got}, expected a finite number")
            array[index, position] = value
    return array


def rows_of(arrays: Mapping[str, NDArray[Any]], inputs: ColumnInputs) -> list[dict[str, float | bool | str | None]]:
    """Convert arrays `(n, 1)` of a graph's inputs back to rows with the columns' names, as requests have them.

    Args:
        arrays: float64 or texts by the name of the input.
        inputs: the columns, each an input of the graph.
    """
    shown = [
        [_VALUES[column.kind](value) for value in arrays[column.input][:, 0].tolist()] for column in inputs.columns
    ]
    names = [column.name for column in inputs.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*shown, strict=True)]


def _moment(seconds: float) -> str | float:
    """Write seconds since 1970 as a date or a date with a time; as the number where that is not exact."""
    try:
        moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return seconds
    if moment.timestamp() != seconds:
        return seconds
    text = moment.replace(tzinfo=None).isoformat()
    return text.removesuffix("T00:00:00")


def _or_null(show: Callable[[Any], float | bool | str]) -> Callable[[Any], float | bool | str | None]:
    return lambda value: None if value == "" or value != value else show(value)  # noqa: PLR0124 - NaN


_VALUES: Mapping[str, Callable[[Any], float | bool | str | None]] = {
    "number": _or_null(float),
    "boolean": _or_null(bool),
    "category": _or_null(str),
    "date": _or_null(_moment),
}


def _check_rows(rows: object, inputs: ColumnInputs, max_rows: int) -> list[Mapping[str, Any]]:
    """Check that rows are objects with the names of all columns."""
    if type(rows) is not list:
        raise BadRequest(f"rows: got {name_of(rows)}, expected a list of objects")
    if not 1 <= len(rows) <= max_rows:
        raise BadRequest(f"rows: got {len(rows)} rows, expected 1 to {max_rows}")
    names = {column.name for column in inputs.columns}
    for index, row in enumerate(rows):
        if type(row) is not dict:
            raise BadRequest(f"rows[{index}]: got {name_of(row)}, expected an object with a value for each column")
        if names <= row.keys() and len(row) == len(names):
            continue
        unknown = next((name for name in row if name not in names and name not in inputs.ignored), None)
        if unknown is not None:
            expected = ", ".join(column.name for column in inputs.columns)
            raise BadRequest(
                f"rows[{index}]: got the unknown column {unknown[:100]!r}{_similar(unknown, names)}, expected "
                f"{expected[:500]}"
            )
        if not names <= row.keys():
            lacking = ", ".join(repr(column.name) for column in inputs.columns if column.name not in row)
            raise BadRequest(f"rows[{index}]: lacks {lacking[:500]}, expected each column, null for a missing value")
    return rows


def _similar(name: str, names: Iterable[str]) -> str:
    by_lower = {each.lower(): each for each in names}
    found = difflib.get_close_matches(name[:100].lower(), by_lower, n=1) if len(by_lower) <= 1000 else []
    return f" (did you mean {by_lower[found[0]]!r}?)" if found else ""


def _is_missing(value: object) -> bool:
    return value is None or (type(value) is str and value.strip().lower() in MISSING)


def _number(value: object) -> float:
    if _is_missing(value):
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"got {name_of(value)}, expected a finite number, or null")
    if not fits_float32(value):
        raise ValueError(f"got {value!r:.40}, expected a finite number, or null")
    return float(value)


def _boolean(value: object) -> float:
    if _is_missing(value):
        return math.nan
    found = TRUTH.get(value.strip().lower()) if isinstance(value, str) else None
    if isinstance(value, int | float) and value in (0, 1):
        found = float(value)
    if found is None:
        got = repr(value)[:40] if type(value) is str else name_of(value)
        raise ValueError(f"got {got}, expected true, false or null")
    return found


def _category(value: object) -> str:
    if _is_missing(value):
        return ""
    if type(value) is str:
        return value.strip()
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    raise ValueError(f"got {name_of(value)}, expected a text or null")


def _date(value: object) -> float:
    if _is_missing(value):
        return math.nan
    if type(value) in (int, float):
        return _number(value)
    if type(value) is not str:
        raise ValueError(f"got {name_of(value)}, expected a date such as 2024-05-31T12:00, or null")
    text = value.strip()
    try:
        if len(text) <= 8 and ":" in text:
            time = dt.time.fromisoformat(text)
            return time.hour * 3600 + time.minute * 60 + time.second + time.microsecond / 1e6
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"got {text[:40]!r}, expected a date such as 2024-05-31T12:00, or null") from None


_PARSERS: Mapping[str, Callable[[object], float | str]] = {
    "number": _number,
    "boolean": _boolean,
    "category": _category,
    "date": _date,
}
