"""Load on a running server: a closed loop by wrk, and an open loop of requests at random times.

In a closed loop each client sends its next request when it has received the response. In an open loop the times of
requests do not depend on responses.
"""

import asyncio
import json
import math
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serve.servers import Request, RunningServer

OPEN_CONNECTIONS = 32


@dataclass(frozen=True)
class LoadResult:
    """Measurements of one run of a load on a server and its child processes."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    rss_mb: float
    cpu_s_per_1000: float


def closed_loop(server: RunningServer, request: Request, *, clients: int, seconds: float, scratch: Path) -> LoadResult:
    """Send the same request from several clients, each with one request in flight, as fast as the server responds."""
    (scratch / "body").write_bytes(request.body)
    (scratch / "headers").write_text("".join(f"{name}: {value}\n" for name, value in request.headers.items()))
    command = ["wrk", "-t1", f"-c{clients}", f"-d{math.ceil(seconds)}s", "--timeout", "10s"]
    command += ["-s", str(Path(__file__).with_name("load.lua")), f"http://127.0.0.1:{server.port}{request.path}"]
    files = {"BENCH_BODY": str(scratch / "body"), "BENCH_HEADERS": str(scratch / "headers")}
    cpu_before, _ = server.usage()
    completed = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=seconds + 60, env={**os.environ, **files}
    )
    cpu_after, rss = server.usage()
    measured = json.loads(completed.stdout.rpartition("JSON ")[2])
    return LoadResult(
        requests_per_s=measured["requests"] / measured["seconds"],
        p50_ms=measured["p50_us"] / 1000,
        p99_ms=measured["p99_us"] / 1000,
        errors=measured["errors"],
        rss_mb=rss / 1e6,
        cpu_s_per_1000=1000 * (cpu_after - cpu_before) / max(1, measured["requests"]),
    )


def open_loop(server: RunningServer, request: Request, *, rate: float, seconds: float) -> LoadResult:
    """Send requests at random times, a Poisson process of ``rate`` requests per second.

    A latency is counted from the time at which its request was due, so that it includes waiting for a free connection.
    """
    cpu_before, _ = server.usage()
    latencies, errors = asyncio.run(_send_on_schedule(server.port, request, rate, seconds))
    cpu_after, rss = server.usage()
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (math.nan, math.nan)
    cpu_s_per_1000 = 1000 * (cpu_after - cpu_before) / max(1, len(latencies))
    return LoadResult(len(latencies) / seconds, float(p50) * 1e3, float(p99) * 1e3, errors, rss / 1e6, cpu_s_per_1000)


async def _send_on_schedule(port: int, request: Request, rate: float, seconds: float) -> tuple[list[float], int]:
    headers = f"POST {request.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(request.body)}\r\n"
    headers += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    message = headers.encode() + b"\r\n" + request.body
    loop = asyncio.get_running_loop()
    due_times: asyncio.Queue[float | None] = asyncio.Queue()
    latencies: list[float] = []
    errors = 0

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (due := await due_times.get()) is not None:
            try:
                writer.write(message)
                if await _read_status(reader) != 200:
                    errors += 1
                latencies.append(loop.time() - due)
            except (OSError, asyncio.IncompleteReadError):
                errors += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    clients = [asyncio.create_task(client()) for _ in range(OPEN_CONNECTIONS)]
    rng = random.Random(0)
    due = start = loop.time() + 0.05
    while due < start + seconds:
        await asyncio.sleep(max(0.0, due - loop.time()))
        due_times.put_nowait(due)
        due += rng.expovariate(rate)
    for _ in clients:
        due_times.put_nowait(None)
    await asyncio.wait_for(asyncio.gather(*clients), 60)
    return latencies, errors


async def _read_status(reader: asyncio.StreamReader) -> int:
    """Read a whole response and return its status."""
    headers = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(headers.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in headers:
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    else:
        await reader.readexactly(int(headers.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
    return status
