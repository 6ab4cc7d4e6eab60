"""Optimizers by name, each against its update written out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kronmodel.training.config import TrainConfig
from kronmodel.training.optimizers import make_optimizer

RATE, DECAY, BETA1, BETA2, EPSILON = 0.03, 0.2, 0.9, 0.999, 1e-8


def by_hand(name: str, weights: Tensor, gradients: list[Tensor]) -> Tensor:
    """The weights after one step for each of the gradients, in float64."""
    average = square = torch.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        if name == "sgd":
            weights = weights - RATE * gradient
            continue
        if name == "adamw":
            weights = weights * (1 - RATE * DECAY)
        average = BETA1 * average + (1 - BETA1) * gradient
        square = BETA2 * square + (1 - BETA2) * gradient**2
        corrected = (square / (1 - BETA2**step)).sqrt() + EPSILON
        weights = weights - RATE * (average / (1 - BETA1**step)) / corrected
    return weights


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_updates_are_those_of_the_definition(name: Any) -> None:
    torch.manual_seed(0)
    network = nn.Linear(5, 3, dtype=torch.float64)
    config = TrainConfig(epochs=1, optimizer=name, learning_rate=RATE, schedule="constant", weight_decay=DECAY)
    optimizer, _ = make_optimizer(network, config, 4)
    gradients = [[torch.randn_like(each) for each in network.parameters()] for _ in range(4)]
    before = [each.detach().clone() for each in network.parameters()]
    for step in gradients:
        for parameter, gradient in zip(network.parameters(), step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for index, parameter in enumerate(network.parameters()):
        want = by_hand(name, before[index], [step[index] for step in gradients])
        torch.testing.assert_close(parameter.detach(), want)


def test_sgd_is_plain_under_one_cycle_too() -> None:
    """One-cycle cycles the momentum of an SGD unless it is told not to, which makes another optimizer of it."""
    torch.manual_seed(0)
    network = nn.Linear(5, 3, dtype=torch.float64)
    config = TrainConfig(epochs=1, optimizer="sgd", learning_rate=RATE, schedule="one-cycle")
    optimizer, schedule = make_optimizer(network, config, 6)
    weight = network.weight.detach().clone()
    rates = []
    for _ in range(6):
        gradients = [torch.randn_like(each) for each in network.parameters()]
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        (rate,) = schedule.get_last_lr()
        weight -= rate * gradients[0]
        rates.append(rate)
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(RATE, rel=0.3)
    assert rates[0] < max(rates) > rates[-1]
    torch.testing.assert_close(network.weight.detach(), weight)
