"""Training loop: batches, optimizer steps, evaluation after each epoch, and checks for divergence."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kronmodel.data.dataset import Dataset
from kronmodel.errors import TrainingError
from kronmodel.quantization.aware import QuantizationAwareNetwork
from kronmodel.training.augment import Augmenter
from kronmodel.training.checkpoint import Checkpoint, Resumable
from kronmodel.training.config import TrainConfig
from kronmodel.training.distributed import ALONE, Group
from kronmodel.training.history import Epoch
from kronmodel.training.optimizers import make_optimizer
from kronmodel.training.tasks import Task, task_of

__all__ = [
    "Progress",
    "TrainResult",
    "batches",
    "check_weights",
    "finite",
    "hold_out",
    "mean_loss",
    "train",
]

ABSURD_FACTOR = 10.0  # times the loss of a constant prediction


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Result of a training: final score, times, and the history of the epochs.

    Attributes:
        metric: name of the score: ``"accuracy"``, or ``"rmse"``, for which lower is better.
        test_score: score on the test samples, with the final weights.
        train_seconds: wall time of the training epochs, without the evaluations.
        ms_per_step: median over the epochs of the median wall time of a step, in milliseconds: batch selection, forward
            pass, backward pass and update.
        steps: number of optimizer steps.
        history: loss and scores of each epoch.
        best_epoch: epoch of the final weights: the best on the validation split; without a validation split, the last.
    """

    metric: str
    test_score: float
    train_seconds: float
    ms_per_step: float
    steps: int
    history: tuple[Epoch, ...]
    best_epoch: int

    @property
    def epoch_scores(self) -> tuple[float, ...]:
        """Test scores after each epoch."""
        return tuple(epoch.test for epoch in self.history)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a running training; ``test_score``, in the task's ``metric``, is set only at the end of an epoch."""

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
    *,
    log: Callable[[Epoch], None] = lambda epoch: None,
    checkpoint: Checkpoint | None = None,
    group: Group = ALONE,
    task: Task | None = None,
) -> TrainResult:
    """Train a network in place on a data set, with an evaluation on the test samples after each epoch.

    The whole data set is held as tensors on the device, because for networks this small a data loader would take
    longer than the steps. The same seed gives the same weights on the same machine if the network was built after
    seeding, even if the training is interrupted and resumed.

    Args:
        network: returns logits ``(batch, classes)`` or values ``(batch, k)`` for features ``(batch, width)``.
        data: data set, preprocessed by :func:`kronmodel.data.dataset.prepared`.
        config: configuration of the training.
        report: called after each epoch, and about ten times a second in between.
        log: called after each epoch; when resuming, first for each of the earlier epochs.
        checkpoint: checkpoint to resume from and to write after each epoch.
        group: processes that train together; each of them calls this function.
        task: loss and score, if they are not those of the data set's task.

    Raises:
        TrainingError: the loss or the weights are no longer finite.
        CheckpointError: the checkpoint can't be read or written.
        ValueError: there are too few samples for the validation split, or augmentation is configured for data that are
            not images.
    """
    task = task_of(data) if task is None else task
    device = torch.device(config.device)
    network.to(device).train()
    x, y, x_test, y_test = (
        torch.from_numpy(array).to(device) for array in (data.x_train, data.y_train, data.x_test, data.y_test)
    )
    x, y, x_held, y_held = hold_out(x, y, config.validation_share, config.seed)
    steps_an_epoch = math.ceil(len(x) / config.batch_size)
    steps = config.epochs * steps_an_epoch
    optimizer, schedule = make_optimizer(network, config, steps)
    order = torch.Generator().manual_seed(config.seed)
    images = config.augmentation
    augmenter = Augmenter(images, data.image_shape, x.shape[1], device) if images else None

    def change(rows: Tensor, count: int) -> Tensor:
        if augmenter is None:
            return rows
        maps = augmenter.draw(count, order)  # drawn for the whole batch, identical in every process
        return augmenter.change(rows, group.part_of(maps)[0])

    forward: Callable[[Tensor], Tensor] = group.parallel(network)
    if config.compile:
        forward = torch.compile(forward, mode="reduce-overhead", dynamic=False)
    low = config.precision == "bfloat16"
    precision = torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext()

    saved = Resumable(network, optimizer, schedule, order)
    history = saved.resume(checkpoint, config.learning_rate, group)
    history.higher_is_better = task.higher_is_better
    quantized = network if isinstance(network, QuantizationAwareNetwork) else None
    if quantized is not None:
        history.first = quantized.config.first_full_epoch(config.epochs)
    if checkpoint is not None and history.epochs and _is_absurd(history.epochs[-1].loss, data):
        checkpoint.epoch = 0  # so that no message recommends to resume it again
    for epoch in history.epochs:
        log(epoch)
    while len(history.epochs) < config.epochs and not history.patience_exhausted(config.patience):
        number = len(history.epochs) + 1
        if quantized is not None:
            quantized.start_epoch(number, config.epochs, x)
        if group.size > 1:  # dropout draws other numbers in each process, but the same ones after a resumption
            torch.manual_seed(config.seed + 1_000_003 * number + group.rank)
        began = time.perf_counter()
        losses, times = _steps(
            forward,
            x,
            y,
            batches(len(x), config.batch_size, order, device),
            (optimizer, schedule),
            task=task,
            group=group,
            precision=precision,
            change=change,
            report=lambda step, loss, number=number: report(  # type: ignore[misc]  # binds the current number
                Progress(
                    step=(number - 1) * steps_an_epoch + step,
                    steps=steps,
                    epoch=number,
                    loss=finite(loss, number),
                    metric=task.metric,
                    test_score=None,
                )
            ),
        )
        seconds = time.perf_counter() - began + (history.epochs[-1].seconds if history.epochs else 0.0)
        loss = finite(float(group.mean(mean_loss(losses, len(x), config.batch_size))), number)
        check_weights(network, number)
        # The main process evaluates and sends the scores to the others, so that all make the same decisions.
        done = group.from_main(
            Epoch(
                epoch=number,
                seconds=seconds,
                ms_per_step=1000 * statistics.median(times),
                loss=loss,
                validation=task.score(network, x_held, y_held) if len(x_held) else None,
                test=task.score(network, x_test, y_test),
            )
            if group.is_main
            else None
        )
        history.add(done, network)
        if checkpoint is not None and not _is_absurd(loss, data):  # an earlier checkpoint is worth more
            checkpoint.save(number, lambda: saved.state(history, config.learning_rate))
        log(done)
        step = number * steps_an_epoch
        report(Progress(step=step, steps=steps, epoch=number, loss=loss, metric=task.metric, test_score=done.test))
    if history.best_weights is not None:
        network.load_state_dict(history.best_weights)
    return TrainResult(
        metric=task.metric,
        test_score=history.best.test,
        train_seconds=history.epochs[-1].seconds,
        ms_per_step=history.ms_per_step,
        steps=len(history.epochs) * steps_an_epoch,
        history=tuple(history.epochs),
        best_epoch=history.best.epoch,
    )


def _steps(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    order: Iterable[Tensor],
    updates: tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler],
    *,
    task: Task,
    group: Group,
    precision: AbstractContextManager[Any],
    change: Callable[[Tensor, int], Tensor],
    report: Callable[[int, float], None],
) -> tuple[list[Tensor], list[float]]:
    """Run the optimizer steps of one epoch.

    Args:
        forward: network as it is called in training.
        x: all training inputs.
        y: all training targets.
        order: indices of the samples of each batch.
        updates: optimizer and learning-rate schedule.
        task: computes the loss.
        group: the processes among which a batch is divided.
        precision: context of the forward pass.
        change: augments this process's samples of a batch, given the size of the whole batch.
        report: called about ten times a second with the number of steps and the last loss; the device is synchronised
            only for these calls.

    Returns:
        The loss of each step, on the device, and the seconds that each took.
    """
    optimizer, schedule = updates
    times: list[float] = []
    losses: list[Tensor] = []
    last_report = 0.0
    for indices in order:
        began = time.perf_counter()
        mine, weight = group.part_of(indices) if group.size > 1 else (indices, 1.0)
        rows = change(x[mine], len(indices))
        with precision:
            output = forward(rows)
        loss = task.loss(output.float(), y[mine])
        if weight != 1.0:
            loss = loss * weight
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        _synchronize(x.device)
        now = time.perf_counter()
        times.append(now - began)
        if now - last_report > 0.1:
            last_report = now
            report(len(times), float(losses[-1]))
    return losses, times


def _synchronize(device: torch.device) -> None:
    """Wait until a device has finished its queued work, so that measured times include it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def batches(count: int, size: int, order: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Yield the sample indices ``(size,)`` of each batch of an epoch, in a new random order.

    The order is drawn on the CPU, so that it is the same for every device.
    """
    yield from torch.randperm(count, generator=order).to(device).split(size)


def hold_out(x: Tensor, y: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split samples at random into a training and a validation set, determined by a seed.

    Returns:
        Training inputs and targets, then validation inputs and targets.

    Raises:
        ValueError: one of the two sets would be empty.
    """
    if not fraction:
        return x, y, x[:0], y[:0]
    count = round(len(x) * fraction)
    if not 0 < count < len(x):
        raise ValueError(
            f"validation_share {fraction} of {len(x)} samples is {count}, expected at least 1 and fewer than all"
        )
    # A separate generator, so that a validation split does not change the random numbers of the batches.
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    held, rest = drawn[:count], drawn[count:].sort().values
    return x[rest], y[rest], x[held], y[held]


def mean_loss(losses: list[Tensor], samples: int, batch_size: int) -> Tensor:
    """Average the mean losses of an epoch's batches over its samples; the last batch may be smaller."""
    sizes = torch.full((len(losses),), float(batch_size), dtype=torch.float64, device=losses[0].device)
    sizes[-1] = samples - batch_size * (len(losses) - 1)
    return (torch.stack(losses).double() * sizes).sum() / samples


def _is_absurd(loss: float, data: Dataset) -> bool:
    """Tell whether a mean loss is far above that of a constant prediction, as of a training that diverges."""
    constant = 1.0 if data.task == "regression" else max(1.0, math.log(len(data.labels)))
    return not loss <= ABSURD_FACTOR * constant


def finite(loss: float, epoch: int) -> float:
    """Check that a loss is finite, and return it; raise a ``TrainingError`` otherwise."""
    if not math.isfinite(loss):
        raise TrainingError(f"training diverged in epoch {epoch}: the loss is {loss}; try a lower learning rate")
    return loss


def check_weights(network: nn.Module, epoch: int) -> None:
    """Raise a ``TrainingError`` if a weight is not finite, which a step can cause even after a finite loss."""
    if not torch.stack([parameter.detach().isfinite().all() for parameter in network.parameters()]).all():
        raise TrainingError(
            f"training diverged in epoch {epoch}: the weights are no longer finite; try a lower learning rate"
        )
