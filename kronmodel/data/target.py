"""The column or columns that a network predicts: classes, or values, and the task that follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import TaskName
from kronmodel.data.tables.columns import Kind, column_of, distinct_texts
from kronmodel.data.tables.values import parse_numbers
from kronmodel.errors import Argument, DataError, Message

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RawTarget", "Target", "classes_of", "infer_task", "raw_target", "target_from_array"]

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


@dataclass(frozen=True, kw_only=True, eq=False)
class RawTarget:
    """Values of a target column in all rows of a table, of which some can't be used.

    Attributes:
        values: ``(n,)``: numbers, or texts as classes.
        wrong: why the value of a row can't be used, by its index.
        form: format of the numbers, for other rows of the same column; empty where these may have any.
    """

    values: NDArray[Any]
    wrong: Mapping[int, str]
    form: str = ""


def raw_target(array: pa.ChunkedArray, task: TaskName | None, *, comma: bool, form: str = "") -> RawTarget:
    """Read the target column of a table.

    A column of mostly numbers is numeric, and each other cell in it is an error, unless ``task`` is classification.

    Args:
        array: cells of the column as read.
        task: classification or regression; None to infer it.
        comma: a comma between digits is a decimal comma where it may be either that or between thousands.
        form: format of the numbers, as in other rows of the same column; empty to infer it.
    """
    from pyarrow import types

    lacking = "got {!r}, expected a value"
    if not (types.is_string(array.type) or types.is_large_string(array.type) or types.is_dictionary(array.type)):
        kind: Kind | None = "category" if types.is_boolean(array.type) else None
        column = column_of("", array, kind, comma=comma)
        if column.kind not in ("number", "category", "boolean") or column.values is None:
            raise DataError(f"the target holds {column.why or column.kind}, expected numbers or classes")
        missing = {int(row): lacking.format("") for row in np.flatnonzero(column.missing) if row not in column.wrong}
        return RawTarget(values=column.values, wrong={**column.wrong, **missing})
    texts = distinct_texts(array.cast("large_string"))
    numbers, _, found = parse_numbers(texts.texts, comma=comma, form=form)
    unusable = ~np.isfinite(numbers)
    bad, total = int(texts.counts[unusable].sum()), int(texts.counts.sum())
    missing = {
        int(row): lacking.format(str(array[int(row)].as_py() or "").strip()) for row in np.flatnonzero(texts.rows < 0)
    }
    if bad and not (task == "regression" or (task is None and 2 * bad < total)):
        return RawTarget(values=texts.spread(np.array(texts.texts, object), "").astype(object), wrong=missing)
    wrong = {
        int(row): f"got {texts.texts[texts.rows[row]][:40]!r}, expected a finite number"
        for row in np.flatnonzero(texts.spread(unusable, False))
    }
    return RawTarget(values=texts.spread(numbers, np.nan), wrong={**wrong, **missing}, form=found)


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


def target_from_array(values: NDArray[Any], task: TaskName | None) -> Target:
    """Convert an array to targets: numbers ``(n,)`` or ``(n, k)``, or text ``(n,)``.

    Raises:
        DataError: the values don't suit the task.
    """
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.ndim > 2:
        raise DataError(f"the target has shape {values.shape}, expected (n,) or (n, k)")
    text = values.dtype.kind in "UO"
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
    if len(names) == 1:
        raise DataError(
            f"the target is {names[0][:MAX_LABEL]!r} in every row that can be used, expected 2 classes or more"
        )
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
