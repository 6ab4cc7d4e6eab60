"""Noticing that a training goes nowhere any more, before its weights are saved."""

from __future__ import annotations

import math

import torch
from torch import nn

from kronmodel.errors import TrainingError

__all__ = ["check_weights", "finite"]


def finite(loss: float, epoch: int) -> float:
    """Return the loss, or raise a ``TrainingError`` if it is not a finite number."""
    if not math.isfinite(loss):
        raise TrainingError(f"training diverged in epoch {epoch}: the loss is {loss}; try a lower learning rate")
    return loss


def check_weights(network: nn.Module, epoch: int) -> None:
    """Raise a ``TrainingError`` if a weight is not finite. A step may ruin them after a finite loss."""
    if not torch.stack([parameter.detach().isfinite().all() for parameter in network.parameters()]).all():
        raise TrainingError(
            f"training diverged in epoch {epoch}: the weights are no longer finite; try a lower learning rate"
        )
