"""One training loop for every network."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kronmodel.data import Dataset
from kronmodel.errors import TrainingError
from kronmodel.tasks import task_of

__all__ = ["Progress", "TrainConfig", "TrainResult", "train"]

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["one-cycle", "constant"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples a step; the last step of an epoch takes what is left.
        optimizer: ``"adam"`` (without weight decay), ``"adamw"`` or ``"sgd"`` (plain, without momentum).
        learning_rate: constant, or the maximum of the one-cycle schedule.
        schedule: ``"one-cycle"`` (Smith & Topin, arXiv 1708.07120) or ``"constant"``.
        weight_decay: of AdamW.
        seed: of the initial weights and of the order of the samples.
        device: where to train, such as ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: a value outside its range.
    """

    epochs: int
    batch_size: int = 128
    optimizer: Optimizer = "adamw"
    learning_rate: float = 3e-3
    schedule: Schedule = "one-cycle"
    weight_decay: float = 0.01
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, low, high in (("epochs", 1, 100_000), ("batch_size", 1, 1 << 20), ("seed", 0, (1 << 63) - 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number between {low} and {high}, got {value!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be a number above 0, got {self.learning_rate!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be a number of at least 0, got {self.weight_decay!r}")
        if self.optimizer not in ("adam", "adamw", "sgd"):
            raise ValueError(f"optimizer must be adam, adamw or sgd, got {self.optimizer!r}")
        if self.schedule not in ("one-cycle", "constant"):
            raise ValueError(f"schedule must be one-cycle or constant, got {self.schedule!r}")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training gave.

    Attributes:
        metric: what the scores are: ``"accuracy"``, or ``"rmse"``, of which less is better.
        test_score: on the test samples after the last epoch.
        train_seconds: wall time of the training epochs, without the evaluations.
        ms_per_step: median wall time of a step: batch selection, forward, backward, update.
        steps: number of steps.
        epoch_scores: on the test samples after each epoch.
    """

    metric: str
    test_score: float
    train_seconds: float
    ms_per_step: float
    steps: int
    epoch_scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the training stands; ``test_score``, of the task's ``metric``, is given at the end of an epoch only."""

    step: int
    steps: int
    epoch: int
    loss: float
    metric: str
    test_score: float | None


def train(
    network: nn.Module,
    data: Dataset,
    config: TrainConfig,
    report: Callable[[Progress], None] = lambda progress: None,
) -> TrainResult:
    """Train a network for the task of its data, and test it after each epoch. The network is changed in place.

    The whole data set is held as tensors on the device: for networks this small a loader would take longer than
    the steps. The same seed gives the same weights on the same machine, if the network was built after seeding.

    Args:
        network: gives logits ``(batch, classes)`` or values ``(batch, k)`` for features ``(batch, width)``.
        data: as :func:`kronmodel.dataset.prepared` gives it.
        config: how to train.
        report: called after each epoch, and about ten times a second in between.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    task = task_of(data)
    device = torch.device(config.device)
    network.to(device).train()
    x, y, x_test, y_test = (
        torch.from_numpy(array).to(device) for array in (data.x_train, data.y_train, data.x_test, data.y_test)
    )
    steps = config.epochs * math.ceil(len(x) / config.batch_size)
    optimizer, schedule = _optimizer(network, config, steps)
    order = torch.Generator().manual_seed(config.seed)

    times: list[float] = []
    scores: list[float] = []
    seconds, last_report = 0.0, 0.0
    for epoch in range(1, config.epochs + 1):
        began = time.perf_counter()
        for indices in _batches(len(x), config.batch_size, order, device):
            step_began = time.perf_counter()
            loss = task.loss(network(x[indices]), y[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            _synchronize(device)
            now = time.perf_counter()
            times.append(now - step_began)
            if now - last_report > 0.1:
                last_report = now
                report(
                    Progress(
                        step=len(times),
                        steps=steps,
                        epoch=epoch,
                        loss=_finite(loss, epoch),
                        metric=task.metric,
                        test_score=None,
                    )
                )
        seconds += time.perf_counter() - began
        last_loss = _finite(loss, epoch)
        scores.append(task.score(network, x_test, y_test))
        report(
            Progress(
                step=len(times), steps=steps, epoch=epoch, loss=last_loss, metric=task.metric, test_score=scores[-1]
            )
        )
    return TrainResult(
        metric=task.metric,
        test_score=scores[-1],
        train_seconds=seconds,
        ms_per_step=1000 * statistics.median(times),
        steps=steps,
        epoch_scores=tuple(scores),
    )


def _optimizer(
    network: nn.Module, config: TrainConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    rate = config.learning_rate
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    elif config.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=config.weight_decay, fused=True)
    if config.schedule == "constant":
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    # One step more than is taken: the scheduler is stepped after the last step too.
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps + 1)


def _batches(count: int, size: int, order: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Indices ``(size,)`` of each batch of one epoch, in a new random order. Drawn on the CPU: the same anywhere."""
    yield from torch.randperm(count, generator=order).to(device).split(size)


def _finite(loss: Tensor, epoch: int) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"training diverged in epoch {epoch}: the loss is {value}; try a lower learning rate")
    return value


def _synchronize(device: torch.device) -> None:
    """Wait until the device has done its work, so that the clock measures it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
