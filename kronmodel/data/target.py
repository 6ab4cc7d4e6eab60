"""The column to predict: classes or values, as asked for or as inferred, and as the networks take it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import TaskName
from kronmodel.data.table import number
from kronmodel.errors import DataError

__all__ = ["Target", "classes_of", "from_array", "from_texts", "infer"]

FEW = 20  # whole numbers with more distinct values than this are taken for amounts, not for classes
MAX_CLASSES = 10_000
MAX_LABEL = 200  # characters, as the model card is read


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What is to be predicted.

    Attributes:
        task: classification or regression.
        y: class indices ``(n,)``, int64, or values ``(n, k)``, float32.
        labels: name of each class; empty for regression.
        reason: why this task, in words.
    """

    task: TaskName
    y: NDArray[np.int64] | NDArray[np.float32]
    labels: tuple[str, ...]
    reason: str


def infer(numbers: NDArray[Any] | None) -> tuple[TaskName, str]:
    """Guess the task from the target's values, or from None if they are no numbers; with the reason, in words."""
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


def from_texts(texts: Sequence[str], task: TaskName | None) -> tuple[Target | None, dict[int, str]]:
    """The target from a file's cells, or what is wrong with some of them, by index.

    A column of numbers with a few other words in it is one of numbers with mistakes, unless classes were asked for.
    """
    numbers = [number(text) for text in texts]
    wrong = {index: text for index, text in enumerate(texts) if numbers[index] is None}
    if task == "regression" or (task is None and 0 < len(wrong) < len(texts) / 2):
        if wrong:
            return None, {index: f"got {text[:40]!r}, expected a finite number" for index, text in wrong.items()}
    elif wrong:
        return _classes(np.array(texts), task), {}
    return from_array(np.array(numbers, np.float64), task), {}


def from_array(values: NDArray[Any], task: TaskName | None) -> Target:
    """The target from numbers ``(n,)`` or ``(n, k)``, or from text ``(n,)``.

    Raises:
        DataError: it can't be what was asked for.
    """
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.ndim > 2:
        raise DataError(f"the target has shape {values.shape}, expected (n,) or (n, k)")
    text = values.dtype.kind == "U"
    inferred, reason = infer(None if text else values)
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
        raise DataError(f"each of the {len(names):,} classes has one sample only; --task regression for amounts")
    return Target(
        task="classification", y=y, labels=names, reason=_why(task, reason or "its values are not all numbers")
    )


def classes_of(values: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of the classes in order, numbers by size and texts by alphabet, and the index of each sample's."""
    distinct, indices = np.unique(values, return_inverse=True)
    whole = distinct.dtype.kind == "f" and np.array_equal(distinct, np.round(distinct))
    names = tuple(str(int(each)) if whole else str(each) for each in distinct.tolist())
    return names, indices.reshape(-1).astype(np.int64)


def _why(task: TaskName | None, reason: str) -> str:
    return "as asked for" if task is not None else reason
