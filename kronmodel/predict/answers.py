"""Answers of a model for the rows of a file: written as CSV, and scored against the true values."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.target import classes_of
from kronmodel.errors import DataError, LoadError, Message
from kronmodel.files import staged_file
from kronmodel.predict.model import PredictionModel
from kronmodel.predict.rows import Piece, read_pieces

__all__ = ["Score", "predict_file"]


class Score:
    """Score of answers against true values, collected piece by piece.

    Args:
        labels: names of the classes; empty for regression.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._index = {label: number for number, label in enumerate(labels)}
        self._right = np.zeros(len(labels), np.int64)
        self._rows = np.zeros(len(labels), np.int64)
        self._unknown = self._count = 0
        self._moments: NDArray[np.float64] = np.zeros((0, 3))

    def add(self, predicted: NDArray[np.float32], truth: Sequence[NDArray[Any]]) -> None:
        """Add probabilities ``(n, classes)`` or values ``(n, k)``, and the true values ``(n,)`` of each target."""
        self._count += len(predicted)
        if self._labels:
            names, classes = classes_of(truth[0])
            true = np.array([self._index.get(name, -1) for name in names], np.int64)[classes]
            self._unknown += int((true < 0).sum())
            known = true >= 0
            self._rows += np.bincount(true[known], minlength=len(self._labels))
            right = known & (predicted.argmax(1) == true)
            self._right += np.bincount(true[right], minlength=len(self._labels))
            return
        true = np.stack(truth, 1).astype(np.float64)
        if not len(self._moments):
            self._shift = true[:1]  # keeps the sums of squares small
            self._moments = np.zeros((true.shape[1], 3))
        centred = true - self._shift
        errors = ((predicted - true) ** 2).sum(0)
        self._moments += np.stack([errors, centred.sum(0), (centred**2).sum(0)], 1)

    def result(self) -> dict[str, Any]:
        """Return the scores: accuracy, its mean over the classes and the recall of each; or RMSE and R²."""
        if self._labels:
            total = int(self._rows.sum()) + self._unknown
            recall = {
                label: float(right / rows)
                for label, right, rows in zip(self._labels, self._right, self._rows, strict=True)
                if rows
            }
            return {
                "rows": total,
                "accuracy": float(self._right.sum() / total),
                "balanced_accuracy": float(np.mean(list(recall.values()))) if recall else 0.0,
                "recall": recall,
                **({"rows_of_unknown_classes": self._unknown} if self._unknown else {}),
            }
        errors, sums, squares = self._moments.T
        spread = squares - sums**2 / self._count
        found = {"rows": self._count, "rmse": float(np.sqrt((errors / self._count).mean()))}
        if (spread > 0).all():
            found["r2"] = float((1 - errors / spread).mean())
        return found


def predict_file(
    model: PredictionModel,
    path: Path,
    out: Path | None,
    stdout: IO[str],
    *,
    probabilities: bool = False,
    check: Sequence[str] | None = None,
    skip_bad_rows: bool = False,
    report: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Write a model's answers for the rows of a file as CSV, piece by piece, and score them.

    Args:
        model: the model.
        path: a table, or a .npz file with the array ``x``.
        out: file that is written whole or not at all; None writes to ``stdout``.
        stdout: open text file.
        probabilities: write the probability of each class, too.
        check: names of the columns with the true values; None scores nothing.
        skip_bad_rows: leave out unusable rows instead of refusing the file.
        report: receives messages for the user.
        progress: receives the number of rows that are done.

    Returns:
        Number of rows, and the scores under ``check``.

    Raises:
        DataError: the file can't be read or does not fit the model.
        LoadError: the answers can't be written.
    """
    score = None if check is None else Score(model.labels)
    pieces = read_pieces(path, model, check=check or (), skip_bad_rows=skip_bad_rows)
    rows = 0

    def write(file: IO[str]) -> None:
        nonlocal rows
        writer = csv.writer(file, lineterminator="\n")
        first = True
        for piece in pieces:
            if isinstance(piece, str):
                report(piece)
                continue
            if first:
                writer.writerow(_header(model, piece, probabilities))
                first = False
            if not len(piece.numbers):
                continue
            predicted = model.run(piece.feeds)
            _check_finite(path, piece, predicted)
            writer.writerows(_lines(model, piece, predicted, probabilities))
            if score is not None:
                score.add(predicted, piece.truth)
            rows += len(predicted)
            progress(rows)

    if out is None:
        write(stdout)
    else:
        try:
            with staged_file(out) as file:
                write(file)
        except OSError as error:
            raise LoadError(f"{out} can't be written: {error.strerror or error}") from error
    if not rows:
        raise DataError(f"{path} has no rows that can be used")
    return {"rows": rows, **({} if score is None else {"check": score.result()})}


def _header(model: PredictionModel, piece: Piece, probabilities: bool) -> list[str]:
    targets = model.targets or ("",)
    names = [f"predicted_{target}" if target else "prediction" for target in targets]
    shown = [f"probability_{label}" for label in model.labels] if probabilities else []
    return ["row", *piece.names, *names, *shown]


def _lines(model: PredictionModel, piece: Piece, predicted: NDArray[np.float32], probabilities: bool) -> Any:
    """Return the lines of the answers to the rows of a piece."""
    named = [piece.numbers.tolist(), *piece.names.values()]
    if not model.labels:
        return zip(*named, *(map(_short, column) for column in predicted.T), strict=True)
    answers = [model.labels[index] for index in predicted.argmax(1).tolist()]
    shown = [map(_short, column) for column in predicted.T] if probabilities else []
    return zip(*named, answers, *shown, strict=True)


def _short(value: np.float32) -> str:
    """Write a number with as few digits as distinguish it in float32."""
    return np.format_float_positional(value, trim="-") if 1e-5 < abs(value) < 1e15 or not value else f"{value:.9g}"


def _check_finite(path: Path, piece: Piece, predicted: NDArray[np.float32]) -> None:
    wrong = np.flatnonzero(~np.isfinite(predicted).all(1))
    if len(wrong):
        raise DataError(Message(f"{path}: the model has no finite answer to row {int(piece.numbers[wrong[0]]):,}"))
