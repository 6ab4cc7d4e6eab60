"""A .csv file as numbers and the texts of its target column, with every bad row known by its line number."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

__all__ = ["BadRow", "Table", "missing", "number", "read_csv", "usable_rows"]

MAX_FILE_BYTES = 1 << 30
MAX_VALUES = 1 << 27  # a gigabyte of them
MAX_NAME = 200  # characters, as the model card is read
MAX_NAMES = 1 << 20  # characters of all the names together
SHOWN = 5  # bad rows that are named in a message
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class BadRow:
    """A row that can't be used: its line in the file, and what is wrong with it."""

    line: int
    problem: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The usable rows of a file.

    Attributes:
        names: of the columns but the target, as in the header.
        values: ``(n, len(names))``, float32.
        targets: text of the target column, stripped, ``n`` of them, none empty.
        lines: where each row begins in the file, ``n`` of them.
        bad: the other rows.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    targets: tuple[str, ...]
    lines: tuple[int, ...]
    bad: tuple[BadRow, ...]


def read_csv(path: Path, target: str | None) -> Table:
    """Read a file with a header line; commas, semicolons or tabs between the columns, whichever its header has most of.

    Args:
        path: UTF-8 text.
        target: name of the column to predict. All the others have to hold finite numbers.

    Raises:
        DataError: the file can't be read, is too large, is no such table, or lacks the target column.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{path} has {size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline(MAX_NAMES + 1)
            delimiter = max((",", ";", "\t"), key=head.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
            try:
                return _read(path, reader, target)
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _read(path: Path, reader: Reader, target: str | None) -> Table:
    header = [name.strip() for name in next(reader, [])]
    column = _target_column(path, header, target)
    names = (*header[:column], *header[column + 1 :])
    values, targets, lines, bad = array("f"), [], array("q"), []
    end = reader.line_num
    for cells in reader:
        line, end = end + 1, reader.line_num  # a quoted cell may go over several lines
        if not cells:  # an empty line
            continue
        row = _numbers(header, cells, column)
        if isinstance(row, str):
            bad.append(BadRow(line, row))
            continue
        values.extend(row)
        targets.append(cells[column].strip())
        lines.append(line)
        if len(values) > MAX_VALUES:
            raise DataError(f"{path} has more than {MAX_VALUES:,} values, which is more than training here can hold")
    table = np.frombuffer(values, np.float32).reshape(-1, len(names)) if values else np.empty((0, len(names)), "f4")
    return Table(names=names, values=table, targets=tuple(targets), lines=tuple(lines), bad=tuple(bad))


def _target_column(path: Path, header: Sequence[str], target: str | None) -> int:
    """Where the target is, after checking that the first line is a header."""
    if len(header) < 2:
        raise DataError(f"{path} has {len(header)} columns, expected a target and at least one more")
    columns = ", ".join(header[:12]) + (f" and {len(header) - 12} more" if len(header) > 12 else "")
    if all(number(name) is not None for name in header):
        raise DataError(f"{path} begins with the numbers {columns}, expected a header line with the columns' names")
    if "" in header:
        raise DataError(f"{path}: column {header.index('') + 1} has no name in the header line")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has the column {twice!r} twice, expected names that differ")
    if max(map(len, header)) > MAX_NAME or sum(map(len, header)) > MAX_NAMES:
        raise DataError(
            f"{path}: the columns' names are too long, expected at most {MAX_NAME} characters {MAX_NAMES:,} in all"
        )
    if target is None:
        raise DataError(f"name the column to predict: --target COLUMN; {path} has {columns}")
    if target not in header:
        raise DataError(f"{path} has no column {target!r}; it has {columns}")
    return header.index(target)


def _numbers(header: Sequence[str], cells: Sequence[str], target: int) -> list[float] | str:
    """The numbers of a row but for the target, or what is wrong with it."""
    if len(cells) != len(header):
        return f"got {len(cells)} values, expected {len(header)}"
    row = []
    for index, (name, cell) in enumerate(zip(header, cells, strict=True)):
        if index == target:
            if missing(cell):
                return f"the target {name!r}: got {cell.strip()!r}, expected a value"
            continue
        value = number(cell)
        if value is None:
            return f"column {name!r}: got {cell.strip()[:40]!r}, expected a finite number"
        row.append(value)
    return row


def missing(cell: str) -> bool:
    """Whether a cell says that there is no value, in one of the usual ways."""
    return cell.strip().lower() in ("", "nan", "na", "n/a", "null", "none", "?")


def number(cell: str) -> float | None:
    """The finite number that a cell holds, if float32 can hold it too. Digits grouped with ``_`` are text."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if "_" not in cell and math.isfinite(value) and abs(value) <= LARGEST else None


def usable_rows(path: Path, bad: Sequence[BadRow], *, skip: bool) -> str | None:
    """What to tell the user of the rows that are left out, or None if there are none.

    Raises:
        DataError: there are bad rows, and they were not to be skipped.
    """
    if not bad:
        return None
    rows = sorted(bad, key=lambda row: row.line)
    shown = "; ".join(f"line {row.line}: {row.problem}" for row in rows[:SHOWN])
    more = f"; and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    count = "1 bad row" if len(rows) == 1 else f"{len(rows):,} bad rows"
    if skip:
        return f"left out {count} of {path}: {shown}{more}"
    raise DataError(f"{path} has {count}: {shown}{more}. Mend them, or leave them out with --skip-bad-rows")
