"""Samples for an ONNX model's inputs: an array for each input, in runs of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kronmodel.errors import DataError, KronmodelError
from kronmodel.export.card import read_card

__all__ = ["Array", "InputSpec", "Samples", "card_of", "image_shape", "input_specs"]

Array = NDArray[Any]


@dataclass(frozen=True)
class InputSpec:
    """Input of a model.

    Attributes:
        name: name of the input.
        dtype: type of its values.
        shape: its sizes, None for a dynamic one.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join('?' if size is None else str(size) for size in self.shape)})"


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """List the inputs of a model that have no initializer.

    Raises:
        DataError: an input is not a tensor.
    """
    given = {each.name for each in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in given:
            continue
        if not value.type.HasField("tensor_type"):
            raise DataError(f"the model's input {value.name!r} is not a tensor")
        tensor = value.type.tensor_type
        sizes = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
        specs.append(InputSpec(value.name, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), sizes))
    return specs


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples for a model: an array for each input, and labels if they are known.

    Attributes:
        arrays: samples ``(n, ...)`` of each input that changes from sample to sample.
        constant: values of the other inputs.
        batch: number of samples of a run.
        fixed: the model takes no other number of samples.
        by_call: each entry of ``arrays`` is the input of a whole run, not a row of its batch.
        labels: class indices or target values ``(n,)``; None if they are not known.
        task: classification or regression; None without labels.
        origin: description of the source, for the report.
        image_shape: sizes of the image that a sample is, flat or not; None if it is not known to be one.
    """

    arrays: Mapping[str, Array]
    constant: Mapping[str, Array]
    batch: int
    fixed: bool
    by_call: bool
    labels: Array | None
    task: str | None
    origin: str
    image_shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return min(map(len, self.arrays.values()), default=0)

    @property
    def runs(self) -> int:
        """Number of runs for all samples."""
        return len(self) if self.by_call else -(-len(self) // self.batch)

    def batches(self) -> Iterator[dict[str, Array]]:
        """Iterate over the inputs of each run."""
        if self.by_call:
            for index in range(len(self)):
                yield {**{name: array[index] for name, array in self.arrays.items()}, **self.constant}
            return
        for start in range(0, len(self), self.batch):
            part = {name: array[start : start + self.batch] for name, array in self.arrays.items()}
            yield {**part, **self.constant}

    def part(self, every: int) -> Samples:
        """Return the samples of the last one of every so many runs; of few runs, all samples."""
        return self if self.runs < every else self.take(np.flatnonzero(self._is_last(every)))

    def other_part(self, every: int) -> Samples:
        """Return the samples that :meth:`part` leaves out; of few runs, all samples."""
        return self if self.runs < every else self.take(np.flatnonzero(~self._is_last(every)))

    def in_runs(self, least: int) -> Samples:
        """Return the same samples in at least so many runs, if there are so many and the model takes smaller runs."""
        if self.fixed or self.by_call or self.runs >= least:
            return self
        return replace(self, batch=max(len(self) // least, 1))

    def _is_last(self, every: int) -> NDArray[np.bool_]:
        size = 1 if self.by_call else self.batch
        last: NDArray[np.bool_] = np.arange(len(self)) // size % every == every - 1
        return last

    def first_run(self) -> Samples:
        """Return the samples of the first run only."""
        return self.take(np.arange(1 if self.by_call else min(self.batch, len(self))))

    def take(self, indices: NDArray[np.intp]) -> Samples:
        """Return the samples with these indices."""
        arrays = {name: array[indices] for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, labels=None if self.labels is None else self.labels[indices])


def image_shape(model: onnx.ModelProto, samples: Samples | None) -> tuple[int, int] | None:
    """Return the rows and columns of the images that a model takes, the channels joined with the rows.

    Args:
        model: the model, of which the card may describe the input.
        samples: samples, which may be known to be images; None without any.

    Returns:
        Rows and columns; None if the input is not known to be an image.
    """
    shape = None if samples is None else samples.image_shape
    if shape is None:
        described = (card_of(model) or {}).get("input")
        found = described.get("shape") if isinstance(described, dict) and described.get("kind") == "image" else None
        if isinstance(found, list) and all(isinstance(size, int) and size > 0 for size in found):
            shape = tuple(found)
    if shape is None or len(shape) < 2:
        return None
    return math.prod(shape[:-1]), shape[-1]


def card_of(model: onnx.ModelProto) -> dict[str, Any] | None:
    """Read the model's card; None if it has none, or one of another kind."""
    try:
        return read_card(model)
    except KronmodelError:  # a card of another kind
        return None
