"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kronmodel.training.adamw import AdamW

if TYPE_CHECKING:
    from kronmodel.training.config import TrainConfig

__all__ = ["make_optimizer"]


def make_optimizer(
    network: nn.Module, config: TrainConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Create the optimizer and the learning-rate schedule of a training configuration.

    Args:
        network: network whose parameters are trained.
        config: names the optimizer and the schedule.
        steps: number of optimizer steps that the one-cycle schedule spans.
    """
    rate = config.learning_rate
    parameters = _groups(network)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=rate)
    elif config.optimizer == "adam":
        optimizer = torch.optim.Adam(parameters, lr=rate, fused=True)
    else:
        optimizer = AdamW(parameters, lr=rate, weight_decay=config.weight_decay)
    if config.schedule == "constant":
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    # Momentum is cycled only for Adam (its first beta): one-cycle would add momentum to plain SGD.
    # The schedule spans one step more, because the scheduler is stepped after the last optimizer step too.
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=steps + 1, cycle_momentum=config.optimizer != "sgd"
    )


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    """Group the parameters: step sizes of quantised weights, which have no weight decay, apart from all others."""
    steps: list[nn.Parameter] = getattr(network, "step_sizes", [])
    names = {id(parameter) for parameter in steps}
    groups: list[dict[str, Any]] = [{"params": [each for each in network.parameters() if id(each) not in names]}]
    return [*groups, {"params": steps, "weight_decay": 0.0}] if steps else groups
