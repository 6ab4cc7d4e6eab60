"""AdamW with fewer operations around torch's kernel: the same values, and the same states, to the bit."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kronmodel.training import adamw
from kronmodel.training.adamw import NEWEST_TORCH, AdamW

Optimizer = torch.optim.AdamW


def torch_adamw(params: Any, **options: Any) -> Optimizer:
    return torch.optim.AdamW(params, fused=True, **options)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Linear(3, 2))


def groups(model: nn.Sequential) -> list[dict[str, Any]]:
    return [
        {"params": list(model[0].parameters()), "lr": 0.03, "weight_decay": 0.2},
        {"params": [*model[2].parameters(), *model[3].parameters()], "betas": (0.8, 0.95)},
    ]


def run(make: Callable[..., Optimizer], change: Callable[[int, nn.Sequential, Optimizer], Optimizer]) -> Any:
    """Train for nine steps; ``change`` is called before each, and may replace the optimizer."""
    model = network()
    optimizer = make(groups(model), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.03, 0.01], total_steps=20)
    for step in range(9):
        optimizer.zero_grad()
        optimizer = change(step, model, optimizer)
        model(torch.full((4, 5), step + 1.0)).square().sum().backward()
        optimizer.step()
        if optimizer is schedule.optimizer and len(optimizer.param_groups) == 2:  # a schedule takes no further group
            schedule.step()
    return [each.detach().clone() for each in model.parameters()], optimizer.state_dict()


def unchanged(_: int, __: nn.Sequential, optimizer: Optimizer) -> Optimizer:
    return optimizer


def freezes(step: int, model: nn.Sequential, optimizer: Optimizer) -> Optimizer:
    for parameter in model[2].parameters():
        parameter.requires_grad_(not 3 <= step < 5)
    return optimizer


def hooks(step: int, _: nn.Sequential, optimizer: Optimizer) -> Optimizer:
    if step == 4:
        optimizer.register_step_pre_hook(lambda *_: None)
    return optimizer


def saves_and_loads(step: int, model: nn.Sequential, optimizer: Optimizer) -> Optimizer:
    if step != 5:
        return optimizer
    memory = io.BytesIO()
    torch.save(optimizer.state_dict(), memory)
    memory.seek(0)
    new = type(optimizer)(groups(model), lr=0.5)
    new.load_state_dict(torch.load(memory))
    return new


def is_copied(step: int, model: nn.Sequential, optimizer: Optimizer) -> Optimizer:
    if step == 5:
        copy.deepcopy(optimizer).state_dict()
    return optimizer


def gets_another_group(step: int, model: nn.Sequential, optimizer: Optimizer) -> Optimizer:
    if step == 5:
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.1})
    return optimizer


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict | list | tuple):
        assert len(one) == len(other)
        pairs = [(one[key], other[key]) for key in one] if isinstance(one, dict) else zip(one, other, strict=True)
        for pair in pairs:
            assert_same(*pair)
    else:
        assert one == other


@pytest.mark.parametrize("change", [unchanged, freezes, hooks, saves_and_loads, is_copied, gets_another_group])
def test_values_and_states_are_torchs(change: Any) -> None:
    ours, torchs = run(AdamW, change), run(torch_adamw, change)
    assert_same(ours, torchs)


def test_torchs_adamw_goes_on_with_the_state_and_the_other_way_round() -> None:
    results = []
    for before, after in ((AdamW, torch_adamw), (torch_adamw, AdamW), (torch_adamw, torch_adamw)):

        def replace(step: int, model: nn.Sequential, optimizer: Optimizer, after: Any = after) -> Optimizer:
            if step != 4:
                return optimizer
            new: Optimizer = after(groups(model), lr=0.01)
            new.load_state_dict(optimizer.state_dict())
            return new

        results.append(run(before, replace))
    assert_same(results[0], results[2])
    assert_same(results[1], results[2])


def test_hooks_and_closures_are_called() -> None:
    model = network()
    optimizer = AdamW(model.parameters(), lr=0.01)
    called: list[str] = []

    def closure() -> float:
        optimizer.zero_grad()
        loss: Tensor = model(torch.ones(4, 5)).square().sum()
        loss.backward()
        return float(loss.detach())

    first, second = optimizer.step(closure), optimizer.step(closure)
    assert first is not None and second is not None  # noqa: PT018
    assert second < first
    optimizer.step()
    optimizer.register_step_post_hook(lambda *_: called.append("hook"))
    optimizer.step()
    assert called == ["hook"]


def count_torchs_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the groups that torch's own step updates: it adds 1 to all their counters at once."""
    counted: list[int] = []
    add = torch._foreach_add_

    def counting(*arguments: Any) -> None:
        counted.append(1)
        add(*arguments)

    monkeypatch.setattr(torch, "_foreach_add_", counting)
    return counted


def test_most_steps_leave_out_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = count_torchs_steps(monkeypatch)
    run(AdamW, unchanged)
    assert len(counted) == 2  # one for each group, in the first step


def test_steps_are_torchs_own_with_an_untested_version(monkeypatch: pytest.MonkeyPatch) -> None:
    want = run(torch_adamw, unchanged)
    untested = f"{NEWEST_TORCH[0]}.{NEWEST_TORCH[1] + 1}.0a0+cpu"
    monkeypatch.setattr(torch, "__version__", untested)
    monkeypatch.setattr(adamw, "_kernel", adamw._find_kernel())
    counted = count_torchs_steps(monkeypatch)
    assert_same(run(AdamW, unchanged), want)
    assert len(counted) == 18


def test_this_version_of_torch_is_tested_and_its_kernel_has_these_arguments() -> None:
    version = tuple(map(int, str(torch.__version__).split(".")[:2]))
    assert version <= NEWEST_TORCH, f"raise NEWEST_TORCH to {version} if all tests of this file pass with it"
    assert str(torch.ops.aten._fused_adamw_.default._schema) == (
        "aten::_fused_adamw_(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] exp_avgs, Tensor(d!)[] exp_avg_sqs, "
        "Tensor(e!)[] max_exp_avg_sqs, Tensor[] state_steps, *, float lr, float beta1, float beta2, "
        "float weight_decay, float eps, bool amsgrad, bool maximize, Tensor? grad_scale=None, "
        "Tensor? found_inf=None) -> ()"
    )
