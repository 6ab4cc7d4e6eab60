"""Data sets in memory: features, targets and metadata, and the standardisation of their columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.tables.columns import Kind
from kronmodel.data.tables.encoding import TableEncoding

__all__ = ["ColumnNote", "Dataset", "Report", "Scaling", "TaskName", "prepared"]


@dataclass(frozen=True, eq=False)
class Scaling:
    """Standardisation of ``k`` columns: mean and standard deviation of each, in the exported graph's float32.

    Attributes:
        mean: ``(k,)``, float32.
        std: ``(k,)``, float32; 0 for a column that is constant.
        inverse: ``(k,)``, float32: 1 / ``std``, but 0 for a constant column, so that the served model ignores that
            column whatever its value.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    inverse: NDArray[np.float32]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Scaling:
        """Compute mean and standard deviation of the columns of ``(n, k)``, in float64."""
        exact = values.astype(np.float64)
        mean = exact.mean(0)
        std = exact.std(0)
        constant = (values == values[:1]).all(0)
        # A spread below what float32 resolves at this magnitude is rounding, not information.
        constant |= std <= np.finfo(np.float32).eps * np.abs(mean)
        std[constant] = 0
        inverse = np.divide(1, std, out=np.zeros_like(std), where=std > 0)
        # For a column of tiny or huge numbers, the standard deviation or its inverse may exceed float32's range.
        usable = (np.abs(inverse) <= np.finfo(np.float32).max) & (inverse.astype(np.float32) > 0)
        std[~usable] = inverse[~usable] = 0
        return cls(mean.astype(np.float32), std.astype(np.float32), inverse.astype(np.float32))

    @property
    def constant(self) -> NDArray[np.intp]:
        """Indices of the constant columns, which carry no information."""
        return np.flatnonzero(self.std == 0)

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise values ``(n, k)`` in float32, with the same arithmetic as the exported graph."""
        return (values - self.mean) * self.inverse


Report = Callable[[str], None]
"""Function that receives messages for the user: a download that begins, a fallback in use, an inferred task."""

TaskName = Literal["classification", "regression"]


@dataclass(frozen=True, kw_only=True)
class ColumnNote:
    """What is done to a column of a user's table.

    Attributes:
        name: name of the column.
        kind: what its values are taken for, or ``"left out"``.
        done: sentence for the user: how it is encoded, or why it is left out.
    """

    name: str
    kind: Kind
    done: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set in memory, split for training and test.

    Attributes:
        name: name of the data set, and the default name of a twin trained on it.
        x_train: raw features ``(n, width)``, float32, as in requests to the served model: not standardised. With an
            ``encoding``, the encoded features.
        y_train: class indices ``(n,)``, int64, or values to predict ``(n, k)``, float32, in their own units.
        x_test: like ``x_train``.
        y_test: like ``y_train``.
        task: ``"classification"`` or ``"regression"``.
        labels: name of each class; empty for regression.
        image_shape: ``(height, width)`` or ``(channels, height, width)`` if a row of features is an image, else None.
        feature_names: name of each column, if a row of features is not an image.
        scaling: standardises the features inside the network's graph; None where they are used as they are.
        target_scaling: standardises the values to predict; None for classification.
        preprocessing: sentence that describes how the features were made.
        origin: sentence that describes where the data was found.
        split: sentence that describes how the test samples were chosen.
        columns: what is done to each column of a user's table.
        formats: format of the numbers or dates in columns of a user's table, where other rows could be misread.
        target_names: names of the columns that are predicted, of a user's table.
        encoding: encodes the columns of a user's table in the graph; None if the graph takes rows of numbers.
        test_rows: values of the encoded columns in the test rows, by name; None without an encoding.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64] | NDArray[np.float32]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64] | NDArray[np.float32]
    task: TaskName = "classification"
    labels: tuple[str, ...] = ()
    image_shape: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] = ()
    scaling: Scaling | None = None
    target_scaling: Scaling | None = None
    preprocessing: str
    origin: str
    split: str = "as published"
    columns: tuple[ColumnNote, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)
    target_names: tuple[str, ...] = ()
    encoding: TableEncoding | None = None
    test_rows: Mapping[str, NDArray[Any]] | None = None

    @property
    def features(self) -> int:
        """Number of features of a sample."""
        return int(self.x_train.shape[1])

    @property
    def outputs(self) -> int:
        """Number of classes, or of values to predict."""
        return len(self.labels) if self.task == "classification" else int(self.y_train.shape[1])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the arrays, independent of the place and the format of the files."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _class_counts(self) -> dict[str, int]:
        """Count the samples of each class, of training and test together."""
        counts = np.bincount(np.concatenate([self.y_train, self.y_test]).astype(np.int64), minlength=len(self.labels))
        return dict(zip(self.labels, counts.tolist(), strict=True))

    def describe(self) -> dict[str, Any]:
        """Summarise the data set in a few fields for printing."""
        return {
            "name": self.name,
            "task": self.task,
            "origin": self.origin,
            "sha256": self.sha256,
            "train_samples": len(self.x_train),
            "test_samples": len(self.x_test),
            "split": self.split,
            "features": self.features,
            **({"image_shape": list(self.image_shape)} if self.image_shape else {}),
            **({"feature_names": list(self.feature_names)} if self.feature_names else {}),
            **({"labels": list(self.labels)} if self.labels else {"outputs": self.outputs}),
            **({"class_counts": self._class_counts()} if self.labels else {}),
            "preprocessing": self.preprocessing,
            **({"columns": [asdict(note) for note in self.columns]} if self.columns else {}),
        }


def prepared(data: Dataset, width: int) -> Dataset:
    """Preprocess a data set for the training loop: standardise features and targets, pad rows with zeros.

    The exported graph begins and ends with the same steps in the same float32 arithmetic, so the network is trained on
    exactly the values that it receives when it is served.

    Args:
        data: the data set as loaded, with raw features.
        width: number of the network's inputs; greater than the number of features if the data is padded.

    Raises:
        ValueError: ``width`` is less than the number of features.
    """
    missing = width - data.features
    if missing < 0:
        raise ValueError(f"the network takes {width} features, got {data.features}")
    if data.scaling is None and data.target_scaling is None and missing == 0:
        return data

    def features(x: NDArray[np.float32]) -> NDArray[np.float32]:
        x = x if data.scaling is None else data.scaling.apply(x)
        return np.pad(x, ((0, 0), (0, missing)))

    def target(y: NDArray[Any]) -> NDArray[Any]:
        return y if data.target_scaling is None else data.target_scaling.apply(y)

    return replace(
        data,
        x_train=features(data.x_train),
        x_test=features(data.x_test),
        y_train=target(data.y_train),
        y_test=target(data.y_test),
    )
