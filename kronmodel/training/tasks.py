"""Training tasks: classification and regression, each with its loss and metrics."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kronmodel.data.dataset import Dataset, TaskName
from kronmodel.training.evaluation import outputs_and_targets

__all__ = ["Classification", "Regression", "Task", "task_of"]


class Task(Protocol):
    """Protocol of a training task: a loss to minimise, and a score on held-out data.

    Attributes:
        name: name of the task, as in the model card.
        metric: name of the score, as in the model card.
        higher_is_better: whether a higher score is better.
    """

    name: TaskName
    metric: str
    higher_is_better: bool

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss, a scalar, of outputs ``(batch, width)``."""
        ...

    def score(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """Score a network on preprocessed samples ``(n, width)``; its modes are unchanged afterwards."""
        ...

    def metrics(self, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        """Compute the score and further metrics, by name."""
        ...


class Classification:
    """Classification: cross-entropy of logits ``(batch, classes)`` and indices ``(batch,)``, scored by accuracy."""

    name: TaskName = "classification"
    metric = "accuracy"
    higher_is_better = True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean cross-entropy of logits and class indices."""
        return F.cross_entropy(output, target)

    def score(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """Compute the fraction of samples whose largest logit is that of their class ``(n,)``."""
        right = sum(int((output.argmax(1) == truth).sum()) for output, truth in outputs_and_targets(network, x, y))
        return right / len(x)

    def metrics(self, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        """Compute the accuracy, and the mean of the classes' own accuracies, which rare classes count as much in."""
        pairs = [(output.argmax(1) == truth, truth) for output, truth in outputs_and_targets(network, x, y)]
        right, truth = (torch.cat(parts).cpu() for parts in zip(*pairs, strict=True))
        rows = truth.bincount()
        recall = truth.bincount(weights=right.double())[rows > 0] / rows[rows > 0]
        return {self.metric: float(right.double().mean()), "balanced_accuracy": float(recall.mean())}


class Regression:
    """Regression: mean squared error of standardised values ``(batch, k)``, scored by the RMSE in the targets' units.

    Args:
        std: standard deviation of each of the ``k`` targets, which converts errors back to the targets' units.
    """

    name: TaskName = "regression"
    metric = "rmse"
    higher_is_better = False

    def __init__(self, std: NDArray[np.float32]) -> None:
        self.std = torch.from_numpy(std).double()  # (k,)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean squared error of standardised values."""
        return F.mse_loss(output, target)

    def score(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """Compute the root of the mean squared error over samples and outputs, in the targets' units."""
        return float((self._errors(network, x, y) * self.std**2).mean().sqrt())

    def metrics(self, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        """Compute the RMSE, and R²: the explained fraction of the targets' variance, averaged over the outputs.

        R² is undefined, and left out, if a target is constant over the samples.
        """
        spread = y.double().cpu().var(0, unbiased=False)  # (k,)
        found = {self.metric: self.score(network, x, y)}
        if bool((spread > 0).all()):
            found["r2"] = float((1 - self._errors(network, x, y) / spread).mean())
        return found

    def _errors(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Compute the mean squared error of each standardised output, ``(k,)``, in float64."""
        squares = [((output - truth).double() ** 2).sum(0) for output, truth in outputs_and_targets(network, x, y)]
        return torch.stack(squares).sum(0).cpu() / len(x)


def task_of(data: Dataset) -> Task:
    """Create the classification or regression task of a data set."""
    if data.task == "classification":
        return Classification()
    if data.target_scaling is None:
        raise ValueError("a regression data set needs the scaling of its targets, got None")
    return Regression(data.target_scaling.std)
