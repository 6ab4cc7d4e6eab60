"""Distillation: trains a compressed network to give the outputs of the original, with or without labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kronmodel.data.dataset import Dataset, Scaling, prepared
from kronmodel.errors import DataError
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import TrainConfig
from kronmodel.training.device import check_device, seeded
from kronmodel.training.evaluation import evaluation_mode
from kronmodel.training.history import Epoch
from kronmodel.training.loop import Progress, TrainResult, train
from kronmodel.training.tasks import Task, task_of

__all__ = ["DISTILLATION", "distill"]

DISTILLATION = TrainConfig(epochs=1, batch_size=32, learning_rate=1e-3, weight_decay=0.0)
"""Default training of a distillation."""

TEST_FRACTION = 0.1  # of unlabelled inputs, to score the agreement with the teacher


def distill(
    student: nn.Module,
    teacher: nn.Module,
    data: Dataset | Tensor | NDArray[np.float32],
    config: TrainConfig = DISTILLATION,
    *,
    label_weight: float = 0.0,
    temperature: float = 4.0,
    report: Callable[[Progress], None] = lambda progress: None,
    log: Callable[[Epoch], None] = lambda epoch: None,
    checkpoint: Checkpoint | None = None,
) -> TrainResult:
    """Train a student in place to give the teacher's outputs.

    Everything that training has applies: augmentation, validation split, early stopping, precision, checkpoints and
    resumption. Torch's random state is unchanged, and so are the modes and the weights of the teacher.

    Args:
        student: compressed network: returns logits ``(batch, classes)`` or values ``(batch, k)``.
        teacher: original network, with outputs of the same shape.
        data: data set with raw features, whose labels serve the score and, with ``label_weight``, the loss; or inputs
            ``(n, width)`` of the network without labels, of which the last tenth scores the agreement with the teacher.
        config: configuration of the training.
        label_weight: weight of the labels' loss between 0 (teacher alone) and 1 (labels alone).
        temperature: divides the logits of a classification before they are compared.
        report: called after each epoch, and about ten times a second in between.
        log: called after each epoch.
        checkpoint: checkpoint to resume from and to write after each epoch.

    Returns:
        Scores, times and history, as of a training; without labels the score is the agreement with the teacher.

    Raises:
        DataError: the inputs are not an array ``(n, width)`` of at least ten samples.
        TrainingError: the loss or the weights are no longer finite.
        ValueError: a value is out of range.
    """
    if not 0 <= label_weight <= 1:
        raise ValueError(f"label_weight must be between 0 and 1, got {label_weight!r}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature!r}")
    check_device(config.device)
    device = torch.device(config.device)
    student.to(device)
    home = next((parameter.device for parameter in teacher.parameters()), device)
    teacher.to(device)
    try:
        if isinstance(data, Dataset):
            width = getattr(student, "in_features", data.features)
            ready = prepared(data, width if isinstance(width, int) else data.features)
        else:
            if label_weight:
                raise ValueError("label_weight needs labels: pass a Dataset, got inputs alone")
            ready = _unlabelled(data, teacher, device)
        task = _Distillation(task_of(ready), label_weight, temperature)
        with seeded(config.seed, config.device):
            return train(_Pair(student, teacher), ready, config, report, log=log, checkpoint=checkpoint, task=task)
    finally:
        teacher.to(home)


class _Pair(nn.Module):
    """Student and teacher: in training mode ``(2, batch, width)``, the outputs of both; else the student's alone."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student = student
        self._teacher = [teacher]  # in a list, so that it is neither trained nor saved with the student

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.student(x)
        if not self.training:
            return y
        with torch.no_grad(), evaluation_mode(self._teacher[0]):
            target: Tensor = self._teacher[0](x).to(y.dtype)
        return torch.stack([y, target])


class _Distillation:
    """Task of a distillation: the teacher's outputs as targets, mixed with the loss of the data's own task."""

    def __init__(self, task: Task, label_weight: float, temperature: float) -> None:
        self.name, self.metric, self.higher_is_better = task.name, task.metric, task.higher_is_better
        self._task, self._label_weight, self._temperature = task, label_weight, temperature

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss of the outputs of both networks, ``(2, batch, width)``."""
        student, teacher = output
        if self.name == "classification":
            # The squared temperature keeps the gradients' size.
            scale = self._temperature
            soft = F.kl_div(
                F.log_softmax(student / scale, 1), F.log_softmax(teacher / scale, 1), reduction="batchmean",
                log_target=True,
            ) * scale**2  # fmt: skip
        else:
            soft = F.mse_loss(student, teacher)
        if not self._label_weight:
            return soft
        return (1 - self._label_weight) * soft + self._label_weight * self._task.loss(student, target)

    def score(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """Score the student on the data's own task."""
        return self._task.score(network, x, y)

    def metrics(self, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        """Compute the metrics of the data's own task."""
        return self._task.metrics(network, x, y)


def _unlabelled(data: Any, teacher: nn.Module, device: torch.device) -> Dataset:
    """Return a data set of inputs with the teacher's outputs as targets."""
    x = np.asarray(data.detach().cpu() if isinstance(data, Tensor) else data, np.float32)
    if x.ndim != 2 or len(x) < 10:
        raise DataError(f"inputs without labels must be an array (n, width) of at least 10 samples, got {x.shape}")
    with evaluation_mode(teacher), torch.inference_mode():
        y = torch.cat([teacher(part).float().cpu() for part in torch.from_numpy(x).to(device).split(1024)]).numpy()
    cut = len(x) - max(int(TEST_FRACTION * len(x)), 1)
    is_classification = y.shape[1] > 1
    targets: Any = y.argmax(1) if is_classification else y
    ones = np.ones(y.shape[1], np.float32)
    return Dataset(
        name="unlabelled inputs",
        x_train=x[:cut],
        y_train=targets[:cut],
        x_test=x[cut:],
        y_test=targets[cut:],
        task="classification" if is_classification else "regression",
        labels=tuple(map(str, range(y.shape[1]))) if is_classification else (),
        target_scaling=None if is_classification else Scaling(0 * ones, ones, ones),
        preprocessing="as given",
        origin="the caller",
    )
