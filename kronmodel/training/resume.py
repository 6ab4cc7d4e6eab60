"""What of a training has to be saved so that it goes on as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.distributed import Group
from kronmodel.training.history import History

__all__ = ["Resumable"]

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # what the schedules keep in the optimizer


@dataclass(frozen=True)
class Resumable:
    """Everything that changes from step to step.

    Attributes:
        network: its weights and buffers.
        optimizer: its moments and step counts.
        schedule: where in the schedule it stands.
        order: draws the order of the samples. Torch's global generators, which dropout draws from, are saved too.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    order: torch.Generator

    def state(self, history: History, learning_rate: float) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
            "history": history.state(),
            "learning_rate": learning_rate,
        }

    def resume(self, checkpoint: Checkpoint | None, learning_rate: float, group: Group) -> History:
        """Take the state of a checkpoint if there is one to resume, and return its history.

        Only the leader needs the file. The learning rate may be another than before, above all a lower one after a
        divergence: the schedule goes on where it was, scaled.

        Raises:
            CheckpointError: it is damaged, or of another setting.
        """
        saved = checkpoint.load() if checkpoint is not None and group.leads else None
        saved = group.from_leader(saved)
        if saved is None:
            return History()
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.order.set_state(saved["order"])
        torch.set_rng_state(saved["random"])
        if saved["cuda_random"] is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(saved["cuda_random"])
        if learning_rate != saved["learning_rate"]:
            factor = learning_rate / saved["learning_rate"]
            for settings in self.optimizer.param_groups:
                settings.update({name: factor * settings[name] for name in RATES if name in settings})
            self.schedule.base_lrs = [factor * rate for rate in self.schedule.base_lrs]
        history = History.of(saved["history"])
        if checkpoint is not None:
            checkpoint.epoch = len(history.epochs)
        return history
