"""The outer side of a child process: start it, send its job, read its messages, never leave it behind."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from app.errors import BadRequest, ComparisonError
from app.processes.child import end_group

MAX_MESSAGE_BYTES = 4 * 2**20
MAX_STDERR_BYTES = 8 * 1024
MEMORY_POLL_SECONDS = 0.2
PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class ChildError(Exception):
    """A child process ended badly."""


class TooMuchMemory(ChildError):  # noqa: N818
    """A child process took more memory than it may."""


async def run_child(
    module: str,
    job: Mapping[str, object],
    on_message: Callable[[dict[str, Any]], None],
    *,
    max_memory_bytes: int | None = None,
) -> None:
    """Run `python -m <module>` on `job` and hand each of its messages to `on_message`.

    Whatever ends this call, cancellation included, the process is dead and reaped when it returns.

    Args:
        module: a module that begins with `child.receive()`.
        job: what it receives.
        on_message: called with each message.
        max_memory_bytes: the most resident memory it may have; it is looked at a few times a second, on Linux.

    Raises:
        TooMuchMemory: it had more, and was killed.
        ChildError: it could not be started, said something else than messages, was killed or ended with an exit code
            other than 0; the last line it wrote says why.
    """
    starting = asyncio.ensure_future(_start(module))
    try:
        process = await asyncio.shield(starting)
    except OSError as error:
        raise ChildError(f"it cannot be started: {error.strerror}") from None
    except asyncio.CancelledError:
        # Cancelled half-way, a start would leave a process that nobody holds: let it finish, then end it.
        process = await starting
        await _end(process)
        raise
    outgrown = asyncio.Event()
    guard = None
    if max_memory_bytes is not None:
        guard = asyncio.create_task(_end_outgrown(process, max_memory_bytes, outgrown))
    try:
        assert process.stdin and process.stdout and process.stderr  # noqa: PT018 - for the type checker: they are pipes
        errors = asyncio.create_task(_tail(process.stderr))
        try:
            process.stdin.write(orjson.dumps(job) + b"\n")
            await process.stdin.drain()
            async for line in process.stdout:
                if not line.endswith(b"\n"):
                    break  # it died in the midst of it: the exit code below tells
                on_message(orjson.loads(line))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died before it read its job: the exit code below tells
        except ValueError as error:  # a line that is too long, no JSON, or no message of the kind that was agreed
            raise ChildError(f"it said what cannot be read: {error}") from None
        code = await process.wait()
        if outgrown.is_set():
            raise TooMuchMemory(f"it took more than {max_memory_bytes} bytes of memory")
        if code != 0:
            raise ChildError(_why(code, (await errors).decode(errors="replace")))
    finally:
        if guard is not None:
            guard.cancel()
        if process.returncode is None:
            await _end(process)


async def _end_outgrown(process: asyncio.subprocess.Process, most: int, outgrown: asyncio.Event) -> None:
    """Kill the process once it has more memory than it may; told first, for others may see it dead sooner."""
    while resident_bytes(process.pid) <= most:
        await asyncio.sleep(MEMORY_POLL_SECONDS)
    outgrown.set()
    await _end(process)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where it is gone or the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _why(code: int, errors: str) -> str:
    """Why a process ended."""
    if code == -signal.SIGKILL:
        return "it was killed (SIGKILL), by hand or by the system because memory ran out"
    if code < 0:
        return f"it was killed ({signal.Signals(-code).name})"
    lines = errors.strip().splitlines()
    return lines[-1][:500] if lines else f"ended with exit code {code}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it and whatever it has started."""
    with suppress(ProcessLookupError):
        end_group(process.pid)
        process.kill()
    await process.wait()


async def _start(module: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", module,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=MAX_MESSAGE_BYTES, env=_environment(),
        # A Ctrl-C at the terminal is for the parent, which ends its children in order.
        start_new_session=True,
    )  # fmt: skip


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


OnMessage = Callable[[dict[str, Any]], None]


async def measured(
    module: str, job: Mapping[str, object], on_message: OnMessage = lambda message: None
) -> dict[str, Any]:
    """The result of one measuring process; what else it sends goes to `on_message`.

    Raises:
        ComparisonError: it failed.
        BadRequest: it refused the job.
    """
    try:
        return await answered(module, job, on_message)
    except ChildError as error:
        raise ComparisonError(f"a measuring process failed: {error}") from None


async def answered(
    module: str,
    job: Mapping[str, object],
    on_message: OnMessage = lambda message: None,
    *,
    max_memory_bytes: int | None = None,
) -> dict[str, Any]:
    """The result of one child; what else it sends goes to `on_message`.

    Raises:
        ChildError: it failed.
        BadRequest: it refused the job.
    """
    answers: list[dict[str, Any]] = []

    def receive(message: dict[str, Any]) -> None:
        if "result" in message or "refused" in message:
            answers.append(message)
        else:
            on_message(message)

    await run_child(module, job, receive, max_memory_bytes=max_memory_bytes)
    if len(answers) != 1:
        raise ChildError("it ended without a result")
    if "refused" in answers[0]:
        raise BadRequest(answers[0]["refused"])
    result: dict[str, Any] = answers[0]["result"]
    return result
