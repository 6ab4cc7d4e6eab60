"""Exported twins in onnxruntime, one thread, dense beside Kronecker: `make bench-graphs`.

Nothing is trained: weights and biases are random, the files come from the export that `kronmodel train` uses and run in
sessions as the service opens them. The files of a row take turns in blocks of random order, after a warm-up; what is
printed is the median of a run with numpy arrays in and out, and of dense ÷ Kronecker also its 95 % bootstrap interval
over blocks and the same ratio of the fastest twentieth, which the machine's other work touches least.

Two floors stand beside them: the same nodes with every size 1, and a graph of nothing but the softmax of its input.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from app.inference.session import open_session
from benchmarks.steps import Step, Times, measure, ratio
from kronmodel.export.served_network import export_network
from kronmodel.nn.networks import DenseConfig, KroneckerConfig, build

SIDES, RANKS, BATCHES, ACTIVATIONS = (28, 64), (1, 2, 4), (1, 32, 512), ("gelu", "relu")
BLOCK_SECONDS = 0.02
Clock = Callable[[], float]


def config(side: int, rank: int, activation: str) -> KroneckerConfig:
    shape = (side, side)
    return KroneckerConfig(in_shape=shape, hidden=(shape, shape), out_shape=(2, 5), rank=rank, activation=activation)


def exported(of: KroneckerConfig | DenseConfig) -> bytes:
    """The file of such a network, with biases as if it had been trained."""
    network = build(of)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    samples = np.random.default_rng(0).random((8, network.in_features), np.float32)
    content: bytes = export_network(network, {"versions": {"kronmodel": "benchmark"}}, samples).SerializeToString()
    return content


def empty(features: int) -> bytes:
    """A graph that gives its input and a softmax of it, the least that a classifier does."""
    nodes = [
        helper.make_node("Identity", ["input"], ["logits"]),
        helper.make_node("Softmax", ["input"], ["p"], axis=-1),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", features]) for name in ("input", "logits", "p")
    ]
    graph = helper.make_graph(nodes, "empty", infos[:1], infos[1:])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return content


def runner(model: bytes, batch: int) -> Step:
    """One run of a batch, from and to numpy."""
    session = open_session(model, device="cpu", threads=1)
    (node,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    feeds = {"input": np.random.default_rng(1).random((batch, node.shape[1]), np.float32)}
    return functools.partial(session.run, names, feeds)


def fastest(times: Times) -> float:
    return float(np.quantile(times, 0.05))


def table(sides: list[int], ranks: list[int], batches: list[int], activations: list[str], clock: Clock) -> None:
    print(
        "| width | batch | activation | rank | dense, µs | Kronecker, µs | dense ÷ Kronecker | fastest 5 % "
        "| nodes of size 1, µs | empty graph, µs |\n|" + "---|" * 10
    )
    for side, activation in product(sides, activations):
        dense = exported(config(side, 1, activation).dense())
        networks = {rank: exported(config(side, rank, activation)) for rank in ranks}
        ones = replace(config(1, 1, activation), out_shape=(1, 1))
        floors = {"ones": exported(ones), "empty": empty(10)}
        for batch in batches:
            files = {"dense": dense, **{f"rank {rank}": file for rank, file in networks.items()}, **floors}
            times = measure({name: runner(file, batch) for name, file in files.items()}, BLOCK_SECONDS, clock)
            us = {name: 1e6 * float(np.median(each)) for name, each in times.items()}
            for rank in networks:
                own = f"rank {rank}"
                least = f"{fastest(times['dense']) / fastest(times[own]):.2f}"
                cells = [f"{us['dense']:,.1f}", f"{us[own]:,.1f}", ratio(times["dense"], times[own]), least]
                cells += [f"{us['ones']:.1f}" if rank == 1 else "", f"{us['empty']:.1f}"]
                print(f"| {side * side} | {batch} | {activation} | {rank} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES), help="roots of the widths")
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=list(ACTIVATIONS))
    parser.add_argument(
        "--cpu-time", action="store_true", help="time that the thread ran: for a machine that others use"
    )
    args = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    versions = f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, torch {torch.__version__}"
    print(f"{versions}, {platform.machine()}, {os.cpu_count()} CPUs", file=sys.stderr)
    clock = time.thread_time if args.cpu_time else time.perf_counter
    table(args.sides, args.ranks, args.batches, args.activations, clock)


if __name__ == "__main__":
    main()
