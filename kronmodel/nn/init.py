"""Weight initialisation: names of the schemes, and random orthogonal matrices that ignore the mean of their input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from kronmodel.shapes import Order, axes

__all__ = ["Init", "check_init", "fill_orthogonal", "zero_mean_orthogonal"]

Init = Literal["level", "glorot"]
"""``"level"``: zero-mean orthogonal factors, which keep the variance constant through depth; ``"glorot"``: uniform."""


def check_init(init: str) -> None:
    """Check the name of an initialisation scheme; raise a ``ValueError`` if it is unknown."""
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")


def zero_mean_orthogonal(rows: int, columns: int, gain: float, like: Tensor) -> Tensor:
    """Draw a random orthogonal matrix whose rows sum to zero, and which maps variance 1 to mean square ``gain²``.

    Because of the zero sums, a constant added to an input vector does not change the output. Within the subspace of
    vectors of mean zero, the rows are orthonormal; or the columns, if there are more rows than dimensions.

    Args:
        rows: number of rows.
        columns: number of columns.
        gain: root mean square of the output.
        like: tensor with the device and the data type to use; at least float32, which the decomposition needs.
    """
    if columns == 1:
        return _orthogonal(rows, 1, gain, like)
    free = columns - 1
    inner = _orthogonal(rows, free, gain, like)
    # Orthonormal basis of the vectors that sum to zero: all columns but the first, which is constant.
    ones, unit = inner.new_ones(columns, 1), torch.eye(columns, free, dtype=inner.dtype, device=inner.device)
    basis, _ = torch.linalg.qr(torch.cat([ones, unit], dim=1))
    matrix: Tensor = inner @ basis[:, 1:].T
    return matrix


def _orthogonal(rows: int, columns: int, gain: float, like: Tensor) -> Tensor:
    """Draw a random matrix with orthonormal rows (columns, if it has more rows), scaled to mean square ``gain²``."""
    empty = torch.empty(rows, columns, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    matrix: Tensor = nn.init.orthogonal_(empty, gain * math.sqrt(max(1.0, rows / columns)))
    return matrix


def fill_orthogonal(
    factors: Sequence[Tensor], branches: Sequence[int], order: Order, *, gain: float, linear: bool = False
) -> None:
    """Initialise the factors of all branches of one order so that the layer's outputs have variance 1.

    The inputs are assumed to be outputs of an activation with standard deviation ``1 / gain``. The first factors of all
    branches form one zero-mean orthogonal matrix, and the last factors another, because the branches are summed.

    Args:
        factors: factors of the layer, each ``(r, m_i, n_i)``; changed in place.
        branches: indices of the branches to initialise.
        order: order in which these branches apply their factors.
        gain: inverse of the activation's standard deviation.
        linear: whether the factors have no activation between them; the first factor then removes the mean and scales.
    """
    if factors[0].is_meta:
        return  # meta tensors have no values, and some decompositions don't support them
    rank, which = factors[0].shape[0], list(branches)
    first, *between, last = (factors[axis] for axis in axes(order, len(factors)))
    draw, later = (_orthogonal, 1.0) if linear else (zero_mean_orthogonal, gain)
    with torch.no_grad():
        stacked = zero_mean_orthogonal(len(which) * first.shape[1], first.shape[2], gain, first)
        _write(first, which, stacked.reshape(len(which), *first.shape[1:]))
        for factor in between:
            for branch in which:
                factor[branch].copy_(draw(factor.shape[1], factor.shape[2], later, factor))
        # The last factors side by side form one matrix. These branches are only a fraction of all that are summed, so
        # they contribute only that fraction of the variance.
        part = later * math.sqrt(len(which) / rank)
        wide = draw(last.shape[1], len(which) * last.shape[2], part, last)
        _write(last, which, wide.reshape(last.shape[1], len(which), last.shape[2]).transpose(0, 1))


def _write(factor: Tensor, branches: list[int], values: Tensor) -> None:
    for branch, value in zip(branches, values, strict=True):
        factor[branch].copy_(value)
