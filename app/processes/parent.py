"""Parent side of a child process: start it, send its job, read its messages, and always end it."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from app.errors import BadRequest, ComparisonError
from app.processes.child import kill_process_group
from app.system.process_memory import resident_bytes_of

MAX_MESSAGE_BYTES = 4 * 2**20
MAX_STDERR_BYTES = 8 * 1024
MEMORY_POLL_SECONDS = 0.2
PACKAGE_PARENT = Path(__file__).resolve().parents[2]

OnMessage: TypeAlias = Callable[[dict[str, Any]], None]


class ChildError(Exception):
    """A child process failed."""


class MemoryLimitExceeded(ChildError):  # noqa: N818
    """A child process used more memory than it may."""


def _ignore(_: dict[str, Any]) -> None:
    pass


async def run_measuring_process(
    module: str, job: Mapping[str, object], on_message: OnMessage = _ignore
) -> dict[str, Any]:
    """Run a child process that measures, and return its result; other arguments as in `run_child_for_result`.

    Raises:
        ComparisonError: the child failed.
        BadRequest: the child refused the job.
    """
    try:
        return await run_child_for_result(module, job, on_message)
    except ChildError as error:
        raise ComparisonError(f"a measuring process failed: {error}") from None


async def run_child_for_result(
    module: str,
    job: Mapping[str, object],
    on_message: OnMessage = _ignore,
    *,
    max_memory_bytes: int | None = None,
) -> dict[str, Any]:
    """Run a child process, as `run_child` does, and return the one `result` that it sends.

    Args:
        module: a module that begins with `child.receive()`.
        job: what it receives.
        on_message: called with each message that is neither a result nor a refusal, such as progress.
        max_memory_bytes: most resident memory that it may use; on Linux.

    Raises:
        ChildError: the child failed, or ended without a result.
        BadRequest: the child refused the job.
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


async def run_child(
    module: str,
    job: Mapping[str, object],
    on_message: OnMessage,
    *,
    max_memory_bytes: int | None = None,
) -> None:
    """Run `python -m <module>` on a job and pass each of its messages to `on_message`.

    However this call ends, cancellation included, the process has ended and is reaped when it returns.

    Args:
        module: a module that begins with `child.receive()`.
        job: what it receives.
        on_message: called with each message.
        max_memory_bytes: most resident memory that it may use; checked a few times per second, on Linux.

    Raises:
        MemoryLimitExceeded: it used more memory, and was killed.
        ChildError: it could not be started, sent something other than messages, was killed, or ended with an exit code
            other than 0; then the last line of its standard error says why.
    """
    process = await _start(module)
    exceeded = asyncio.Event()
    memory_watch = None
    if max_memory_bytes is not None:
        memory_watch = asyncio.create_task(_limit_memory(process, max_memory_bytes, exceeded))
    try:
        assert process.stdin and process.stdout and process.stderr  # noqa: PT018 - for the type checker: they are pipes
        errors = asyncio.create_task(_read_tail(process.stderr))
        try:
            process.stdin.write(orjson.dumps(job) + b"\n")
            await process.stdin.drain()
            async for line in process.stdout:
                if not line.endswith(b"\n"):
                    break  # it ended in the middle of a message; its exit code says why
                on_message(orjson.loads(line))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it ended before it read its job; its exit code says why
        except ValueError as error:  # a line that is too long, not JSON, or not the kind of message that is expected
            raise ChildError(f"it sent a message that cannot be read: {error}") from None
        code = await process.wait()
        if exceeded.is_set():
            raise MemoryLimitExceeded(f"it used more than {max_memory_bytes} bytes of memory")
        if code != 0:
            raise ChildError(_exit_reason(code, (await errors).decode(errors="replace")))
    finally:
        if memory_watch is not None:
            memory_watch.cancel()
        if process.returncode is None:
            await _end(process)


async def _start(module: str) -> asyncio.subprocess.Process:
    # Shielded: a start that is cancelled half-way would leave a process that nothing refers to.
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            limit=MAX_MESSAGE_BYTES, env=_environment(),
            # Ctrl-C at the terminal is meant for the parent, which ends its children in order.
            start_new_session=True,
        )
    )  # fmt: skip
    try:
        return await asyncio.shield(starting)
    except OSError as error:
        raise ChildError(f"it cannot be started: {error.strerror}") from None
    except asyncio.CancelledError:
        await _end(await starting)
        raise


def _environment() -> dict[str, str]:
    # -P keeps the working directory off the child's path, so the folder of this package has to be on it.
    path = [str(PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # OpenBLAS would start a thread per CPU, whose memory would count as that of the model under test.
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1"}


async def _limit_memory(process: asyncio.subprocess.Process, max_bytes: int, exceeded: asyncio.Event) -> None:
    """Kill the process once it uses more memory than it may."""
    while (resident_bytes_of(process.pid) or 0) <= max_bytes:
        await asyncio.sleep(MEMORY_POLL_SECONDS)
    exceeded.set()  # before the kill: `run_child` may see the process ended before this task goes on
    await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a child process with its process group, and wait until it has exited."""
    with suppress(ProcessLookupError):
        kill_process_group(process.pid)
        process.kill()
    await process.wait()


async def _read_tail(stream: asyncio.StreamReader) -> bytes:
    """Read a stream to its end and keep the last `MAX_STDERR_BYTES`."""
    kept = b""
    while chunk := await stream.read(MAX_STDERR_BYTES):
        kept = (kept + chunk)[-MAX_STDERR_BYTES:]
    return kept


def _exit_reason(code: int, errors: str) -> str:
    """The reason why a process ended, from its exit code and the text that it wrote to standard error."""
    if code < 0:
        name = signal.Signals(-code).name
        by_system = ", by hand or by the system because memory ran out" if name == "SIGKILL" else ""
        return f"it was killed ({name}){by_system}"
    lines = errors.strip().splitlines()
    return lines[-1][:500] if lines else f"it ended with exit code {code}"
