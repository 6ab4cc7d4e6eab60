"""End-to-end tuning of a compressed network on the samples that it was fitted to, without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from kronmodel.compress.samples import Batch
from kronmodel.training.evaluation import evaluation_mode

__all__ = ["PATIENCE", "tune"]

CHECK_EVERY = 20  # steps between two measurements of the held-out error
PATIENCE = 8  # measurements without a better one
LEARNING_RATE = 3e-3  # largest, relative to the root mean square of a parameter
SHARES = (1.0, 0.1)  # of the learning rate that are tried until one lowers the held-out error
RATE_OF_ERROR = 1e-2  # learning rate relative to the network's error: small errors need small steps


def tune(
    student: nn.Module,
    teacher: nn.Module,
    modules: Sequence[nn.Module],
    batches: Sequence[Batch],
    held_out_error: Callable[[], float],
    *,
    steps: int,
    patience: int = PATIENCE,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> int:
    """Train the replaced layers so that the network's outputs are nearer to the original's, and keep the best state.

    Only weights change, by Adam with a learning rate that falls to zero; both networks are in evaluation mode.
    Parameters that were frozen are frozen afterwards.

    Args:
        student: compressed network.
        teacher: original network.
        modules: replaced layers of the student, of which all parameters are trained.
        batches: samples to train on, without held-out ones.
        held_out_error: measures the student's error on held-out samples.
        steps: most optimizer steps.
        patience: measurements of the held-out error after which the tuning starts again with smaller steps, if none was
            better.
        progress: called with the number of each step, and of all.

    Returns:
        The step whose weights are kept; 0 if the tuning didn't lower the error.
    """
    parameters = list({id(each): each for module in modules for each in module.parameters()}.values())
    if not parameters or any(each.dtype not in (torch.float32, torch.float64) for each in parameters):
        return 0  # steps this small are lost in half precision
    frozen = [not each.requires_grad for each in parameters]
    kept, best, best_step = [each.detach().clone() for each in parameters], held_out_error(), 0
    others = [each for each in student.parameters() if each.requires_grad and not _among(each, parameters)]
    for each in parameters:
        each.requires_grad_(True)
    for each in others:
        each.requires_grad_(False)
    try:
        with evaluation_mode(student), evaluation_mode(teacher):
            with torch.no_grad():
                targets = [_outputs(teacher, batch) for batch in batches]
            scale = _energies(targets)
            first = step = 0
            for share in SHARES:
                learning_rate = share * min(LEARNING_RATE, RATE_OF_ERROR * best)
                optimizer = _Optimizer(parameters, learning_rate, steps - first)
                for step in range(first + 1, steps + 1):
                    progress(step, steps)
                    index = (step - 1) % len(batches)
                    optimizer.step(_loss(_outputs(student, batches[index]), targets[index], scale))
                    if step % CHECK_EVERY == 0 or step == steps:
                        error = held_out_error()
                        if error < best:
                            kept, best, best_step = [each.detach().clone() for each in parameters], error, step
                        elif step - max(best_step, first) >= (PATIENCE if best_step else patience) * CHECK_EVERY:
                            break
                if best_step:
                    break
                first = step  # no step was better: smaller ones from the start
                _restore(parameters, kept)
    finally:
        _restore(parameters, kept)
        for each, was_frozen in zip(parameters, frozen, strict=True):
            each.grad = None
            each.requires_grad_(not was_frozen)
        for each in others:
            each.requires_grad_(True)
    return best_step


class _Optimizer:
    """Adam with steps relative to each parameter's size, that grow for 20 steps and then fall to zero."""

    def __init__(self, parameters: Sequence[nn.Parameter], learning_rate: float, steps: int) -> None:
        rates = [{"params": [each], "lr": learning_rate * _size(each)} for each in parameters]
        self._adam = torch.optim.Adam(rates, betas=(0.9, 0.99))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))
        )

    def step(self, loss: Tensor) -> None:
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        self._schedule.step()


def _restore(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for each, before in zip(parameters, values, strict=True):
            each.copy_(before)


def _among(parameter: Tensor, parameters: Sequence[Tensor]) -> bool:
    return any(each is parameter for each in parameters)


def _size(parameter: Tensor) -> float:
    """Return the root mean square of a parameter, which its steps are relative to."""
    return max(float(parameter.detach().double().square().mean().sqrt()), 1e-4)


def _outputs(network: nn.Module, batch: Batch) -> list[Tensor]:
    leaves = _pytree.tree_leaves(network(*batch[0], **batch[1]))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim()]


def _energies(targets: Sequence[Sequence[Tensor]]) -> list[float]:
    """Return the variance of each output over the samples."""
    return [
        max(float(torch.stack([_variance(target) for target in each]).mean()), 1e-12)
        for each in zip(*targets, strict=True)
    ]


def _variance(target: Tensor) -> Tensor:
    return (target - target.mean(0, keepdim=True)).double().square().mean()


def _loss(outputs: Sequence[Tensor], targets: Sequence[Tensor], scale: Sequence[float]) -> Tensor:
    """Return the mean squared change of the outputs, relative to their variance."""
    parts = [
        (output - target).float().square().mean() / energy
        for output, target, energy in zip(outputs, targets, scale, strict=True)
    ]
    return torch.stack(parts).sum()
