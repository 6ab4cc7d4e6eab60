"""Fake quantisation with a straight-through estimator and learned step sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = [
    "FEATURE_LEVELS",
    "Grid",
    "fake_quantize",
    "fake_quantize_features",
    "initial_steps",
    "levels",
    "quantized_steps",
]

SMALLEST_STEP, LARGEST_STEP = 2.0**-14, 2.0**15  # normal numbers of float16
CANDIDATES = 40  # step sizes that are tried for the first one
FEATURE_LEVELS = (-128, 127)
NO_STEP = 2.0**-6  # step size of a row of zeros, such as biases before the training


def quantized_steps(log_steps: Tensor) -> Tensor:
    """Return the step sizes of their logarithms, rounded to float16, as they are stored, in float32."""
    return log_steps.exp().clamp(SMALLEST_STEP, LARGEST_STEP).half().float()


def levels(values: Tensor, steps: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the levels of values: the nearest multiples of the step size between the lowest and the highest level."""
    return (values / steps).round().clamp(low, high)


@dataclass(frozen=True)
class Grid:
    """Rows and levels of a vector of values.

    Attributes:
        rows: index of the row of each value, ``(n,)``.
        low: lowest level of each value, ``(n,)``.
        high: highest level of each value, ``(n,)``.
        scale: factor of the gradient of each row's step size, ``(r,)``.
    """

    rows: Tensor
    low: Tensor
    high: Tensor
    scale: Tensor


def fake_quantize(values: Tensor, log_steps: Tensor, grid: Grid) -> Tensor:
    """Round values to the levels of their row's step size, with gradients for the values and the step sizes.

    The gradient of a value is passed straight through the rounding inside the range of levels, and is 0 outside. The
    gradient of a step size is that of learned step size quantisation, scaled by ``1 / sqrt(values * highest level)`` of
    its row. Step sizes are learned by their logarithms, so that they stay positive and an optimizer's learning rate is
    relative to their size.

    Args:
        values: ``(n,)``.
        log_steps: natural logarithm of the step size of each row, ``(r,)``.
        grid: rows and levels of the values.

    Reference:
        Esser et al., Learned Step Size Quantization, arXiv 1902.08153.
    """
    return _FakeQuantize.apply(values, log_steps, grid.rows, grid.low, grid.high, grid.scale)  # type: ignore[no-any-return,no-untyped-call]


def fake_quantize_features(features: Tensor, log_step: Tensor) -> Tensor:
    """Round features of any shape to the levels -128 to 127 of one step size, with the gradients of `fake_quantize`.

    Args:
        features: any shape.
        log_step: natural logarithm of the step size, without axes.
    """
    return _FakeQuantizeFeatures.apply(features, log_step)  # type: ignore[no-any-return,no-untyped-call]


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (an operator's arguments)
        ctx: Any, values: Tensor, log_steps: Tensor, rows: Tensor, low: Tensor, high: Tensor, scale: Tensor
    ) -> Tensor:
        row_steps = quantized_steps(log_steps)
        steps = row_steps[rows]
        scaled = values / steps
        found = torch.clamp(scaled.round(), low, high)
        ctx.save_for_backward(scaled, found, row_steps, rows, low, high, scale)
        return found * steps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        scaled, found, row_steps, rows, low, high, scale = ctx.saved_tensors
        passed, products = _gradients(gradient, scaled, found, low, high)
        sums = torch.zeros_like(row_steps).index_add_(0, rows, products)
        return passed, sums * row_steps * scale, None, None, None, None


class _FakeQuantizeFeatures(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, log_step: Tensor) -> Tensor:
        step = quantized_steps(log_step)
        scaled = features / step
        found = scaled.round().clamp_(*FEATURE_LEVELS)
        ctx.save_for_backward(scaled, found, step)
        return found * step

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        scaled, found, step = ctx.saved_tensors
        low, high = FEATURE_LEVELS
        passed, products = _gradients(gradient, scaled, found, low, high)
        return passed, products.sum() * step / math.sqrt(max(1, products.numel()) * high)


def _gradients(
    gradient: Tensor, scaled: Tensor, found: Tensor, low: Tensor | int, high: Tensor | int
) -> tuple[Tensor, Tensor]:
    """Compute the gradient of each value, and the contribution of each value to its step size's gradient."""
    passed = gradient * ((scaled >= low) & (scaled <= high))
    # The derivative of level * step by the step is the rounding error in steps inside the range, the level outside.
    return passed, gradient * found - passed * scaled


def initial_steps(values: Tensor, low: int, high: int) -> Tensor:
    """Choose the step size of each row, from 40 candidates, with the smallest mean squared rounding error.

    Args:
        values: ``(rows, length)``.
        low: lowest level.
        high: highest level.

    Returns:
        ``(rows,)``; rows of zeros have a step size of 1/64.
    """
    largest = values.abs().amax(1) / high  # (rows,)
    found = torch.where(largest > 0, largest, NO_STEP)
    best = torch.full_like(found, math.inf)
    for number in range(CANDIDATES, 0, -1):
        steps = (largest * (number / CANDIDATES)).clamp(SMALLEST_STEP, LARGEST_STEP)[:, None]
        errors = ((values / steps).round().clamp(low, high) * steps - values).square().mean(1)
        better = (errors < best) & (largest > 0)
        found, best = torch.where(better, steps[:, 0], found), torch.where(better, errors, best)
    return found
