"""Time and memory of a training step, Kronecker beside dense and low-rank: `make bench-train`.

A step is forward, backward and update (AdamW, fused). The networks of a row take turns in blocks of random order, after
a warm-up; what is printed is the median and, for the ratio to dense, its 95 % bootstrap interval over blocks.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers import low_rank
from kronmodel.models import KroneckerConfig, build

BLOCKS, STEPS, WARM_UP = 12, 6, 5
SLOPE_SIDES = (16, 32, 64, 128)  # widths 256 to 16,384
Step = Callable[[], None]


def stepper(network: nn.Module, x: Tensor, y: Tensor) -> Step:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(steps: dict[str, Step]) -> dict[str, NDArray[np.float64]]:
    """Seconds ``(BLOCKS, STEPS)`` of each; the first runs of a block are not counted."""
    times: dict[str, list[list[float]]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    for _ in range(BLOCKS):
        for name in random.sample(list(steps), len(steps)):
            steps[name]()  # brings its data into the caches
            block = []
            for _ in range(STEPS):
                began = time.perf_counter()
                steps[name]()
                block.append(time.perf_counter() - began)
            times[name].append(block)
    return {name: np.array(blocks) for name, blocks in times.items()}


def ratio(dense: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, BLOCKS, (500, BLOCKS))
    ratios = np.median(dense[chosen].reshape(500, -1), 1) / np.median(other[chosen].reshape(500, -1), 1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return f"{np.median(dense) / np.median(other):.2f} ({low:.2f} to {high:.2f})"


def config(side: int, rank: int) -> KroneckerConfig:
    shape = (side, side)
    return KroneckerConfig(in_shape=shape, hidden=(shape, shape), out_shape=(2, 5), rank=rank, activation="gelu")


def data(side: int, batch: int) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, side * side), torch.randint(0, 10, (batch,))


def table(threads: list[int], batches: list[int]) -> None:
    print("| width | rank | batch | threads | dense, ms | Kronecker, ms | low-rank, ms | dense ÷ Kronecker | MACs ÷ |")
    print("|---|---|---|---|---|---|---|---|---|")
    for side, ranks in ((28, (1, 2, 4)), (64, (1, 4))):
        for thread, batch in ((thread, batch) for thread in threads for batch in batches):
            torch.set_num_threads(thread)
            x, y = data(side, batch)
            dense = build(config(side, 1).dense())
            kronecker = {rank: build(config(side, rank)) for rank in ranks}
            steps = {"dense": stepper(dense, x, y)}
            for rank, network in kronecker.items():
                steps[f"kronecker {rank}"] = stepper(network, x, y)
                steps[f"low-rank {rank}"] = stepper(low_rank(config(side, rank), network.parameter_count), x, y)
            times = measure(steps)
            for rank, network in kronecker.items():
                own, low = times[f"kronecker {rank}"], times[f"low-rank {rank}"]
                cells = [f"{1000 * np.median(each):.2f}" for each in (times["dense"], own, low)]
                limit = dense.macs_per_sample / network.macs_per_sample
                cells += [ratio(times["dense"], own), f"{limit:.1f}"]
                print(f"| {side * side} | {rank} | {batch} | {thread} | {' | '.join(cells)} |", flush=True)


def slope(threads: int) -> None:
    """Exponent of the time against the width, rank 1, batch 128: 1.5 by the count of multiply-adds, dense 2."""
    torch.set_num_threads(threads)
    medians = []
    for side in SLOPE_SIDES:
        times = measure({"kronecker": stepper(build(config(side, 1)), *data(side, 128))})
        medians.append(float(np.median(times["kronecker"])))
    widths = [math.log(side * side) for side in SLOPE_SIDES]
    exponent = np.polyfit(widths, np.log(medians), 1)[0]
    listed = ", ".join(f"{side * side}: {1000 * each:.2f} ms" for side, each in zip(SLOPE_SIDES, medians, strict=True))
    print(f"\nKronecker, rank 1, batch 128, {threads} thread(s): time ~ width^{exponent:.2f} ({listed})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 1024])
    args = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} CPUs", file=sys.stderr)
    table(args.threads, args.batches)
    slope(args.threads[0])


if __name__ == "__main__":
    main()
