"""Sandboxed smoke tests of model files: each is read, loaded and run once in its own process before it is served.

The child process (`python -m app.models.verification`) forks one process per file, as many at a time as there are CPUs.
A hostile file can crash, block or exhaust only its own process, and the service does not hold the memory of the `onnx`
package and of parsed models.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.processes import child

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from app.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationResult:
    """The sizes and metadata of a model file, or the reason to refuse it.

    Args:
        initializer_bytes: size of the weights: initializers, constants, and numbers in attributes of `ai.onnx.ml`.
        initializer_elements: number of their elements.
        memory_bytes: memory that loading and running the model added to its process; None where it was not measured.
        sha256: of the file.
        card: its model card, not parsed and perhaps cut; None if it has none.
        error: the reason to refuse the file; the other fields are empty then.
    """

    initializer_bytes: int = 0
    initializer_elements: int = 0
    memory_bytes: int | None = None
    sha256: str = ""
    card: str | None = None
    error: str | None = None


async def verify(paths: Sequence[Path], settings: "Settings") -> dict[Path, VerificationResult]:
    """Inspect model files and smoke-test each in its own process.

    The result of a file that crashes its process, or exceeds the limits of time or memory, is an error.

    Args:
        paths: the files.
        settings: limits and devices.
    """
    # Imported here because the child process, which runs this module, needs none of them.
    import asyncio

    from app.models.card import MAX_CARD_BYTES
    from app.processes.parent import ChildError, run_child

    results: dict[Path, VerificationResult] = {}
    job = {
        "paths": [str(path) for path in paths],
        "cpu_only": settings.devices == {"cpu"},
        "max_batch": settings.max_batch,
        "max_card_chars": MAX_CARD_BYTES + 1,
        "seconds": settings.trial_seconds,
        "bytes": settings.trial_bytes,
    }
    try:
        async with asyncio.timeout(settings.load_seconds):
            await run_child(
                "app.models.verification",
                job,
                lambda message: results.update({Path(message.pop("path")): VerificationResult(**message)}),
            )
    except ChildError as error:
        reason = f"reading it failed: {error}"
    except TimeoutError:
        reason = f"not read within {settings.load_seconds:g} s, all files together (KRON_LOAD_SECONDS)"
    else:
        reason = "reading it failed"
    return {path: results.get(path, VerificationResult(error=reason)) for path in paths}


def main() -> None:
    """Verify the files of the job read from standard input; write one message per file."""
    job = child.receive()
    # Imported before the forks, so that each process shares these modules instead of loading them.
    import multiprocessing
    from multiprocessing.connection import wait

    import app.inference.engine
    import app.models.onnx_checks  # noqa: F401
    from app.system.cpus import available_cpus

    forks = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if forks else None)
    waiting = job.pop("paths")[::-1]
    running: dict[Any, tuple[Any, str]] = {}
    while waiting or running:
        while waiting and len(running) < available_cpus():
            path = waiting.pop()
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_verify_file, args=(path, job, writer))
            process.start()
            writer.close()  # the process has its own copy: reading ends when it exits
            running[reader] = process, path
        connection: Any
        for connection in wait(list(running)):
            process, path = running.pop(connection)
            try:
                result = json.loads(connection.recv_bytes())
            except EOFError:
                process.join()
                result = {"error": _describe_exit(process.exitcode, job["seconds"])}
            child.send(path=path, **result)


def _verify_file(path: str, job: Mapping[str, Any], writer: "Connection") -> None:
    """Verify one file in this process, and send the fields of its `VerificationResult`."""
    from app.models.onnx_checks import inspect_file

    fields: Mapping[str, Any]
    try:
        _limit_process(job["seconds"], job["bytes"] + 6 * Path(path).stat().st_size)
        fields = inspect_file(Path(path), max_card_chars=job["max_card_chars"])
        if "error" not in fields:
            fields = {**fields, **_smoke_test(path, job["max_batch"], cpu_only=job["cpu_only"])}
    except MemoryError:
        fields = {"error": "it needs more memory than a smoke test may have (KRON_TRIAL_BYTES)"}
    except OSError as error:
        fields = {"error": f"cannot be read: {error.strerror}"}
    writer.send_bytes(json.dumps(fields).encode())


def _smoke_test(path: str, max_batch: int, *, cpu_only: bool) -> Mapping[str, Any]:
    """Load a model and run it on the CPU; return the memory that this added, or the error.

    A model for a GPU may be one that the CPU cannot run, so its error is found when it is loaded there.
    """
    from app.errors import ModelError, OutOfMemory
    from app.inference.engine import Engine
    from app.inference.session import EMPTY_MODEL, open_session, why_no_cuda
    from app.system.heap import trim_heap
    from app.system.process_memory import anonymous_bytes

    empty_session = open_session(EMPTY_MODEL, device="cpu", threads=1)  # the cost of any session is not this model's
    trim_heap()  # the model would use pages that the inspection freed, and they would be missing in the difference
    before = anonymous_bytes()
    try:
        engine = Engine(Path(path), device="cpu", threads=1)
        engine.warm_up(max_batch)
    except OutOfMemory as error:
        return {"error": f"{error} (KRON_TRIAL_BYTES)"}
    except ModelError as error:
        return {} if not cpu_only and why_no_cuda() is None else {"error": str(error)}
    trim_heap()
    after = anonymous_bytes()
    del empty_session
    return {} if before is None or after is None else {"memory_bytes": max(0, after - before)}


def _describe_exit(code: int, seconds: float) -> str:
    """The reason why a process exited without a result, by its exit code."""
    import signal

    if code == -getattr(signal, "SIGALRM", 0):
        return f"reading, loading and running it once took longer than {seconds:g} s (KRON_TRIAL_SECONDS)"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"reading, loading or running it once crashed the process of its smoke test ({how})"


def _limit_process(seconds: float, size: int) -> None:
    """Limit this process, on Unix, to `seconds` from now and to `size` bytes of memory beyond its present use."""
    try:
        import resource
        import signal
    except ImportError:
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        size += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


if __name__ == "__main__":
    main()
