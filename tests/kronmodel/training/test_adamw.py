"""Our AdamW beside torch's: the same weights to the last bit, whatever happens on the way."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from kronmodel.training.adamw import AdamW


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, seed: int = 1) -> None:
    torch.manual_seed(seed)
    for _ in range(count):
        loss = model(torch.randn(11, 7)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def pair(**options: Any) -> tuple[tuple[nn.Module, AdamW], tuple[nn.Module, torch.optim.AdamW]]:
    ours, theirs = network(), network()
    groups: list[Any] = [
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters()}] for model in (ours, theirs)
    ]
    options = {"lr": 0.01, "weight_decay": 0.05, "betas": (0.8, 0.99), **options}
    return (ours, AdamW(groups[0], **options)), (theirs, torch.optim.AdamW(groups[1], fused=True, **options))


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("options", [{}, {"maximize": True}, {"amsgrad": True}], ids=str)
def test_the_same_weights_as_torch(options: Any) -> None:
    (ours, own), (theirs, other) = pair(**options)
    for seed in range(3):
        for model, optimizer in ((ours, own), (theirs, other)):
            steps(model, optimizer, 4, seed)
            optimizer.param_groups[0]["lr"] *= 0.5
        assert_same(ours, theirs)
    start = network()
    assert not any(torch.equal(a, b) for a, b in zip(ours.parameters(), start.parameters(), strict=True))


def test_a_state_goes_from_one_to_the_other() -> None:
    (ours, own), (theirs, other) = pair()
    steps(theirs, other, 3)
    ours.load_state_dict(theirs.state_dict())
    own.load_state_dict(copy.deepcopy(other.state_dict()))
    for model, optimizer in ((ours, own), (theirs, other)):
        steps(model, optimizer, 3, seed=2)
    assert_same(ours, theirs)
    other.load_state_dict(copy.deepcopy(own.state_dict()))
    assert_same(ours, theirs)


def test_a_parameter_without_a_gradient_stays() -> None:
    (ours, own), (theirs, other) = pair()
    for model, optimizer in ((ours, own), (theirs, other)):
        steps(model, optimizer, 2)
        frozen = next(model.parameters())
        optimizer.zero_grad()
        model(torch.ones(2, 7)).sum().backward()
        before, frozen.grad = frozen.detach().clone(), None
        optimizer.step()
        assert torch.equal(frozen, before)
        steps(model, optimizer, 2)
    assert_same(ours, theirs)


def test_gradients_are_dropped_or_filled_with_zeros() -> None:
    model = network()
    optimizer = AdamW(model.parameters())
    steps(model, optimizer, 2)
    optimizer.zero_grad(set_to_none=False)
    assert all(each.grad is not None and not each.grad.any() for each in model.parameters())
    optimizer.zero_grad()
    assert all(each.grad is None for each in model.parameters())


def test_a_closure_is_called_and_its_loss_returned() -> None:
    model = network()
    optimizer = AdamW(model.parameters())
    steps(model, optimizer, 2)

    losses: list[float] = []

    def closure() -> float:
        optimizer.zero_grad()
        loss: torch.Tensor = model(torch.ones(1, 7)).square().sum()
        loss.backward()
        losses.append(loss.item())
        return losses[-1]

    assert optimizer.step(closure) == losses[0]
    assert closure() != losses[0]
