"""Losses and scores against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, mean_squared_error, r2_score
from torch import nn

from kronmodel.data.registry import load
from kronmodel.training.tasks import Classification, Regression, task_of

RNG = np.random.default_rng(4)


def test_classification_is_cross_entropy_and_accuracy() -> None:
    logits, y = torch.from_numpy(RNG.normal(size=(5000, 3))), torch.from_numpy(RNG.integers(0, 3, 5000))
    task = Classification()
    assert float(task.loss(logits, y)) == pytest.approx(log_loss(y, logits.softmax(1)))
    expected = accuracy_score(y, logits.argmax(1))
    assert task.score(nn.Identity(), logits, y) == pytest.approx(expected)
    metrics = {"accuracy": expected, "balanced_accuracy": balanced_accuracy_score(y, logits.argmax(1))}
    assert task.metrics(nn.Identity(), logits, y) == pytest.approx(metrics)
    assert (task.metric, task.higher_is_better) == ("accuracy", True)


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression_is_the_error_in_the_targets_own_units(outputs: int) -> None:
    mean, std = (RNG.uniform(1, 50, outputs).astype(np.float32) for _ in range(2))
    truth = RNG.normal(size=(5000, outputs)).astype(np.float32)
    guess = (truth + RNG.normal(size=truth.shape) / 2).astype(np.float32)
    x, y = torch.from_numpy(guess), torch.from_numpy(truth)
    task = Regression(std)
    assert float(task.loss(x, y)) == pytest.approx(mean_squared_error(truth, guess), rel=1e-5)
    metrics = task.metrics(nn.Identity(), x, y)
    raw_truth, raw_guess = truth * std + mean, guess * std + mean
    assert metrics["rmse"] == pytest.approx(np.sqrt(mean_squared_error(raw_truth, raw_guess)), rel=1e-5)
    assert metrics["r2"] == pytest.approx(r2_score(raw_truth, raw_guess), rel=1e-5)
    assert (task.metric, task.higher_is_better, list(metrics)) == ("rmse", False, ["rmse", "r2"])


def test_r2_of_a_constant_target_is_left_out() -> None:
    task = Regression(np.ones(1, np.float32))
    assert task.metrics(nn.Identity(), torch.ones(5, 1), torch.zeros(5, 1)) == {"rmse": 1.0}


def test_the_task_is_that_of_the_data() -> None:
    assert isinstance(task_of(load("digits", pytest.fail)), Classification)
