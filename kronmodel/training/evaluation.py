"""Evaluation of a network on many samples, without lasting changes of its training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["evaluation_mode", "outputs_and_targets"]

EVALUATION_BATCH = 2048


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Switch a network to evaluation mode for a ``with`` block, and restore the mode of each module afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def outputs_and_targets(network: nn.Module, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Evaluate a network on all samples, batch by batch.

    Args:
        network: network on the device of the samples; its modes are unchanged afterwards.
        x: inputs ``(n, ...)``.
        y: targets ``(n, ...)``.

    Returns:
        Output and targets of each batch.
    """
    with evaluation_mode(network), torch.inference_mode():
        parts = zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True)
        return [(network(part), target) for part, target in parts]
