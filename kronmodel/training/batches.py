"""Which training samples make a step, and which are held out for validation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["batches", "hold_out", "mean_loss"]


def batches(count: int, size: int, order: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Indices ``(size,)`` of each batch of one epoch, in a new random order. Drawn on the CPU: the same anywhere."""
    yield from torch.randperm(count, generator=order).to(device).split(size)


def hold_out(x: Tensor, y: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training samples and targets, then those of the validation split, which the seed draws.

    Raises:
        ValueError: the share of the samples is none or all of them.
    """
    if not share:
        return x, y, x[:0], y[:0]
    count = round(len(x) * share)
    if not 0 < count < len(x):
        raise ValueError(
            f"validation_share {share} of {len(x)} samples is {count}, expected at least 1 and fewer than all"
        )
    # Not the generator of the batches: without validation their order stays what it was.
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    held, rest = drawn[:count], drawn[count:].sort().values
    return x[rest], y[rest], x[held], y[held]


def mean_loss(losses: list[Tensor], samples: int, batch_size: int) -> Tensor:
    """Mean over the samples of an epoch, from the batches' mean losses: the last batch may be a smaller one."""
    sizes = torch.full((len(losses),), float(batch_size), dtype=torch.float64, device=losses[0].device)
    sizes[-1] = samples - batch_size * (len(losses) - 1)
    return (torch.stack(losses).double() * sizes).sum() / samples
