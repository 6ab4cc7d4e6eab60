"""How far the outputs of two models are apart on the same rows, added up batch by batch.

Imports numpy only.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.datatypes import is_bfloat16
from app.measure.inputs.interface import Interface, paired_outputs

Array = NDArray[Any]

SCORES = frozenset({"probabilities", "logits"})  # names of outputs whose last axis has a score for each class
SUM_TOLERANCE = 0.01  # of probabilities in float16 and of quantised ones


class OutputDifference:
    """The difference of one output of two models.

    Numbers have a largest and a mean absolute difference. Rows of several floats also have a cosine similarity, or the
    whole output has one where its first axis is not the batch. Scores of classes, which are named so or are
    probabilities, have the fraction of equal best classes; integers, booleans and strings that of equal elements.
    """

    def __init__(self) -> None:
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # where they differ
        self._elements = 0
        self._equal: float | None = None
        self._largest: float | None = None
        self._sum = 0.0
        self._cosines: list[NDArray[np.float64]] = []
        self._best: list[NDArray[np.bool_]] | None = []

    def add(self, a: Array, b: Array, name: str, rows: int) -> None:
        """Add the outputs of one run.

        Args:
            a: of the first model.
            b: of the second model.
            name: of the output.
            rows: in the run.
        """
        if a.shape != b.shape:
            self._shapes = self._shapes or (a.shape, b.shape)
            return
        self._elements += a.size
        if _is_float(a) and _is_float(b):
            self._add_floats(_floats(a), _floats(b), name, rows)
            return
        self._equal = (self._equal or 0.0) + float((a == b).sum())
        if a.dtype.kind in "iu" and b.dtype.kind in "iu":
            self._add_distances(np.abs(a.astype(np.float64) - b.astype(np.float64)))

    def _add_floats(self, a: NDArray[np.float64], b: NDArray[np.float64], name: str, rows: int) -> None:
        self._add_distances(np.abs(a - b))
        by_row = (rows, -1) if a.ndim > 1 and len(a) == rows else (1, -1)
        if a.size > by_row[0]:  # a single number has no direction but its sign
            self._cosines.append(_cosines(a.reshape(by_row), b.reshape(by_row)))
        if self._best is not None:
            named = name in SCORES and a.ndim > 1 and a.shape[-1] > 1
            if named or (is_probabilities(a) and is_probabilities(b)):
                self._best.append((a.argmax(axis=-1) == b.argmax(axis=-1)).ravel())
            else:
                self._best = None

    def _add_distances(self, distances: NDArray[np.float64]) -> None:
        self._largest = max(self._largest or 0.0, float(distances.max(initial=0.0)))
        self._sum += float(distances.sum())

    def result(self) -> dict[str, Any]:
        """Fields of the report's `OutputDifference`, without the names."""
        if self._shapes is not None:
            return {"shapes": [list(shape) for shape in self._shapes]}
        elements = max(1, self._elements)
        cosines = np.concatenate(self._cosines) if self._cosines else None
        return {
            "largest": self._largest,
            "mean": None if self._largest is None else self._sum / elements,
            "cosine": None if cosines is None else float(cosines.mean()),
            "lowest_cosine": None if cosines is None else float(cosines.min()),
            "equal_top1": float(np.concatenate(self._best).mean()) if self._best else None,
            "equal": None if self._equal is None else self._equal / elements,
        }


class PairedDifferences:
    """The differences of all outputs of all pairs of models.

    Args:
        names: of the models.
        interfaces: of the models, in the same order.
    """

    def __init__(self, names: Sequence[str], interfaces: Sequence[Interface]) -> None:
        self._found = [
            (a, b, first.name, second.name, OutputDifference())
            for a, b in itertools.combinations(range(len(names)), 2)
            for first, second in paired_outputs(interfaces[a].outputs, interfaces[b].outputs)
        ]
        self._names = names

    def add(self, outputs: Sequence[Mapping[str, Any]], rows: int) -> None:
        """Add the outputs of all models for the same rows."""
        for a, b, first, second, difference in self._found:
            difference.add(outputs[a][first], outputs[b][second], first, rows)

    def results(self) -> list[dict[str, Any]]:
        """Fields of the report's `OutputDifference`."""
        return [
            {"a": self._names[a], "b": self._names[b], "output": name, **difference.result()}
            for a, b, name, _, difference in self._found
        ]


def is_probabilities(values: Array) -> bool:
    """Whether the last axis of an array has probabilities: at least two numbers that are not negative, with sum 1."""
    if values.dtype.kind != "f" or values.ndim < 2 or values.shape[-1] < 2 or not values.size or values.min() < 0:
        return False
    return bool(np.allclose(values.sum(axis=-1), 1, atol=SUM_TOLERANCE))


def _is_float(values: Array) -> bool:
    return values.dtype.kind == "f" or is_bfloat16(values)


def _floats(values: Array) -> NDArray[np.float64]:
    return values.astype(np.float64)


def _cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine similarity of each row (n,); 1 for two rows of zeros, 0 for one."""
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    scale = norms[0] * norms[1]
    found = np.where(scale > 0, (a * b).sum(axis=1) / np.where(scale > 0, scale, 1), 0.0)
    return np.clip(np.where((norms[0] == 0) & (norms[1] == 0), 1.0, found), -1, 1)
