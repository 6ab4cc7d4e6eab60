"""Description of a table before its target is chosen: what each column would become, and which task it would define."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kronmodel.data.file_options import FileOptions
from kronmodel.data.tables.bad_rows import bad_rows_text
from kronmodel.data.tables.columns import Column, column_of
from kronmodel.data.tables.fitting import fit_encoding
from kronmodel.data.tables.reader import read_table
from kronmodel.data.target import raw_target, target_from_array
from kronmodel.data.user_table import asked_kinds, is_plain
from kronmodel.errors import DataError

__all__ = ["inspect_table"]


def inspect_table(path: Path, options: FileOptions) -> dict[str, Any]:
    """Describe a table whose target is not chosen yet.

    Args:
        path: path of the table.
        options: kinds that the user gives to columns, and what replaces missing numbers.

    Returns:
        ``rows``; ``notes`` on the file's format; ``bad_rows``, a text or None; and ``columns``: for each its ``name``,
        its ``kind``, ``done``, ``width`` and whether it is ``plain`` as a feature, and as the target its ``task``, or
        None if it can't be one, ``outputs``, ``reason`` and number of ``unusable`` rows.

    Raises:
        DataError: the file can't be read, or has no rows.
        ValueError: options contradict each other.
    """
    raw = read_table(path)
    kinds = asked_kinds(path, raw.names, (), options)
    if not raw.table.num_rows:
        raise DataError(f"{path} has no rows that can be used")
    comma = raw.file.decimal_comma
    columns = [column_of(name, raw.table.column(name), kinds.get(name), comma=comma) for name in raw.names]
    problems: dict[int, str] = {}
    for column in columns:
        for row, text in column.wrong.items():
            problems.setdefault(row, f"column {column.name!r}: {text}")
    usable = np.ones(raw.table.num_rows, bool)
    usable[list(problems)] = False
    good = np.flatnonzero(usable if usable.any() else ~usable)
    impute = "median" if options.impute in (None, "none") else options.impute
    described = []
    for column in columns:
        kept = column.take(good)
        target = _as_target(raw.table.column(column.name), comma=comma)
        described.append({"name": column.name, **_as_feature(kept, impute=impute), **target})
    return {
        "rows": raw.table.num_rows + len(raw.short_rows),
        "notes": list(raw.file.notes),
        "bad_rows": bad_rows_text(raw.file, raw.short_rows, problems),
        "columns": described,
    }


def _as_feature(column: Column, *, impute: Any) -> dict[str, Any]:
    """Describe what a column becomes; ``width`` is its number of features."""
    if column.kind == "left out" or not len(column.values if column.values is not None else ()):
        return {"kind": "left out", "done": column.why, "width": 0, "plain": True}
    encoding, done = fit_encoding([column], (), impute=impute, reserved=())
    text = done[column.name].removeprefix("left out: ").removesuffix(" in the training rows")
    # A table of plain numbers only is not encoded: its constant columns stay.
    plain = is_plain(column)
    kind = "left out" if column.name in encoding.left_out and not plain else column.kind
    return {"kind": kind, "done": text, "width": encoding.width, "plain": plain or kind == "left out"}


def _as_target(array: Any, *, comma: bool) -> dict[str, Any]:
    """Describe the task of predicting a column."""
    try:
        raw = raw_target(array, None, comma=comma)
        usable = np.ones(len(raw.values), bool)
        usable[list(raw.wrong)] = False
        target = target_from_array(raw.values[usable], None)
    except DataError as error:
        return {"task": None, "outputs": None, "reason": str(error), "unusable": 0}
    outputs = len(target.labels) or int(target.y.shape[1])
    return {"task": target.task, "outputs": outputs, "reason": target.reason, "unusable": len(raw.wrong)}
