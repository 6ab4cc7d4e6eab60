"""Weight initialisation: the schemes by name, and random orthogonal matrices that ignore the mean of their input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from kronmodel.shapes import Order, axes

__all__ = ["Init", "check_init", "fill_orthogonal", "zero_mean_orthogonal"]

Init = Literal["level", "glorot"]
"""``"level"``: zero-mean orthogonal factors, which keep the variance level through depth; ``"glorot"``: uniform."""


def check_init(init: str) -> None:
    """Raise a ``ValueError`` if there is no initialisation of this name."""
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")


def zero_mean_orthogonal(rows: int, columns: int, gain: float, like: Tensor) -> Tensor:
    """Draw a random matrix that turns vectors of variance 1 into vectors of mean square ``gain²``.

    Its rows sum to zero, so a constant added to a vector changes nothing; within the space that is left it has
    orthonormal rows, or columns where there are more rows than that space has dimensions.

    Args:
        rows: number of rows.
        columns: number of columns.
        gain: root mean square of the output.
        like: gives the device and the type, but at least single precision, which the decomposition needs.
    """
    if columns == 1:
        return _orthogonal(rows, 1, gain, like)
    free = columns - 1
    inner = _orthogonal(rows, free, gain, like)
    # An orthonormal basis of the vectors that sum to zero: all but the first column, which is constant.
    ones, unit = inner.new_ones(columns, 1), torch.eye(columns, free, dtype=inner.dtype, device=inner.device)
    basis, _ = torch.linalg.qr(torch.cat([ones, unit], dim=1))
    matrix: Tensor = inner @ basis[:, 1:].T
    return matrix


def _orthogonal(rows: int, columns: int, gain: float, like: Tensor) -> Tensor:
    """Draw orthonormal rows, or columns where there are more rows, scaled to give mean square ``gain²``."""
    empty = torch.empty(rows, columns, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    matrix: Tensor = nn.init.orthogonal_(empty, gain * math.sqrt(max(1.0, rows / columns)))
    return matrix


def fill_orthogonal(
    factors: Sequence[Tensor], branches: Sequence[int], order: Order, *, gain: float, linear: bool = False
) -> None:
    """Fill the factors of the branches of one order so that a layer's outputs have variance 1.

    Inputs of the layer are thought to have passed an activation of standard deviation ``1 / gain``. All first factors
    are one zero-mean orthogonal matrix, and all last ones another, because branches are summed there.

    Args:
        factors: of the layer, each ``(r, m_i, n_i)``; changed in place.
        branches: indices of the branches to fill.
        order: in which they apply their factors.
        gain: inverse of the activation's standard deviation.
        linear: there is no activation between the factors, so the first factor has already removed the mean and scaled.
    """
    if factors[0].is_meta:
        return  # no values to fill in, and some decompositions are not implemented there
    rank, which = factors[0].shape[0], list(branches)
    first, *between, last = (factors[axis] for axis in axes(order, len(factors)))
    draw, later = (_orthogonal, 1.0) if linear else (zero_mean_orthogonal, gain)
    with torch.no_grad():
        stacked = zero_mean_orthogonal(len(which) * first.shape[1], first.shape[2], gain, first)
        _write(first, which, stacked.reshape(len(which), *first.shape[1:]))
        for factor in between:
            for branch in which:
                factor[branch].copy_(draw(factor.shape[1], factor.shape[2], later, factor))
        # The last factors lie side by side; these branches are only a part of all that are summed.
        part = later * math.sqrt(len(which) / rank)
        wide = draw(last.shape[1], len(which) * last.shape[2], part, last)
        _write(last, which, wide.reshape(last.shape[1], len(which), last.shape[2]).transpose(0, 1))


def _write(factor: Tensor, branches: list[int], values: Tensor) -> None:
    for branch, value in zip(branches, values, strict=True):
        factor[branch].copy_(value)
