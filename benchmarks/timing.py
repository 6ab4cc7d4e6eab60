"""Interleaved timing of operations, and the training step that two benchmarks time; needs torch and numpy only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Operation", "Times", "format_ratio", "random_batch", "time_interleaved", "training_step"]

BLOCKS, MIN_CALLS, WARM_UP_CALLS = 12, 6, 5
Operation = Callable[[], None]
Times = NDArray[np.float64]  # (BLOCKS, calls), seconds


def random_batch(side: int, batch: int) -> tuple[Tensor, Tensor]:
    """Random samples ``(batch, side * side)`` and their labels, one of ten classes each."""
    return torch.rand(batch, side * side), torch.randint(0, 10, (batch,))


def torch_adamw(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """AdamW of torch by its fused kernel."""
    return torch.optim.AdamW(parameters, lr=lr, fused=True)


def training_step(
    network: nn.Module, x: Tensor, y: Tensor, adamw: Callable[..., torch.optim.Optimizer] = torch_adamw
) -> Operation:
    """Training step of a network on one batch: forward, backward and an update by AdamW."""
    optimizer = adamw(network.parameters(), lr=1e-4)

    def step() -> None:
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def time_interleaved(
    operations: dict[str, Operation], block_seconds: float = 0.0, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Times]:
    """Time operations in alternating blocks of random order, after a warm-up.

    Each block starts with one call that is not timed.

    Args:
        operations: by name.
        block_seconds: target duration of a block; a block has at least ``MIN_CALLS`` timed calls.
        clock: returns seconds.

    Returns:
        Seconds of each call ``(BLOCKS, calls)``, by name.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in operations}
    calls = {}
    for name, operation in operations.items():
        started = clock()
        for _ in range(WARM_UP_CALLS):
            operation()
        calls[name] = max(MIN_CALLS, int(WARM_UP_CALLS * block_seconds / (clock() - started)))
    for _ in range(BLOCKS):
        for name in random.sample(list(operations), len(operations)):
            operations[name]()  # loads the operation's data into the CPU caches
            block = []
            for _ in range(calls[name]):
                started = clock()
                operations[name]()
                block.append(clock() - started)
            times[name].append(block)
    return {name: np.array(blocks) for name, blocks in times.items()}


def format_ratio(dense: Times, other: Times) -> str:
    """Format the ratio of two median times, dense ÷ other, with its 95 % bootstrap interval over blocks."""
    rng = np.random.default_rng(0)
    resampled = rng.integers(0, BLOCKS, (500, BLOCKS))
    ratios = np.median(dense[resampled].reshape(500, -1), 1) / np.median(other[resampled].reshape(500, -1), 1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return f"{np.median(dense) / np.median(other):.2f} ({low:.2f} to {high:.2f})"
