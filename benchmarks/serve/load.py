"""The load: closed loop by wrk, which sends as soon as it has an answer; open loop by the clock."""

import asyncio
import json
import math
import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serve.servers import Request, Running, Unavailable

OPEN_CONNECTIONS = 32


@dataclass(frozen=True)
class Measured:
    """One run of the load."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    rss_mb: float
    cpu_s_per_1000: float


def closed_loop(server: Running, request: Request, *, clients: int, seconds: float, scratch: Path) -> Measured:
    """As many requests as that many clients get answered, each with one in flight."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise Unavailable("wrk is not installed; Debian and Homebrew have it under this name")
    (scratch / "body").write_bytes(request.body)
    (scratch / "headers").write_text("".join(f"{name}: {value}\n" for name, value in request.headers.items()))
    command = [wrk, "-t1", f"-c{clients}", f"-d{math.ceil(seconds)}s", "--timeout", "10s"]
    command += ["-s", str(Path(__file__).with_name("load.lua")), f"http://127.0.0.1:{server.port}{request.path}"]
    files = {"BENCH_BODY": str(scratch / "body"), "BENCH_HEADERS": str(scratch / "headers")}
    before, _ = server.usage()
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=seconds + 60, env={**os.environ, **files}
    )
    after, rss = server.usage()
    got = json.loads(done.stdout.rpartition("JSON ")[2])
    return Measured(
        requests_per_s=got["requests"] / got["seconds"],
        p50_ms=got["p50_us"] / 1000,
        p99_ms=got["p99_us"] / 1000,
        errors=got["errors"],
        rss_mb=rss / 1e6,
        cpu_s_per_1000=1000 * (after - before) / max(1, got["requests"]),
    )


def open_loop(server: Running, request: Request, *, rate: float, seconds: float) -> Measured:
    """Requests at random moments, `rate` a second on average; a latency counts from the moment that was drawn."""
    before, _ = server.usage()
    latencies, errors = asyncio.run(_send_by_the_clock(server.port, request, rate, seconds))
    after, rss = server.usage()
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (math.nan, math.nan)
    cpu = 1000 * (after - before) / max(1, len(latencies))
    return Measured(len(latencies) / seconds, float(p50) * 1e3, float(p99) * 1e3, errors, rss / 1e6, cpu)


async def _send_by_the_clock(port: int, request: Request, rate: float, seconds: float) -> tuple[list[float], int]:
    head = f"POST {request.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(request.body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    message = head.encode() + b"\r\n" + request.body
    loop = asyncio.get_running_loop()
    moments: asyncio.Queue[float | None] = asyncio.Queue()
    latencies: list[float] = []
    errors = 0

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (moment := await moments.get()) is not None:
            try:
                writer.write(message)
                if await _read_answer(reader) != 200:
                    errors += 1
                latencies.append(loop.time() - moment)
            except (OSError, asyncio.IncompleteReadError):
                errors += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    clients = [asyncio.create_task(client()) for _ in range(OPEN_CONNECTIONS)]
    drawn = random.Random(0)
    moment = start = loop.time() + 0.05
    while moment < start + seconds:
        await asyncio.sleep(max(0.0, moment - loop.time()))
        moments.put_nowait(moment)
        moment += drawn.expovariate(rate)
    for _ in clients:
        moments.put_nowait(None)
    await asyncio.wait_for(asyncio.gather(*clients), 60)
    return latencies, errors


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head:
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    else:
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
    return status
