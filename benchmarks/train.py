"""Time and memory of a training step of Kronecker, dense and low-rank networks: `make bench-train`.

A step is forward, backward and update (AdamW as in `kronmodel train`, for all networks). The networks of a row are
timed in alternating blocks of random order, after a warm-up. Each row has median step times, and the ratio
dense ÷ Kronecker with its 95 % bootstrap interval over blocks. The dense network is made of nn.Linear; it is also timed
with its products by oneDNN, and under torch.compile. While steps are timed, the allocator keeps freed memory, as in
`kronmodel train`.
`--only` leaves the other networks out; `--cpu-time` measures the CPU time of one thread, on a machine with other work.
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
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.baselines import low_rank
from benchmarks.one_dnn import with_one_dnn
from benchmarks.timing import Operation, format_ratio, random_batch, time_interleaved, training_step
from kronmodel.nn.networks import KroneckerConfig, build
from kronmodel.training.adamw import AdamW
from kronmodel.training.device import keep_freed_memory

SCALING_SIDES = (16, 32, 64, 128)  # widths 256 to 16,384
SIDES, RANKS = (28, 64), (1, 2, 4)
ACTIVATIONS = ("gelu", "relu")


def kronecker_config(side: int, rank: int, activation: str) -> KroneckerConfig:
    """Network with two hidden layers as wide as the input, ``side * side``, and ten classes."""
    shape = (side, side)
    return KroneckerConfig(in_shape=shape, hidden=(shape, shape), out_shape=(2, 5), rank=rank, activation=activation)


def print_step_times(
    sides: list[int], threads: list[int], batches: list[int], activations: list[str], *, only: bool, cpu_time: bool
) -> None:
    """Print a table of step times.

    Args:
        only: time the dense and the Kronecker networks only.
        cpu_time: measure the CPU time of the thread instead of the time of the clock.
    """
    variants = [] if only else ["low-rank", "dense oneDNN"]
    if variants and shutil.which("g++"):  # which torch.compile needs
        variants.append("dense compiled")
    columns = ["width", "batch", "threads", "activation", "rank", "dense, ms", "Kronecker, ms", "dense ÷ Kronecker"]
    columns += [*(f"{variant}, ms" for variant in variants), "multiply-adds: dense ÷ Kronecker"]
    print(f"| {' | '.join(columns)} |\n|" + "---|" * len(columns))
    clock = time.thread_time if cpu_time else time.perf_counter
    for side, batch, thread, activation in product(sides, batches, threads, activations):
        torch.set_num_threads(thread)
        x, y = random_batch(side, batch)
        dense = build(kronecker_config(side, 1, activation).dense())
        networks = {rank: build(kronecker_config(side, rank, activation)) for rank in RANKS}
        steps = {"dense": training_step(dense, x, y, AdamW)}
        if "dense oneDNN" in variants:
            steps["dense oneDNN"] = training_step(with_one_dnn(dense), x, y, AdamW)
        if "dense compiled" in variants:
            torch.compiler.reset()
            compiled: nn.Module = torch.compile(build(kronecker_config(side, 1, activation).dense()))  # type: ignore[assignment]
            steps["dense compiled"] = training_step(compiled, x, y, AdamW)
        for rank, network in networks.items():
            steps[f"kronecker {rank}"] = training_step(network, x, y, AdamW)
            if "low-rank" in variants:
                same_size = low_rank(kronecker_config(side, rank, activation), network.parameter_count)
                steps[f"low-rank {rank}"] = training_step(same_size, x, y, AdamW)
        times = time_interleaved(steps, clock=clock)
        ms = {name: f"{1000 * np.median(each):.2f}" for name, each in times.items()}
        for rank, network in networks.items():
            name = f"kronecker {rank}"
            cells = [ms["dense"], ms[name], format_ratio(times["dense"], times[name])]
            cells += [ms[f"low-rank {rank}" if variant == "low-rank" else variant] for variant in variants]
            cells.append(f"{dense.macs_per_sample / network.macs_per_sample:.1f}")
            print(f"| {side * side} | {batch} | {thread} | {activation} | {rank} | {' | '.join(cells)} |", flush=True)


def print_scaling(threads: int) -> None:
    """Print the exponent with which the step time grows with the width, at rank 1 and batch 128.

    Multiply-adds grow with the exponent 1.5, those of a dense network with 2.
    """
    torch.set_num_threads(threads)
    steps = {
        str(side): training_step(build(kronecker_config(side, 1, "gelu")), *random_batch(side, 128), AdamW)
        for side in SCALING_SIDES
    }
    medians = {side: float(np.median(times)) for side, times in time_interleaved(steps).items()}
    exponent = np.polyfit([2 * math.log(int(side)) for side in medians], np.log(list(medians.values())), 1)[0]
    listed = ", ".join(f"{int(side) ** 2}: {1000 * each:.2f} ms" for side, each in medians.items())
    print(f"\nKronecker, rank 1, batch 128, {threads} thread(s): time ~ width^{exponent:.2f} ({listed})", flush=True)


def print_peak_memory(side: int, batch: int, rank: int) -> None:
    """Print by how many MiB ten training steps raise the peak memory of this process above that of the built network.

    Gradients and the optimizer's two moments of each weight are included, the weights are not.

    Args:
        rank: of the Kronecker network; 0 for the dense one.
    """
    torch.set_num_threads(1)
    x, y = random_batch(side, batch)
    config = kronecker_config(side, max(1, rank), "gelu")
    step: Operation = training_step(build(config if rank else config.dense()), x, y, AdamW)
    before = _peak_mib()
    for _ in range(10):
        step()
    print(f"{_peak_mib() - before:.1f}")


def _peak_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else math.nan


def print_memory_table(sides: list[int], batches: list[int]) -> None:
    """Print the peak memory of a step of each network, each measured in its own process: a peak is never reset."""
    print("\n| width | batch | peak memory of a step above the weights, MiB: dense | rank 1 | rank 2 | rank 4 |")
    print("|---|---|---|---|---|---|")
    for side, batch in product(sides, batches):
        cells = []
        for rank in (0, *RANKS):
            command = [sys.executable, "-m", "benchmarks.train", "--memory", f"{side}", f"{batch}", f"{rank}"]
            cells.append(
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout.strip()
            )
        print(f"| {side * side} | {batch} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sides", type=int, nargs="+", choices=SIDES, default=SIDES, help="square roots of the layer widths"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads of the step times")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 1024], help="samples per step")
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=["gelu", "relu"])
    parser.add_argument("--only", action="store_true", help="dense and Kronecker networks only, and no scaling")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time instead of the clock's; needs --threads 1")
    parser.add_argument("--memory", type=int, nargs=3, metavar=("SIDE", "BATCH", "RANK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cpu_time and args.threads != [1]:
        parser.error("--cpu-time is that of one thread: it needs --threads 1")
    random.seed(0)
    torch.manual_seed(0)
    if args.memory:
        print_peak_memory(*args.memory)
        return
    keep_freed_memory()
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} CPUs", file=sys.stderr)
    print_step_times(args.sides, args.threads, args.batches, args.activations, only=args.only, cpu_time=args.cpu_time)
    if not args.only:
        print_scaling(args.threads[0])
    print_memory_table(args.sides, args.batches)


if __name__ == "__main__":
    main()
