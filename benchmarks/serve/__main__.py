"""Throughput, latency, memory and CPU time of kronmodel's service and of other inference servers: `make bench-serve`.

All servers run the same ONNX file with one worker and get the same load, in turns.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.serve.load import LoadResult, closed_loop, open_loop
from benchmarks.serve.servers import SERVERS, Request, RunningServer, Unavailable, install

Row = tuple[str, str, int, str]  # server and request format, model, batch size, load
# Server and request format, the server, a request per batch size.
Target = tuple[str, RunningServer, dict[int, Request]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        parser.error(
            "the closed loop needs wrk, which is not on the PATH; install the package wrk of Debian or Homebrew"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # sys.exit unwinds the stack, which stops the servers
    results: dict[Row, list[LoadResult]] = {}
    ready: dict[str, list[float]] = {}
    notes: list[str] = []
    for model in options.twins:
        _measure_model(options, model, results, ready, notes)
    if options.json:
        report = {
            "rows": [
                dict(zip(("server", "model", "batch", "load"), row, strict=True))
                | {"runs": [asdict(run) for run in runs]}
                for row, runs in results.items()
            ],
            "ready_s": ready,
            "notes": notes,
        }
        print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        _print_tables(results, ready, notes)
    return 0


def _measure_model(
    options: argparse.Namespace,
    model: str,
    results: dict[Row, list[LoadResult]],
    ready: dict[str, list[float]],
    notes: list[str],
) -> None:
    """Start all servers with a model and measure them; those that cannot be measured are named in ``notes``."""
    path = options.models.resolve() / model / "1" / "model.onnx"
    samples = np.load(path.with_name("samples.npz"))["inputs"].astype(np.float32)
    inputs = {batch: np.resize(samples, (batch, samples[0].size)) for batch in options.batches}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KRON_")} | {
        "BENCH_MODEL": str(path),
        "BENCH_MODELS": str(options.models.resolve()),
        "BENCH_NAME": model,
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",  # no other server logs requests
    }
    os.environ.update({name: environment[name] for name in ("BENCH_MODELS", "BENCH_NAME")})
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-serve-")))
        targets: list[Target] = []
        for spec in SERVERS:
            if options.only and not any(part.lower() in spec.name.lower() for part in options.only):
                continue
            build_request = next(iter(spec.request_builders.values()))
            readiness_request = build_request(model, inputs[options.batches[0]])
            try:
                python = install(spec, options.envs.resolve())
                server = RunningServer(spec, python, scratch / spec.name, environment, readiness_request)
            except Unavailable as reason:
                notes.append(f"{spec.name}, {model}: {reason}")
                continue
            stack.callback(server.stop)
            ready.setdefault(spec.name, []).append(round(server.ready_s, 2))
            for request_format, build_request in spec.request_builders.items():
                name = f"{spec.name} {request_format}".strip()
                requests = {batch: build_request(model, rows) for batch, rows in inputs.items()}
                if (status := server.send(next(iter(requests.values())))) != 200:
                    notes.append(f"{name}, {model}: got status {status}, expected 200")
                    continue
                targets.append((name, server, requests))
        _run_rounds(options, model, targets, results, scratch)


def _run_rounds(
    options: argparse.Namespace,
    model: str,
    targets: Sequence[Target],
    results: dict[Row, list[LoadResult]],
    scratch: Path,
) -> None:
    """Put every load on every target once per round, in random order, after a short round of warm-up."""
    cells: list[tuple[int, int | None]] = [(batch, clients) for batch in options.batches for clients in options.clients]
    cells += [(options.batches[0], None)] if options.rate else []
    for round_ in range(options.rounds + 1):
        for batch, clients in cells:
            for name, server, requests in random.sample(targets, len(targets)):
                seconds = options.seconds if round_ else 1
                if clients is None:
                    load = f"open, {options.rate:g}/s"
                    result = open_loop(server, requests[batch], rate=options.rate, seconds=seconds)
                else:
                    load = f"{clients} clients"
                    result = closed_loop(server, requests[batch], clients=clients, seconds=seconds, scratch=scratch)
                if round_:
                    results.setdefault((name, model, batch, load), []).append(result)
                print(f"{round_}/{options.rounds} {model} batch {batch} {load} {name}: {result.requests_per_s:,.0f}/s",
                      file=sys.stderr, flush=True)  # fmt: skip


def _print_tables(results: dict[Row, list[LoadResult]], ready: dict[str, list[float]], notes: Sequence[str]) -> None:
    console = Console(width=160)
    groups = dict.fromkeys(row[1:] for row in results)
    for model, batch, load in groups:
        table = Table(title=f"{model}, batch {batch}, {load}; medians of the rounds", title_justify="left")
        table.add_column("server")
        columns = ("requests/s", "÷ echo", "p50 ms", "p99 ms", "errors", "RSS MB", "CPU s / 1,000")
        for column in columns:
            table.add_column(column, justify="right")
        rows = {row[0]: _medians(runs) for row, runs in results.items() if row[1:] == (model, batch, load)}
        # The rate of an open loop is given, so that its ratio to the echo server says nothing.
        closed = "open" not in load
        echo = next((medians["requests_per_s"] for name, medians in rows.items() if "echo" in name and closed), None)
        for name, medians in sorted(rows.items(), key=lambda item: -item[1]["requests_per_s"]):
            fraction = f"{medians['requests_per_s'] / echo:.2f}" if echo else ""
            table.add_row(
                name, f"{medians['requests_per_s']:,.0f}", fraction,
                f"{medians['p50_ms']:.2f}", f"{medians['p99_ms']:.2f}", f"{medians['errors']:.0f}",
                f"{medians['rss_mb']:.0f}", f"{medians['cpu_s_per_1000']:.3f}",
            )  # fmt: skip
        console.print(table)
    for name, seconds in ready.items():
        console.print(f"{name}: ready after {', '.join(map(str, seconds))} s")
    for note in notes:
        console.print(note, style="yellow", highlight=False)


def _medians(runs: Sequence[LoadResult]) -> dict[str, Any]:
    return {field.name: statistics.median(getattr(run, field.name) for run in runs) for field in fields(LoadResult)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-serve", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder with the default twin")
    parser.add_argument(
        "--twins", nargs="+", default=["mnist-kronecker", "mnist-dense"], help="models to measure, one after the other"
    )
    parser.add_argument(
        "--envs", type=Path, default=Path("build/envs"), help="folder of the servers' virtual environments"
    )
    parser.add_argument("--only", nargs="*", help="measure only servers whose name contains one of these strings")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 16, 256], help="concurrent connections of the closed loop"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="samples per request")
    parser.add_argument("--rate", type=float, default=300, help="requests per second of the open loop; 0 omits it")
    parser.add_argument("--seconds", type=float, default=3, help="duration of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements per load and server")
    parser.add_argument("--json", action="store_true", help="print all measurements as JSON instead of tables")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
