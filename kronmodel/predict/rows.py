"""Rows of a file as inputs of a model, piece by piece, with the rows' names and their true values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.arrays import read_x
from kronmodel.data.dataset import TaskName
from kronmodel.data.tables.bad_rows import left_out_text
from kronmodel.data.tables.columns import column_of
from kronmodel.data.tables.reader import TableFile, is_table
from kronmodel.data.target import raw_target
from kronmodel.data.user_table import did_you_mean
from kronmodel.errors import DataError
from kronmodel.predict.model import PredictionModel

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Piece", "read_pieces"]

PIECE_ROWS = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Some rows of a file.

    Attributes:
        numbers: ``(n,)``: number of each row in the file, from 1.
        names: texts of the columns that identify the rows, by column.
        feeds: inputs of the model.
        truth: ``(n,)`` true values of each target, if there are any.
    """

    numbers: NDArray[np.int64]
    names: dict[str, list[str]]
    feeds: dict[str, NDArray[Any]]
    truth: tuple[NDArray[Any], ...]


def read_pieces(
    path: Path, model: PredictionModel, *, check: Sequence[str] = (), skip_bad_rows: bool = False
) -> Iterator[Piece | str]:
    """Read the rows of a file piece by piece as inputs of a model; yield messages for the user in between.

    Args:
        path: a table, or a .npz file with the array ``x``.
        model: the model.
        check: names of the columns with the true values.
        skip_bad_rows: leave out unusable rows instead of refusing the file.

    Raises:
        DataError: the file can't be read or does not fit the model; the message names unusable rows by line number.
    """
    if not is_table(path):
        yield _array_piece(path, model)
        return
    if not model.columns:
        raise DataError(f"{model.name} takes rows of shape {model.row_shape} without names: expected a .npz with x")
    file = TableFile(path)
    yield from (f"{path.name}: {note}" for note in file.notes)
    for name in (*(column.name for column in model.columns), *check):
        if name not in file.names:
            raise DataError(f"{path} has no column {name!r}{did_you_mean(name, file.names)}, which {model.name} needs")
    forms = dict(model.formats)
    first = reported = 0
    for table in _tables(file):
        problems: dict[int, str] = {}
        known = set(forms)
        feeds = _feeds(table, model, problems, forms, comma=file.decimal_comma)
        truth = _truth(table, model, check, problems, forms, comma=file.decimal_comma)
        yield from (f"column {name!r}: {form}" for name, form in forms.items() if name not in known)
        short = file.short_rows()
        wrong = {first + row: text for row, text in problems.items()}
        message = left_out_text(file, short[reported:], wrong, skip=skip_bad_rows)
        reported = len(short)
        if message is not None:
            yield message
        kept = np.setdiff1d(np.arange(table.num_rows), list(problems))
        shown = [name for name in file.names if name in model.left_out]
        yield Piece(
            numbers=first + kept + 1,
            names={name: table.column(name).cast("string").fill_null("").take(kept).to_pylist() for name in shown},
            feeds={name: values[kept] for name, values in feeds.items()},
            truth=tuple(values[kept] for values in truth),
        )
        first += table.num_rows


def _feeds(
    table: pa.Table, model: PredictionModel, problems: dict[int, str], forms: dict[str, str], *, comma: bool
) -> dict[str, NDArray[Any]]:
    """Interpret the columns that a model takes in their known ``forms``, and add others that are found.

    What is wrong in a row is added to ``problems``.
    """
    feeds: dict[str, NDArray[Any]] = {}
    joined = []
    for each in model.columns:
        form = forms.get(each.name, "")
        column = column_of(each.name, table.column(each.name), each.kind, comma=comma, form=form)
        if column.form:
            forms[each.name] = column.form
        wrong, values = dict(column.wrong), np.asarray(column.values)
        if each.input is None:
            wrong = dict.fromkeys(np.flatnonzero(column.missing).tolist(), "got '', expected a number") | wrong
            joined.append(values.astype(np.float32))
        else:
            feeds[each.input] = values[:, None]
        for row, text in wrong.items():
            problems.setdefault(row, f"column {each.name!r}: {text}")
    return {"": np.stack(joined, 1)} if joined else feeds


def _truth(
    table: pa.Table,
    model: PredictionModel,
    check: Sequence[str],
    problems: dict[int, str],
    forms: dict[str, str],
    *,
    comma: bool,
) -> list[NDArray[Any]]:
    """Read the true values as :func:`_feeds` reads the columns; add what is wrong in a row to ``problems``."""
    task: TaskName = "classification" if model.labels else "regression"
    truth = []
    for name in check:
        target = raw_target(table.column(name), task, comma=comma, form=forms.get(name, ""))
        if target.form:
            forms[name] = target.form
        truth.append(target.values)
        for row, text in target.wrong.items():
            problems.setdefault(row, f"the target {name!r}: {text}")
    return truth


def _tables(file: TableFile) -> Iterator[pa.Table]:
    """Yield the rows of a file in pieces of about :data:`PIECE_ROWS`."""
    import pyarrow as pa

    batches, count = [], 0
    for batch in file.batches():
        batches.append(batch)
        count += len(batch)
        if count >= PIECE_ROWS:
            yield pa.Table.from_batches(batches)
            batches, count = [], 0
    if batches:
        yield pa.Table.from_batches(batches)


def _array_piece(path: Path, model: PredictionModel) -> Piece:
    rows = read_x(path)
    if model.row_shape is None:
        raise DataError(f"{model.name} takes the columns of a table: expected a file such as a .csv, got {path}")
    values = rows.reshape(len(rows), -1)
    if values.shape[1] != int(np.prod(model.row_shape)):
        raise DataError(f"{path}: x has rows of {values.shape[1]:,} values, {model.name} takes {model.row_shape}")
    if values.dtype == np.uint8 and rows.ndim > 2:
        values = values.astype(np.float32) / np.float32(255)
    return Piece(numbers=np.arange(1, len(values) + 1), names={}, feeds={"": values.astype(np.float32)}, truth=())
