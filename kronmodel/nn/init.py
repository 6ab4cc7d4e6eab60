"""Weight initialisation: the schemes by name, and zero-mean orthogonal matrices."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

__all__ = ["Init", "check_init", "zero_sum_orthogonal"]

Init = Literal["level", "glorot"]


def check_init(init: str) -> None:
    """Raise a ``ValueError`` if there is no such initialisation."""
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")


def zero_sum_orthogonal(rows: int, columns: int, gain: float) -> Tensor:
    """A random ``(rows, columns)`` matrix that turns vectors of variance 1 into vectors of mean square ``gain²``.

    Its rows sum to zero, so it doesn't see the mean; within the space that is left it has orthonormal rows, or
    columns where there are more rows than that space has dimensions.
    """
    if columns == 1:
        column: Tensor = nn.init.orthogonal_(torch.empty(rows, 1), gain * math.sqrt(rows))
        return column
    free = columns - 1
    inner: Tensor = nn.init.orthogonal_(torch.empty(rows, free), gain * math.sqrt(max(1.0, rows / free)))
    # An orthonormal basis of the vectors that sum to zero: all but the first column, which is constant.
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(columns, 1), torch.eye(columns)[:, :free]], dim=1))
    matrix: Tensor = inner @ basis[:, 1:].T
    return matrix
