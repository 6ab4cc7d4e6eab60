"""Row input: the float input that `/api/predict` and comparisons need; models without one are served at `/v2` only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import ModelError
from app.inference.datatypes import ROW_DTYPES, Array
from app.inference.engine import Engine


@dataclass(frozen=True, slots=True)
class RowInput:
    """A graph's only input, a float tensor of rows of a fixed shape.

    Args:
        name: in the graph.
        dtype: float16, float32 or float64.
        shape: of a row, without the batch axis.
        fixed_batch: the only number of rows that the graph accepts; None for any number.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fixed_batch: int | None

    @classmethod
    def of(cls, engine: Engine, outputs: Mapping[str, Array]) -> "RowInput":
        """Find the row input of a loaded model.

        Args:
            engine: the model.
            outputs: of its warm-up, by name.

        Raises:
            ModelError: it has other inputs, or other than one output row per input row.
        """
        if len(engine.inputs) != 1:
            raise ModelError(f"got {len(engine.inputs)} inputs, expected 1")
        tensor = engine.inputs[0]
        if tensor.datatype not in ROW_DTYPES:
            raise ModelError(f"input {tensor.name!r}: got {tensor.datatype}, expected one of {', '.join(ROW_DTYPES)}")
        if len(tensor.shape) < 2 or min(tensor.shape[1:]) < 1:
            raise ModelError(
                f"input {tensor.name!r}: got shape {list(tensor.shape)}, expected [batch, fixed sizes ...]"
            )
        fixed = tensor.shape[0] if tensor.shape[0] > 0 else None
        rows = {len(values) if values.ndim else 0 for values in outputs.values()}
        if len(rows) != 1 or 0 in rows or (fixed is not None and rows != {fixed}):
            shapes = {name: values.shape for name, values in outputs.items()}
            raise ModelError(f"got outputs of shapes {shapes}, expected a row for each input row")
        return cls(tensor.name, ROW_DTYPES[tensor.datatype], tensor.shape[1:], fixed)

    @property
    def n_features(self) -> int:
        """Number of values of a row."""
        return math.prod(self.shape)

    def feed(self, rows: Array) -> dict[str, Array]:
        """The engine's feeds for rows of shape (n, n_features) or (n, *shape), in the input's dtype and shape."""
        return {self.name: rows.astype(self.dtype, copy=False).reshape(len(rows), *self.shape)}
