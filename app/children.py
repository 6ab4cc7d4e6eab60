"""The outer side of a child process: start it, send its job, read its messages, never leave it behind."""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from app.child import end_group

MAX_MESSAGE_BYTES = 4 * 2**20
MAX_STDERR_BYTES = 8 * 1024
PACKAGE_PARENT = Path(__file__).resolve().parent.parent


class ChildError(Exception):
    """A child process ended badly."""


async def run_child(module: str, job: Mapping[str, object], on_message: Callable[[dict[str, Any]], None]) -> None:
    """Run `python -m <module>` on `job` and hand each of its messages to `on_message`.

    Whatever ends this call, cancellation included, the process is dead and reaped when it returns.

    Raises:
        ChildError: it was killed or ended with an exit code other than 0; the last line it wrote says why.
    """
    starting = asyncio.ensure_future(_start(module))
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Cancelled half-way, a start would leave a process that nobody holds: let it finish, then end it.
        process = await starting
        await _end(process)
        raise
    try:
        assert process.stdin and process.stdout and process.stderr  # noqa: PT018 - for the type checker: they are pipes
        errors = asyncio.create_task(_tail(process.stderr))
        try:
            process.stdin.write(orjson.dumps(job) + b"\n")
            await process.stdin.drain()
            async for line in process.stdout:
                on_message(orjson.loads(line))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died before it read its job: the exit code below tells
        code = await process.wait()
        if code != 0:
            lines = (await errors).decode(errors="replace").strip().splitlines()
            raise ChildError(lines[-1][:500] if lines else f"ended with exit code {code}")
    finally:
        if process.returncode is None:
            await _end(process)


async def _start(module: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", module,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=MAX_MESSAGE_BYTES, env=_environment(),
        # A Ctrl-C at the terminal is for the parent, which ends its children in order.
        start_new_session=True,
    )  # fmt: skip


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it and whatever it has started."""
    with suppress(ProcessLookupError):
        end_group(process.pid)
        process.kill()
    await process.wait()


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """Read everything, keep the end."""
    kept = b""
    while chunk := await stream.read(MAX_STDERR_BYTES):
        kept = (kept + chunk)[-MAX_STDERR_BYTES:]
    return kept


def _environment() -> dict[str, str]:
    # -P keeps the working directory out of the child's path; the package's own place has to be in it.
    path = [str(PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # OpenBLAS would start a thread per CPU, and count as memory of whichever model is measured.
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1"}
