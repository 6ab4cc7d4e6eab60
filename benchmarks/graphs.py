"""Latency of exported networks at one thread, dense and Kronecker, in onnxruntime and in kronmodel's native code.

`make bench-graphs` prints two tables. Nothing is trained: weights and biases are random. The files are exported as by
`kronmodel train` and run in sessions opened as by the service. The files of a row are timed in alternating blocks of
random order, after a warm-up. Each row has median run times with numpy inputs and outputs, the ratio of the medians
with its 95 % bootstrap interval over blocks, and the ratio of the 5th percentiles, which other processes on the machine
affect least.

The first table has the graphs in onnxruntime in float32. Two lower bounds are timed too: the Kronecker graph of rank 1
with every size reduced to 1, and a graph with only a softmax. The second table has networks of one width and rank with
32 and 8 bits in both runtimes; onnxruntime's 8-bit files are those of its own tools, quantized dynamically and
statically (QDQ, calibrated on the same samples as the native code).
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from app.inference.session import open_session
from benchmarks.timing import Operation, Times, format_ratio, time_interleaved
from kronmodel import native
from kronmodel.export.served_network import export_network
from kronmodel.native import build as native_build
from kronmodel.nn.networks import DenseConfig, KroneckerConfig, build

SIDES, RANKS, BATCHES, ACTIVATIONS = (28, 64), (1, 2, 4), (1, 32, 512), ("gelu", "relu")
NATIVE_SIDE, NATIVE_RANK = 28, 2  # of the second table: the default twin
PRECISIONS: tuple[Literal["float32", "int8"], ...] = ("float32", "int8")
BLOCK_SECONDS = 0.02
Clock = Callable[[], float]


def kronecker_config(side: int, rank: int, activation: str) -> KroneckerConfig:
    """Network with two hidden layers as wide as the input, ``side * side``, and ten classes."""
    shape = (side, side)
    return KroneckerConfig(in_shape=shape, hidden=(shape, shape), out_shape=(2, 5), rank=rank, activation=activation)


def exported_bytes(config: KroneckerConfig | DenseConfig) -> bytes:
    """Export an untrained network as an ONNX file; its biases are random, as if trained, instead of zero."""
    network = build(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    samples = np.random.default_rng(0).random((8, network.in_features), np.float32)
    content: bytes = export_network(network, {"versions": {"kronmodel": "benchmark"}}, samples).SerializeToString()
    return content


def softmax_graph(features: int) -> bytes:
    """ONNX file with the outputs ``logits``, the input itself, and ``p``, its softmax: the least a classifier does."""
    nodes = [
        helper.make_node("Identity", ["input"], ["logits"]),
        helper.make_node("Softmax", ["input"], ["p"], axis=-1),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", features]) for name in ("input", "logits", "p")
    ]
    graph = helper.make_graph(nodes, "softmax", infos[:1], infos[1:])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return content


def session_run(model: bytes, batch: int) -> Operation:
    """Run of an ONNX file in onnxruntime on a random batch, with numpy inputs and outputs."""
    session = open_session(model, device="cpu", threads=1)
    (node,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    feeds = {"input": np.random.default_rng(1).random((batch, node.shape[1]), np.float32)}
    return functools.partial(session.run, names, feeds)


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    """Samples for onnxruntime's calibration, one batch."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._batches = iter([{"input": samples}])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def network_runs(folder: Path, name: str, model: bytes, batch: int) -> dict[str, Operation]:
    """Runs of one network in onnxruntime and in native code, with 32 and 8 bits, by runtime and precision."""
    file, dynamic, static = (folder / f"{name}{kind}.onnx" for kind in ("", "-dynamic", "-static"))
    rng = np.random.default_rng(2)
    width = onnx.load_from_string(model).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    samples, x = rng.random((100, width), np.float32), rng.random((batch, width), np.float32)
    if not static.exists():
        file.write_bytes(model)
        prepared = folder / "prepared.onnx"
        quant_pre_process(file, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, dynamic)
        quantize_static(prepared, static, _Samples(samples))
    runs = {
        f"onnxruntime {kind}": session_run(path.read_bytes(), batch)
        for kind, path in (("float32", file), ("int8 dynamic", dynamic), ("int8 static", static))
    }
    for precision in PRECISIONS:
        runs[f"native {precision}"] = cast(Operation, functools.partial(native.load(file, precision, samples), x))
    return runs


def print_precisions(side: int, rank: int, batches: list[int], activations: list[str], clock: Clock) -> None:
    print(
        f"\nwidth {side * side}, rank {rank}\n\n| batch | activation | network | runtime | µs "
        "| dense float32 in onnxruntime ÷ this | fastest dense int8 in onnxruntime ÷ this |\n|" + "---|" * 7
    )
    for activation in activations:
        config = kronecker_config(side, rank, activation)
        files = {"dense": exported_bytes(config.dense()), "Kronecker": exported_bytes(config)}
        with tempfile.TemporaryDirectory() as folder:
            for batch in batches:
                runs = {
                    (name, runtime): run
                    for name, file in files.items()
                    for runtime, run in network_runs(Path(folder), name, file, batch).items()
                }
                keys = {f"{name}|{runtime}": (name, runtime) for name, runtime in runs}
                times = time_interleaved({key: runs[pair] for key, pair in keys.items()}, BLOCK_SECONDS, clock)
                medians = {key: float(np.median(each)) for key, each in times.items()}
                dense = [f"dense|onnxruntime {kind}" for kind in ("float32", "int8 dynamic", "int8 static")]
                fastest = min(dense[1:], key=medians.__getitem__)
                for key, (name, runtime) in keys.items():
                    ratios = (format_ratio(times[other], times[key]) for other in (dense[0], fastest))
                    cells = (batch, activation, name, runtime, f"{1e6 * medians[key]:,.1f}", *ratios)
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def fifth_percentile(times: Times) -> float:
    return float(np.quantile(times, 0.05))


def print_table(sides: list[int], ranks: list[int], batches: list[int], activations: list[str], clock: Clock) -> None:
    print(
        "| width | batch | activation | rank | dense, µs | Kronecker, µs | dense ÷ Kronecker "
        "| ratio of 5th percentiles | all sizes 1, µs | softmax only, µs |\n|" + "---|" * 10
    )
    for side, activation in product(sides, activations):
        dense = exported_bytes(kronecker_config(side, 1, activation).dense())
        networks = {rank: exported_bytes(kronecker_config(side, rank, activation)) for rank in ranks}
        size_1 = replace(kronecker_config(1, 1, activation), out_shape=(1, 1))
        lower_bounds = {"size 1": exported_bytes(size_1), "softmax": softmax_graph(10)}
        for batch in batches:
            files = {"dense": dense, **{f"rank {rank}": file for rank, file in networks.items()}, **lower_bounds}
            runs = {name: session_run(file, batch) for name, file in files.items()}
            times = time_interleaved(runs, BLOCK_SECONDS, clock)
            us = {name: 1e6 * float(np.median(each)) for name, each in times.items()}
            for rank in networks:
                name = f"rank {rank}"
                fastest = f"{fifth_percentile(times['dense']) / fifth_percentile(times[name]):.2f}"
                cells = [f"{us['dense']:,.1f}", f"{us[name]:,.1f}", format_ratio(times["dense"], times[name]), fastest]
                cells += [f"{us['size 1']:.1f}" if rank == 1 else "", f"{us['softmax']:.1f}"]
                print(f"| {side * side} | {batch} | {activation} | {rank} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES), help="square roots of the layer widths")
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS), help="ranks of the Kronecker networks")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="samples per run")
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=list(ACTIVATIONS))
    parser.add_argument("--only-native", action="store_true", help="print the second table only")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure the CPU time of the thread instead of wall time, for a machine in use",
    )
    args = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    versions = f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, torch {torch.__version__}"
    print(f"{versions}, {platform.machine()}, {os.cpu_count()} CPUs", file=sys.stderr)
    clock = time.thread_time if args.cpu_time else time.perf_counter
    if not args.only_native:
        print_table(args.sides, args.ranks, args.batches, args.activations, clock)
    print(f"native library: {native_build.status().reason}", file=sys.stderr)
    print_precisions(NATIVE_SIDE, NATIVE_RANK, args.batches, args.activations, clock)


if __name__ == "__main__":
    main()
