"""Encoding of a table's columns as numbers for a network: the same arithmetic as in the exported graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DAY_SECONDS", "TURNS", "EncodedColumn", "TableEncoding", "Turn", "encoding_from_json", "encoding_json",
]  # fmt: skip

DAY_SECONDS = 86400.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A cycle of the calendar, encoded as sine and cosine of the fraction that has passed.

    Attributes:
        whole_days: count whole days only.
        shift: days from the beginning of a cycle to 1970-01-01.
        days: length of the cycle.
    """

    whole_days: bool
    shift: float
    days: float


TURNS = {
    "year": Turn(whole_days=False, shift=0.0, days=365.2425),
    "week": Turn(whole_days=True, shift=4.0, days=7.0),
    "day": Turn(whole_days=False, shift=0.0, days=1.0),
}


@dataclass(frozen=True, kw_only=True)
class EncodedColumn:
    """A column that the network takes, and how it is encoded.

    Attributes:
        name: name of the column.
        input: name of the input in the exported graph.
        kind: ``"number"``, ``"boolean"``, ``"date"`` or ``"category"``.
        fill: value that replaces a missing one.
        indicator: a further column tells whether the value is missing.
        mean: is subtracted from a number, or from a date's seconds since 1970.
        inverse: multiplies the difference: 1 / the standard deviation.
        turns: cycles of a date that are encoded, of :data:`TURNS`.
        values: categories with one-hot columns of their own.
        other: the other categories share a column.
    """

    name: str
    input: str
    kind: Literal["number", "boolean", "date", "category"]
    fill: float | str
    indicator: bool
    mean: float = 0.0
    inverse: float = 0.0
    turns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    other: bool = False

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        own = len(self.values) + self.other if self.kind == "category" else 1 + 2 * len(self.turns)
        return own + self.indicator


@dataclass(frozen=True, kw_only=True)
class TableEncoding:
    """Encoding of a table's rows as float32 features.

    In this order: numbers and dates, standardised in float64; indicators of their missing values; sines and cosines of
    dates; one-hot columns of the categories; columns of the other categories; indicators of missing categories.

    Attributes:
        columns: columns of the table that are encoded, in their order in the file.
        left_out: names of the columns that are not.
    """

    columns: tuple[EncodedColumn, ...]
    left_out: tuple[str, ...]

    @cached_property
    def numbers(self) -> tuple[EncodedColumn, ...]:
        """Columns of numbers and truth values, then those of dates."""
        ordered = sorted(self.columns, key=lambda column: column.kind == "date")
        return tuple(column for column in ordered if column.kind != "category")

    @cached_property
    def categories(self) -> tuple[EncodedColumn, ...]:
        """Columns of categories."""
        return tuple(column for column in self.columns if column.kind == "category")

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded columns, such as ``sex = male`` and ``bill_length_mm missing``."""
        return (
            *(column.name for column in self.numbers),
            *(f"{column.name} missing" for column in self.numbers if column.indicator),
            *(
                f"{column.name} {function} of the {turn}"
                for turn in TURNS
                for function in ("sine", "cosine")
                for column in self.numbers
                if turn in column.turns
            ),
            *(f"{column.name} = {value}" for column in self.categories for value in column.values),
            *(f"{column.name} = other" for column in self.categories if column.other),
            *(f"{column.name} missing" for column in self.categories if column.indicator),
        )

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return sum(column.width for column in self.columns)

    def apply(self, rows: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Encode rows.

        Args:
            rows: ``(n,)`` values of each column by its name: float64 with NaN for missing numbers, or texts with ""
                for missing categories.

        Returns:
            ``(n, width)``, float32.
        """
        parts: list[NDArray[Any]] = []
        if self.numbers:
            raw = np.stack([rows[column.name].astype(np.float64) for column in self.numbers], 1)
            missing = np.isnan(raw)
            filled = np.where(missing, [column.fill for column in self.numbers], raw)
            mean, inverse = (
                np.array([getattr(column, name) for column in self.numbers]) for name in ("mean", "inverse")
            )
            parts.append((filled - mean) * inverse)
            parts.append(np.compress([column.indicator for column in self.numbers], missing, 1))
            for name, turn in TURNS.items():
                days = np.compress([name in column.turns for column in self.numbers], filled, 1) / DAY_SECONDS
                turns = ((np.floor(days) if turn.whole_days else days) + turn.shift) / turn.days
                angles = ((turns - np.floor(turns)) * (2 * np.pi)).astype(np.float32)
                parts += [np.sin(angles), np.cos(angles)]
        known: list[NDArray[Any]] = []
        others: list[NDArray[Any]] = []
        indicators: list[NDArray[Any]] = []
        for column in self.categories:
            absent: NDArray[np.bool_] = np.asarray(rows[column.name] == "", bool)
            filled = np.where(absent, column.fill, rows[column.name])
            one_hot = np.stack([filled == value for value in column.values], 1)
            known.append(one_hot)
            if column.other:
                others.append(~one_hot.any(1, keepdims=True))
            if column.indicator:
                indicators.append(absent[:, None])
        return np.concatenate([each.astype(np.float32) for each in (*parts, *known, *others, *indicators)], 1)


def encoding_json(encoding: TableEncoding) -> dict[str, Any]:
    """Convert an encoding to JSON, in which each number is written and read back without loss."""
    return asdict(encoding)


def encoding_from_json(given: Any) -> TableEncoding:
    """Build an encoding from JSON that may come from anywhere.

    Raises:
        ValueError: a value is missing, unknown or out of range.
    """
    if not isinstance(given, dict) or set(given) != {"columns", "left_out"}:
        raise ValueError("encoding must be an object with columns and left_out")
    columns, names = given["columns"], {each.name for each in fields(EncodedColumn)}
    if not isinstance(columns, list) or not columns or not all(isinstance(each, dict) for each in columns):
        raise ValueError("encoding must have a list of columns")
    if any(set(each) != names for each in columns) or not _are_texts(given["left_out"]):
        raise ValueError(f"each encoded column must have {', '.join(sorted(names))}, and left_out must be texts")
    return TableEncoding(columns=tuple(map(_column_from_json, columns)), left_out=tuple(given["left_out"]))


def _column_from_json(given: dict[str, Any]) -> EncodedColumn:
    category = given["kind"] == "category"
    numbers = [given["mean"], given["inverse"], *([] if category else [given["fill"]])]
    valid = (
        given["kind"] in ("number", "boolean", "date", "category")
        and all(isinstance(given[name], str) for name in ("name", "input", *(("fill",) if category else ())))
        and all(isinstance(given[name], bool) for name in ("indicator", "other"))
        and all(isinstance(each, int | float) and math.isfinite(each) for each in numbers)
        and _are_texts(given["values"])
        and _are_texts(given["turns"])
        and set(given["turns"]) <= set(TURNS)
        and bool(given["values"]) == category
    )
    if not valid:
        raise ValueError(f"the encoding of column {str(given['name'])[:40]!r} has a value that is not valid")
    return EncodedColumn(**{**given, "turns": tuple(given["turns"]), "values": tuple(given["values"])})


def _are_texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(each, str) for each in given)
