"""The one float input that `/api/predict` and comparisons need; other models are served at `/v2` only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import ModelError
from app.inference.datatypes import DATATYPES
from app.inference.engine import Array, Engine
from app.inference.session import FLOAT_TYPES

_DTYPES = {DATATYPES[name]: np.dtype(dtype) for name, dtype in FLOAT_TYPES.items()}


@dataclass(frozen=True, slots=True)
class RowInput:
    """One float tensor of rows of a fixed shape; `fixed_batch` where the graph takes exactly so many of them."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fixed_batch: int | None

    @classmethod
    def of(cls, engine: Engine, outputs: Mapping[str, Array]) -> "RowInput":
        """The input of a model that gave `outputs` when it was warmed up.

        Raises:
            ModelError: it takes something else, or gives other than one row per row.
        """
        if len(engine.inputs) != 1:
            raise ModelError(f"got {len(engine.inputs)} inputs, expected 1")
        tensor = engine.inputs[0]
        if tensor.datatype not in _DTYPES:
            raise ModelError(f"input {tensor.name!r}: got {tensor.datatype}, expected one of {', '.join(_DTYPES)}")
        if len(tensor.shape) < 2 or min(tensor.shape[1:]) < 1:
            raise ModelError(
                f"input {tensor.name!r}: got shape {list(tensor.shape)}, expected [batch, fixed sizes ...]"
            )
        fixed = tensor.shape[0] if tensor.shape[0] > 0 else None
        rows = {len(values) if values.ndim else 0 for values in outputs.values()}
        if len(rows) != 1 or 0 in rows or (fixed is not None and rows != {fixed}):
            shapes = {name: values.shape for name, values in outputs.items()}
            raise ModelError(f"got outputs of shapes {shapes}, expected a row for each input row")
        return cls(tensor.name, _DTYPES[tensor.datatype], tensor.shape[1:], fixed)

    @property
    def features(self) -> int:
        """Values of a row."""
        return math.prod(self.shape)

    def feed(self, rows: Array) -> dict[str, Array]:
        """Rows (n, features) or (n, *shape) as the engine takes them."""
        return {self.name: rows.astype(self.dtype, copy=False).reshape(len(rows), *self.shape)}
