"""Time and memory of a training step, Kronecker beside dense and low-rank: `make bench-train`.

A step is forward, backward and update (AdamW, fused). The networks of a row take turns in blocks of random order, after
a warm-up; what is printed is the median and, for the ratio to dense, its 95 % bootstrap interval over blocks. Dense is
torch's Linear; beside it the same with its products by oneDNN, which our layers use, and the same under torch.compile.
All of them profit from freed memory being kept.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.one_dnn import one_dnn
from benchmarks.peers import low_rank
from benchmarks.steps import Step, data, measure, ratio, stepper
from kronmodel.nn.networks import KroneckerConfig, build
from kronmodel.training.device import keep_freed_memory

SLOPE_SIDES = (16, 32, 64, 128)  # widths 256 to 16,384
RANKS = {28: (1, 2, 4), 64: (1, 4)}
ACTIVATIONS = ("gelu", "relu")


def config(side: int, rank: int, activation: str) -> KroneckerConfig:
    shape = (side, side)
    return KroneckerConfig(in_shape=shape, hidden=(shape, shape), out_shape=(2, 5), rank=rank, activation=activation)


def table(sides: list[int], threads: list[int], batches: list[int], activations: list[str]) -> None:
    others = ["oneDNN", "compiled"] if shutil.which("g++") else ["oneDNN"]
    print(
        "| width | batch | threads | activation | rank | dense, ms | Kronecker, ms | dense ÷ Kronecker "
        "| low-rank, ms | "
        + " | ".join(f"dense {other}, ms" for other in others)
        + " | multiply-adds ÷ |\n|"
        + "---|" * (10 + len(others))
    )
    for side, batch, thread, activation in product(sides, batches, threads, activations):
        torch.set_num_threads(thread)
        x, y = data(side, batch)
        dense = build(config(side, 1, activation).dense())
        networks = {rank: build(config(side, rank, activation)) for rank in RANKS[side]}
        steps = {"dense": stepper(dense, x, y), "oneDNN": stepper(one_dnn(dense), x, y)}
        if "compiled" in others:
            torch.compiler.reset()
            compiled: nn.Module = torch.compile(build(config(side, 1, activation).dense()))  # type: ignore[assignment]
            steps["compiled"] = stepper(compiled, x, y)
        for rank, network in networks.items():
            steps[f"kronecker {rank}"] = stepper(network, x, y)
            steps[f"low-rank {rank}"] = stepper(low_rank(config(side, rank, activation), network.parameter_count), x, y)
        times = measure(steps)
        ms = {name: f"{1000 * np.median(each):.2f}" for name, each in times.items()}
        for rank, network in networks.items():
            own = f"kronecker {rank}"
            cells = [ms["dense"], ms[own], ratio(times["dense"], times[own]), ms[f"low-rank {rank}"]]
            cells += [ms[other] for other in others] + [f"{dense.macs_per_sample / network.macs_per_sample:.1f}"]
            print(f"| {side * side} | {batch} | {thread} | {activation} | {rank} | {' | '.join(cells)} |", flush=True)


def slope(threads: int) -> None:
    """Exponent of the time against the width, rank 1, batch 128: 1.5 by the count of multiply-adds, dense 2."""
    torch.set_num_threads(threads)
    steps = {str(side): stepper(build(config(side, 1, "gelu")), *data(side, 128)) for side in SLOPE_SIDES}
    medians = {side: float(np.median(times)) for side, times in measure(steps).items()}
    exponent = np.polyfit([2 * math.log(int(side)) for side in medians], np.log(list(medians.values())), 1)[0]
    listed = ", ".join(f"{int(side) ** 2}: {1000 * each:.2f} ms" for side, each in medians.items())
    print(f"\nKronecker, rank 1, batch 128, {threads} thread(s): time ~ width^{exponent:.2f} ({listed})", flush=True)


def memory(side: int, batch: int, rank: int) -> None:
    """Print by how many MiB ten steps raise this process's peak, above what it has with the network made.

    Rank 0 is dense. Weights, their gradients and the optimizer's two copies are part of it, but for the weights.
    """
    torch.set_num_threads(1)
    x, y = data(side, batch)
    of = config(side, max(1, rank), "gelu")
    step: Step = stepper(build(of if rank else of.dense()), x, y)
    before = _peak_mib()
    for _ in range(10):
        step()
    print(f"{_peak_mib() - before:.1f}")


def _peak_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else math.nan


def memory_table(sides: list[int], batches: list[int]) -> None:
    """Each network in a process of its own: a peak is of a process's whole life."""
    print("\n| width | batch | peak memory of a step above the weights, MiB: dense | rank 1 | rank 2 | rank 4 |")
    print("|---|---|---|---|---|---|")
    for side, batch in product(sides, batches):
        cells = []
        for rank in (0, 1, 2, 4):
            command = [sys.executable, "-m", "benchmarks.train", "--memory", f"{side}", f"{batch}", f"{rank}"]
            cells.append(
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout.strip()
            )
        print(f"| {side * side} | {batch} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", choices=RANKS, default=list(RANKS), help="roots of the widths")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=["gelu", "relu"])
    parser.add_argument("--memory", type=int, nargs=3, metavar=("SIDE", "BATCH", "RANK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    if args.memory:
        memory(*args.memory)
        return
    keep_freed_memory()
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} CPUs", file=sys.stderr)
    table(args.sides, args.threads, args.batches, args.activations)
    slope(args.threads[0])
    memory_table(args.sides, args.batches)


if __name__ == "__main__":
    main()
