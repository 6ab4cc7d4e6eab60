"""Scores of ONNX models on samples: accuracy with labels, and how far their outputs differ from the original's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.session import open_session, run
from kronmodel.errors import KronmodelError

__all__ = ["Scores", "compare", "scored_output", "scores_of"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a model on samples.

    Attributes:
        samples: number of samples.
        accuracy: fraction of samples whose class is the label; None without labels.
        r2: coefficient of determination of the predictions; None without values to predict.
        agreement: fraction of decisions that are the original's: the largest of the scores, or whether a probability is
            at least 0.5; None if the outputs are neither.
        relative_error: root mean square of the outputs' differences from the original's, relative to the original's.
        cosine: mean cosine between the outputs of both for each sample.
    """

    samples: int
    accuracy: float | None = None
    r2: float | None = None
    agreement: float | None = None
    relative_error: float
    cosine: float

    def drop(self, original: Scores) -> float | None:
        """Return how much worse this model is than the original, in percentage points; None if that is not known.

        The measure is the accuracy, else the coefficient of determination, else the agreement.
        """
        for now, before in ((self.accuracy, original.accuracy), (self.r2, original.r2)):
            if now is not None and before is not None:
                return 100 * (before - now)
        return None if self.agreement is None else 100 * (1 - self.agreement)


def compare(models: Mapping[str, Path], samples: Samples) -> dict[str, Scores]:
    """Run models on the same samples, and compare the outputs with those of the first one.

    Raises:
        KronmodelError: onnxruntime refuses a model, or a run of it fails, or gives values that are not finite.
    """
    sessions = {name: open_session(path) for name, path in models.items()}
    sums = {name: _Sums(samples) for name in models}
    for feeds in samples.batches():
        expected: list[Any] = []
        for name, session in sessions.items():
            outputs = run(session, feeds, name)
            expected = expected or outputs
            sums[name].add(expected, outputs, name)
    return {name: each.scores() for name, each in sums.items()}


def scores_of(name: str, expected: Iterable[list[Any]], outputs: Iterable[list[Any]], samples: Samples) -> Scores:
    """Compare the outputs of a model's runs on samples with those of the original.

    Args:
        name: name of the model, for messages.
        expected: outputs of the original for each run.
        outputs: outputs of the model for each run.
        samples: the samples of the runs.

    Raises:
        KronmodelError: the outputs have other shapes, or are not finite where the original's are.
    """
    sums = _Sums(samples)
    for want, got in zip(expected, outputs, strict=True):
        sums.add(want, got, name)
    return sums.scores()


class _Sums:
    """Sums over batches from which the scores follow."""

    def __init__(self, samples: Samples) -> None:
        self._labels = samples.labels
        self._classes = samples.task == "classification"
        self._seen = self._right = self._same = self._decided = self._rows = 0
        self._decides = True
        self._difference = self._energy = self._cosine = 0.0
        self._predictions: list[Array] = []

    def add(self, expected: list[Any], outputs: list[Any], name: str) -> None:
        """Add the outputs of a batch."""
        index = scored_output(expected)
        want, got = (np.asarray(each[index]) for each in (expected, outputs))
        if want.shape != got.shape:
            raise KronmodelError(f"{name}: an output has the shape {got.shape}, the original's has {want.shape}")
        want, got = want.astype(np.float64), got.astype(np.float64)
        if np.isfinite(want).all() and not np.isfinite(got).all():
            raise KronmodelError(f"{name} gives values that are not finite where the original's are")
        self._difference += float(np.square(got - want).sum())
        self._energy += float(np.square(want).sum())
        rows = len(want) if want.ndim else 1
        flat = [each.reshape(rows, -1) for each in (want, got)]
        norms = np.maximum(np.prod([np.linalg.norm(each, axis=1) for each in flat], axis=0), 1e-300)
        self._cosine += float(((flat[0] * flat[1]).sum(1) / norms).sum())
        self._rows += rows
        decisions = [_decisions(each) for each in (want, got)]
        if decisions[0] is None or decisions[1] is None:
            self._decides = False
        else:
            self._same += int((decisions[0] == decisions[1]).sum())
            self._decided += decisions[0].size
        if self._labels is not None:
            labels = self._labels[self._seen : self._seen + rows]
            self._add_labelled(labels, got, outputs)
        self._seen += rows

    def _add_labelled(self, labels: Array, got: Array, outputs: list[Any]) -> None:
        if not self._classes:
            self._predictions.append(got.reshape(len(got), -1)[:, :1])
        elif got.ndim == 2 and got.shape[1] > int(labels.max()):
            self._right += int((got.argmax(1) == labels).sum())
        else:  # scores of another kind, but perhaps an output with the classes themselves
            whole = [
                each for each in map(np.asarray, outputs) if each.dtype.kind in "iu" and each.shape == labels.shape
            ]
            if whole:
                self._right += int((whole[0] == labels).sum())
            else:
                self._labels = None

    def scores(self) -> Scores:
        """Compute the scores."""
        labels = None if self._labels is None else self._labels[: self._seen]
        r2 = None
        if labels is not None and not self._classes and self._predictions:
            predictions = np.concatenate(self._predictions)[:, 0]
            spread = float(np.square(labels - labels.mean(dtype=np.float64)).sum())
            r2 = 1 - float(np.square(predictions - labels).sum()) / max(spread, 1e-300)
        return Scores(
            samples=self._seen,
            accuracy=self._right / self._seen if labels is not None and self._classes else None,
            r2=r2,
            agreement=self._same / self._decided if self._decides and self._decided else None,
            relative_error=float(np.sqrt(self._difference / max(self._energy, 1e-300))),
            cosine=self._cosine / max(self._rows, 1),
        )


def scored_output(outputs: list[Any]) -> int:
    """Choose the output to score: the first of floating-point numbers with several values for a sample, else any."""
    arrays = [np.asarray(each) if not isinstance(each, list) else np.empty(0, object) for each in outputs]
    floats = [index for index, each in enumerate(arrays) if each.dtype.kind == "f"]
    several = [index for index in floats if arrays[index].ndim > 1 and arrays[index].shape[-1] > 1]
    if not floats:
        raise KronmodelError("the model has no output of floating-point numbers, so its results can't be compared")
    return (several or floats)[0]


def _decisions(values: Array) -> Array | None:
    """Return the decisions in outputs: the largest score of each row, or whether a probability is at least 0.5."""
    if values.ndim in (2, 3) and values.shape[-1] > 1:
        return np.asarray(values.argmax(-1))
    if values.size and values.min() >= 0 and values.max() <= 1:
        return np.asarray(values >= 0.5)
    return None
