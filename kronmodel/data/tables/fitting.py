"""Choice of the encoding of a table's columns from its training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.tables.columns import Column
from kronmodel.data.tables.encoding import DAY_SECONDS, EncodedColumn, TableEncoding
from kronmodel.data.tables.values import PLAIN

__all__ = ["Impute", "fit_encoding", "plain_text"]

Impute = Literal["median", "mean", "most-frequent", "none"]

MAX_CATEGORIES = 50  # of a column with one-hot columns of their own; the others share one
FEWEST = 2  # training rows with a category that has a column of its own


def fit_encoding(
    columns: Sequence[Column], left_out: Sequence[str], *, impute: Impute, reserved: Sequence[str]
) -> tuple[TableEncoding, dict[str, str]]:
    """Choose the encoding of a table's columns from its training rows.

    Args:
        columns: columns of the training rows, none of them left out.
        left_out: names of the columns that are left out already.
        impute: what replaces a missing number or date; for categories and truth values, the most frequent one.
        reserved: names of the graph's outputs, which no input may have.

    Returns:
        The encoding, and for each column a sentence that describes what is done to it.
    """
    encoded: list[EncodedColumn] = []
    dropped, done = list(left_out), {}
    inputs = set(reserved)
    for column in columns:
        if column.kind == "left out" or column.values is None:
            raise ValueError(f"column {column.name!r} is left out")
        found, text = _fit_category(column) if column.kind == "category" else _fit_number(column, impute)
        done[column.name] = text
        if found is None:
            dropped.append(column.name)
            continue
        name = column.name
        while name in inputs:
            name += "_"
        inputs.add(name)
        encoded.append(EncodedColumn(name=column.name, input=name, **found))
    return TableEncoding(columns=tuple(encoded), left_out=tuple(dropped)), done


def _fit_number(column: Column, impute: Impute) -> tuple[dict[str, Any] | None, str]:
    values, missing = np.asarray(column.values, np.float64), column.missing
    count = int(missing.sum())
    if count == len(values):
        return None, "left out: every value in the training rows is missing"
    fill, how = _fill(values[~missing], "most-frequent" if column.kind == "boolean" else impute)
    filled = np.where(missing, fill, values)
    mean, std = float(filled.mean()), float(filled.std())
    if (filled == filled[0]).all() or std <= np.finfo(np.float64).eps * abs(mean):
        mean, std = float(filled[0]), 0.0
    turns = _turns(values[~missing]) if column.kind == "date" else ()
    if not std and not count:
        return None, f"left out: always {_shown(column, fill)} in the training rows"
    text = plain_text(column)
    if turns:
        text += f", with sine and cosine of the {', '.join(turns)}"
    if count:
        text += f"; {count:,} missing: {how} {_shown(column, fill)} instead, and a column that marks them"
    found = {
        "kind": column.kind,
        "fill": fill,
        "indicator": count > 0,
        "mean": mean,
        "inverse": 1 / std if std else 0.0,
        "turns": turns,
    }
    return found, text


def plain_text(column: Column) -> str:
    """Describe the encoding of a column of numbers or dates without missing values."""
    return "standardised" if column.why == PLAIN else f"{column.why}; standardised"


def _shown(column: Column, value: float) -> str:
    if column.kind == "boolean":
        return "true" if value else "false"
    if column.kind == "date" and abs(value) < 2**37:
        return str(np.datetime64(int(value), "s")).replace("T00:00:00", "")
    return f"{value:.6g}"


def _fill(values: NDArray[np.float64], impute: Impute) -> tuple[float, str]:
    if impute == "most-frequent":
        distinct, counts = np.unique(values, return_counts=True)
        return float(distinct[counts.argmax()]), "the most frequent value"
    if impute == "mean":
        return float(values.mean()), "the mean"
    return float(np.median(values)), "the median"


def _turns(seconds: NDArray[np.float64]) -> tuple[str, ...]:
    """Choose the cycles of a date: those that vary, and not the year of times without a date."""
    days = seconds / DAY_SECONDS
    span = float(days.max() - days.min())
    found = []
    if span > 60:
        found.append("year")
    if len(np.unique(np.mod(np.floor(days), 7))) > 1:
        found.append("week")
    if len(np.unique(np.mod(days, 1))) > 1:
        found.append("day")
    return tuple(found)


def _fit_category(column: Column) -> tuple[dict[str, Any] | None, str]:
    texts = [str(text) for text in np.asarray(column.values).tolist()]
    counts = Counter(text for text in texts if text)
    missing = len(texts) - sum(counts.values())
    if not counts:
        return None, "left out: every value in the training rows is missing"
    if len(counts) == 1 and not missing:
        return None, f"left out: always {next(iter(counts))!r} in the training rows"
    ordered = sorted(counts, key=lambda text: (-counts[text], text))
    own = sorted(text for text in ordered[:MAX_CATEGORIES] if counts[text] >= FEWEST) or sorted(
        ordered[:MAX_CATEGORIES]
    )
    rest = len(counts) - len(own)
    what = "1 category" if len(counts) == 1 else f"{len(counts):,} categories"
    text = f"{what}, a one-hot column each"
    if rest:
        text = f"{what}, a one-hot column for each of {len(own):,}, and one for the {rest:,} others"
    if missing:
        text += f"; {missing:,} missing: the most frequent one {ordered[0]!r} instead, and a column that marks them"
    found = {
        "kind": "category",
        "fill": ordered[0],
        "indicator": missing > 0,
        "values": tuple(own),
        "other": rest > 0,
    }
    return found, text
