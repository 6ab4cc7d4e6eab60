"""CSV tables: numeric columns, a target column of classes or values, and unusable rows by line number."""

from __future__ import annotations

import csv
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import TaskName
from kronmodel.errors import Argument, DataError, Message

if TYPE_CHECKING:
    from _csv import Reader

__all__ = [
    "BadRow",
    "Table",
    "Target",
    "classes_of",
    "infer_task",
    "missing",
    "number",
    "read_csv",
    "target_from_array",
    "target_from_text",
    "usable_rows",
]

MAX_FILE_BYTES = 1 << 30
MAX_VALUES = 1 << 27  # 512 MiB as float32
MAX_NAME = 200  # characters; longest column name that readers of model cards accept
MAX_NAMES = 1 << 20  # characters of all column names together
SHOWN = 5  # most unusable rows that a message lists
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class BadRow:
    """Unusable row of a table: its line number in the file, and the reason."""

    line: int
    problem: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Content of a CSV file: features and targets of the usable rows, and the list of unusable rows.

    Attributes:
        names: header names of all columns except the target.
        values: features ``(n, len(names))``, float32.
        targets: stripped text of the target column for each of the ``n`` rows, never empty.
        lines: number of the line in the file at which each of the ``n`` rows begins.
        bad: unusable rows.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    targets: tuple[str, ...]
    lines: tuple[int, ...]
    bad: tuple[BadRow, ...]


def read_csv(path: Path, target: str | None) -> Table:
    """Read a CSV file with a header line; the delimiter is the most frequent of comma, semicolon and tab in the header.

    Args:
        path: file of UTF-8 text.
        target: name of the column to predict. All other columns have to hold finite numbers.

    Raises:
        DataError: the file can't be read, is too large, is not a CSV table, or lacks the target column.
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
        line, end = end + 1, reader.line_num  # a quoted cell may contain line breaks
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
    """Find the index of the target column, after checking that the first line is a header."""
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
        raise DataError(Message("name the column to predict by ", Argument("target"), f"; {path} has {columns}"))
    if target not in header:
        raise DataError(f"{path} has no column {target!r}; it has {columns}")
    return header.index(target)


def _numbers(header: Sequence[str], cells: Sequence[str], target: int) -> list[float] | str:
    """Parse the cells of a row except the target as numbers; return an error text if a cell is not a finite number."""
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
    """Tell whether a cell is empty or holds a common marker of a missing value, such as ``NA``."""
    return cell.strip().lower() in ("", "nan", "na", "n/a", "null", "none", "?")


def number(cell: str) -> float | None:
    """Parse a cell as a finite float32 number, or return None; a number with ``_`` between digits counts as text."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if "_" not in cell and math.isfinite(value) and abs(value) <= LARGEST else None


def usable_rows(path: Path, bad: Sequence[BadRow], *, skip: bool) -> str | None:
    """Describe the unusable rows that are left out, or return None if there are none.

    Raises:
        DataError: there are unusable rows, and ``skip`` is not set.
    """
    if not bad:
        return None
    rows = sorted(bad, key=lambda row: row.line)
    shown = "; ".join(f"line {row.line}: {row.problem}" for row in rows[:SHOWN])
    more = f"; and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    count = "1 bad row" if len(rows) == 1 else f"{len(rows):,} bad rows"
    if skip:
        return f"left out {count} of {path}: {shown}{more}"
    raise DataError(
        Message(
            f"{path} has {count}: {shown}{more}. Mend them, or leave them out with ", Argument("skip_bad_rows", True)
        )
    )


FEW = 20  # whole numbers with more distinct values than this are treated as regression targets, not classes
MAX_CLASSES = 10_000
MAX_LABEL = 200  # characters; longest class name that readers of model cards accept


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """Targets of all samples, with the task that they define.

    Attributes:
        task: classification or regression.
        y: class indices ``(n,)``, int64, or values ``(n, k)``, float32.
        labels: name of each class; empty for regression.
        reason: sentence that explains the choice of the task.
    """

    task: TaskName
    y: NDArray[np.int64] | NDArray[np.float32]
    labels: tuple[str, ...]
    reason: str


def infer_task(numbers: NDArray[Any] | None) -> tuple[TaskName, str]:
    """Infer the task, classification or regression, from the target's values.

    Args:
        numbers: the values, or None if the target is text.

    Returns:
        The task, and a sentence that explains the choice.
    """
    if numbers is None:
        return "classification", "its values are not numbers"
    if numbers.ndim > 1 and numbers.shape[1] > 1:
        return "regression", f"it has {numbers.shape[1]} columns"
    distinct = len(np.unique(numbers))
    if not np.array_equal(numbers, np.round(numbers)):
        return "regression", "its values are not all whole numbers"
    if distinct > FEW:
        return "regression", f"it has {distinct:,} distinct whole numbers, more than {FEW}"
    return "classification", f"it has {distinct} distinct whole numbers"


def target_from_text(texts: Sequence[str], task: TaskName | None) -> tuple[Target | None, dict[int, str]]:
    """Parse the target column of a CSV file.

    A column of mostly numbers is numeric, and each other cell in it is an error, unless ``task`` is classification.

    Returns:
        The target and an empty dict; or None and the error text of each wrong cell by its index.
    """
    numbers = [number(text) for text in texts]
    wrong = {index: text for index, text in enumerate(texts) if numbers[index] is None}
    if task == "regression" or (task is None and 0 < len(wrong) < len(texts) / 2):
        if wrong:
            return None, {index: f"got {text[:40]!r}, expected a finite number" for index, text in wrong.items()}
    elif wrong:
        return _classes(np.array(texts), task), {}
    return target_from_array(np.array(numbers, np.float64), task), {}


def target_from_array(values: NDArray[Any], task: TaskName | None) -> Target:
    """Convert an array to targets: numbers ``(n,)`` or ``(n, k)``, or text ``(n,)``.

    Raises:
        DataError: the values don't suit the task.
    """
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.ndim > 2:
        raise DataError(f"the target has shape {values.shape}, expected (n,) or (n, k)")
    text = values.dtype.kind == "U"
    inferred, reason = infer_task(None if text else values)
    if (task or inferred) == "classification":
        return _classes(values, task, reason)
    if text:
        raise DataError("the target's values are not numbers, expected numbers for regression")
    columns = values.reshape(len(values), -1)
    if np.abs(columns).max() > np.finfo(np.float32).max:
        raise DataError("the target has values that don't fit in float32")
    return Target(task="regression", y=columns.astype(np.float32), labels=(), reason=_why(task, reason))


def _classes(values: NDArray[Any], task: TaskName | None, reason: str | None = None) -> Target:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"the target has shape {values.shape}, expected (n,) for classification")
    names, y = classes_of(values)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(f"the target has {len(names):,} classes, expected 2 to {MAX_CLASSES:,}")
    if max(map(len, names)) > MAX_LABEL:
        raise DataError(f"a class has a name of {max(map(len, names))} characters, expected at most {MAX_LABEL}")
    counts = Counter(y.tolist())
    if max(counts.values()) == 1:
        raise DataError(
            Message(
                f"each of the {len(names):,} classes has one sample only; for amounts use ",
                Argument("task", "regression"),
            )
        )
    return Target(
        task="classification", y=y, labels=names, reason=_why(task, reason or "its values are not all numbers")
    )


def classes_of(values: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """List the distinct classes, sorted by number or alphabetically, and the class index of each sample."""
    distinct, indices = np.unique(values, return_inverse=True)
    whole = distinct.dtype.kind == "f" and np.array_equal(distinct, np.round(distinct))
    names = tuple(str(int(each)) if whole else str(each) for each in distinct.tolist())
    return names, indices.reshape(-1).astype(np.int64)


def _why(task: TaskName | None, reason: str) -> str:
    return "as asked for" if task is not None else reason
