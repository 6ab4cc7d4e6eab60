"""`make bench-serve`: our service beside others, with the same ONNX file, one worker each, the same load, in turns."""

import argparse
import os
import random
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

from benchmarks.serve.load import Measured, closed_loop, open_loop
from benchmarks.serve.servers import SERVERS, Request, Running, Unavailable, install

Row = tuple[str, str, int, str]  # server and way to ask, twin, batch, load


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    measured: dict[Row, list[Measured]] = {}
    ready: dict[str, list[float]] = {}
    notes: list[str] = []
    for twin in options.twins:
        _measure_twin(options, twin, measured, ready, notes)
    if options.json:
        result = {
            "rows": [
                dict(zip(("server", "model", "batch", "load"), row, strict=True))
                | {"runs": [asdict(run) for run in runs]}
                for row, runs in measured.items()
            ],
            "ready_s": ready,
            "notes": notes,
        }
        print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(measured, ready, notes)
    return 0


def _measure_twin(
    options: argparse.Namespace,
    model: str,
    measured: dict[Row, list[Measured]],
    ready: dict[str, list[float]],
    notes: list[str],
) -> None:
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
        "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",  # nor does any other log each request
    }
    os.environ.update({name: environment[name] for name in ("BENCH_MODELS", "BENCH_NAME")})
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-serve-")))
        ways: list[tuple[str, Running, dict[int, Request]]] = []
        for spec in SERVERS:
            if options.only and not any(wanted.lower() in spec.name.lower() for wanted in options.only):
                continue
            first = next(iter(spec.rows.values()))
            try:
                python = install(spec, options.envs.resolve())
                server = Running(
                    spec, python, scratch / spec.name, environment, first(model, inputs[options.batches[0]])
                )
            except Unavailable as reason:
                notes.append(f"{spec.name}, {model}: {reason}")
                continue
            stack.callback(server.stop)
            ready.setdefault(spec.name, []).append(round(server.ready_s, 2))
            for way, build in spec.rows.items():
                name = f"{spec.name} {way}".strip()
                requests = {batch: build(model, rows) for batch, rows in inputs.items()}
                if (status := server.ask(next(iter(requests.values())))) != 200:
                    notes.append(f"{name}, {model}: it answers with status {status}")
                    continue
                ways.append((name, server, requests))
        _take_turns(options, model, ways, measured, scratch)


def _take_turns(
    options: argparse.Namespace,
    model: str,
    ways: Sequence[tuple[str, Running, dict[int, Request]]],
    measured: dict[Row, list[Measured]],
    scratch: Path,
) -> None:
    """Every way in each round, in an order drawn anew; a first, short round that does not count warms everything up."""
    cells: list[tuple[int, int | None]] = [(batch, clients) for batch in options.batches for clients in options.clients]
    cells += [(options.batches[0], None)] if options.rate else []
    for round_ in range(options.rounds + 1):
        for batch, clients in cells:
            for name, server, requests in random.sample(ways, len(ways)):
                seconds = options.seconds if round_ else 1
                if clients is None:
                    load = f"open, {options.rate:g}/s"
                    got = open_loop(server, requests[batch], rate=options.rate, seconds=seconds)
                else:
                    load = f"{clients} clients"
                    got = closed_loop(server, requests[batch], clients=clients, seconds=seconds, scratch=scratch)
                if round_:
                    measured.setdefault((name, model, batch, load), []).append(got)
                print(f"{round_}/{options.rounds} {model} batch {batch} {load} {name}: {got.requests_per_s:,.0f}/s",
                      file=sys.stderr, flush=True)  # fmt: skip


def _print(measured: dict[Row, list[Measured]], ready: dict[str, list[float]], notes: Sequence[str]) -> None:
    console = Console(width=160)
    groups = dict.fromkeys(row[1:] for row in measured)
    for model, batch, load in groups:
        table = Table(title=f"{model}, batch {batch}, {load}; medians of the rounds", title_justify="left")
        table.add_column("server")
        heads = ("requests/s", "÷ echo", "p50 ms", "p99 ms", "errors", "RSS MB", "CPU s / 1,000")
        for head in heads:
            table.add_column(head, justify="right")
        rows = {row[0]: _median(runs) for row, runs in measured.items() if row[1:] == (model, batch, load)}
        echo = next((got["requests_per_s"] for name, got in rows.items() if "echo" in name), None)
        for name, got in sorted(rows.items(), key=lambda item: -item[1]["requests_per_s"]):
            share = f"{got['requests_per_s'] / echo:.2f}" if echo else ""
            table.add_row(
                name, f"{got['requests_per_s']:,.0f}", share, f"{got['p50_ms']:.2f}", f"{got['p99_ms']:.2f}",
                f"{got['errors']:.0f}", f"{got['rss_mb']:.0f}", f"{got['cpu_s_per_1000']:.3f}",
            )  # fmt: skip
        console.print(table)
    for name, seconds in ready.items():
        console.print(f"{name}: ready after {', '.join(map(str, seconds))} s")
    for note in notes:
        console.print(note, style="yellow", highlight=False)


def _median(runs: Sequence[Measured]) -> dict[str, Any]:
    return {field.name: statistics.median(getattr(run, field.name) for run in runs) for field in fields(Measured)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-serve", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder with the default twin")
    parser.add_argument(
        "--twins", nargs="+", default=["mnist-kronecker", "mnist-dense"], help="models to serve in turn"
    )
    parser.add_argument(
        "--envs", type=Path, default=Path("build/envs"), help="folder of the other servers' environments"
    )
    parser.add_argument("--only", nargs="*", help="parts of the names of servers")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rate", type=float, default=300, help="requests a second of the open loop; 0 leaves it out")
    parser.add_argument("--seconds", type=float, default=3, help="of one run of the load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
