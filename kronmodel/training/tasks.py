"""What a network is trained for and how it is judged: classification or regression."""

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
    """A loss to minimise, and a score on held-out data.

    Attributes:
        name: as in the model card.
        metric: name of the score, as in the model card.
        higher_is_better: of the score.
    """

    name: TaskName
    metric: str
    higher_is_better: bool

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean loss, a scalar, of outputs ``(batch, width)``."""
        ...

    def score(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """The score of a network on prepared samples ``(n, width)``, as ``prepared`` gives them."""
        ...

    def metrics(self, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        """The score under its name, then whatever else is worth reporting."""
        ...


class Classification:
    """Cross-entropy of logits ``(batch, classes)`` and class indices ``(batch,)``; the score is the accuracy."""

    name: TaskName = "classification"
    metric = "accuracy"
    higher_is_better = True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output, target)

    def score(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """Share of samples whose largest logit is at their class index ``(n,)``."""
        right = sum(int((output.argmax(1) == truth).sum()) for output, truth in outputs_and_targets(network, x, y))
        return right / len(x)

    def metrics(self, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        """The accuracy."""
        return {self.metric: self.score(network, x, y)}


class Regression:
    """Mean squared error of standardised values ``(batch, k)``; the score is the RMSE in the target's own units.

    Args:
        std: of each of the ``k`` targets, by which their errors are scaled back.
    """

    name: TaskName = "regression"
    metric = "rmse"
    higher_is_better = False

    def __init__(self, std: NDArray[np.float32]) -> None:
        self.std = torch.from_numpy(std).double()  # (k,)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(output, target)

    def score(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """Root of the mean squared error over samples and outputs."""
        return float((self._errors(network, x, y) * self.std**2).mean().sqrt())

    def metrics(self, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        """RMSE, and R²: the share of the targets' variance that is explained, averaged over outputs.

        R² has no meaning, and is left out, where a target is constant among the samples.
        """
        spread = y.double().cpu().var(0, unbiased=False)  # (k,)
        found = {self.metric: self.score(network, x, y)}
        if bool((spread > 0).all()):
            found["r2"] = float((1 - self._errors(network, x, y) / spread).mean())
        return found

    def _errors(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Mean squared error of each standardised output, ``(k,)``, in float64."""
        squares = [((output - truth).double() ** 2).sum(0) for output, truth in outputs_and_targets(network, x, y)]
        return torch.stack(squares).sum(0).cpu() / len(x)


def task_of(data: Dataset) -> Task:
    """The task that a data set sets."""
    if data.task == "classification":
        return Classification()
    if data.target_scaling is None:
        raise ValueError("a regression data set needs the scaling of its targets, got None")
    return Regression(data.target_scaling.std)
