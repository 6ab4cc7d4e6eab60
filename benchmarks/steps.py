"""How a training step is timed: forward, backward and update, several networks in turns. Needs torch and numpy."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BLOCKS", "data", "measure", "ratio", "stepper"]

BLOCKS, STEPS, WARM_UP = 12, 6, 5
Step = Callable[[], None]
Times = NDArray[np.float64]


def data(side: int, batch: int) -> tuple[Tensor, Tensor]:
    """Random samples of ``side * side`` features, of ten classes."""
    return torch.rand(batch, side * side), torch.randint(0, 10, (batch,))


def stepper(network: nn.Module, x: Tensor, y: Tensor) -> Step:
    """One step of that network: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(
    steps: dict[str, Step], block_seconds: float = 0.0, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Times]:
    """Seconds ``(BLOCKS, n)`` of each, in blocks of random order; the first run of a block is not counted.

    There are as many runs in a block as take ``block_seconds``, and at least STEPS.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in steps}
    runs = {}
    for name, step in steps.items():
        began = clock()
        for _ in range(WARM_UP):
            step()
        runs[name] = max(STEPS, int(WARM_UP * block_seconds / (clock() - began)))
    for _ in range(BLOCKS):
        for name in random.sample(list(steps), len(steps)):
            steps[name]()  # brings its data into the caches
            block = []
            for _ in range(runs[name]):
                began = clock()
                steps[name]()
                block.append(clock() - began)
            times[name].append(block)
    return {name: np.array(blocks) for name, blocks in times.items()}


def ratio(dense: Times, other: Times) -> str:
    """How many times as long dense takes, by the medians, with its 95 % bootstrap interval over the blocks."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, BLOCKS, (500, BLOCKS))
    ratios = np.median(dense[chosen].reshape(500, -1), 1) / np.median(other[chosen].reshape(500, -1), 1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return f"{np.median(dense) / np.median(other):.2f} ({low:.2f} to {high:.2f})"
