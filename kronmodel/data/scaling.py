"""Standardising columns: subtract the mean, divide by the standard deviation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scaling"]


@dataclass(frozen=True, eq=False)
class Scaling:
    """Mean and standard deviation of each of ``k`` columns, as the exported graph holds them.

    Attributes:
        mean: ``(k,)``, float32.
        std: ``(k,)``, float32; 0 for a column that is constant.
        inverse: ``(k,)``, float32: 1 / ``std``, but 0 for a constant column, which so counts for nothing whatever it
            is when the model is served.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    inverse: NDArray[np.float32]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Scaling:
        """The statistics of ``(n, k)``, computed in float64."""
        exact = values.astype(np.float64)
        mean = exact.mean(0)
        std = exact.std(0)
        constant = (values == values[:1]).all(0)
        # A spread below what float32 resolves at this magnitude is rounding, not information.
        constant |= std <= np.finfo(np.float32).eps * np.abs(mean)
        std[constant] = 0
        inverse = np.divide(1, std, out=np.zeros_like(std), where=std > 0)
        # A column of tiny or huge numbers may have a spread, or its inverse, that float32 can't hold.
        usable = (np.abs(inverse) <= np.finfo(np.float32).max) & (inverse.astype(np.float32) > 0)
        std[~usable] = inverse[~usable] = 0
        return cls(mean.astype(np.float32), std.astype(np.float32), inverse.astype(np.float32))

    @property
    def constant(self) -> NDArray[np.intp]:
        """Indices of the columns without information."""
        return np.flatnonzero(self.std == 0)

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise ``(n, k)``, in float32 as the graph does it."""
        return (values - self.mean) * self.inverse
