"""Model files are read, loaded and run in processes of their own before the service has anything to do with them.

The child (`python -m app.models.verification`) forks one process for each file, several at a time: what a hostile file crashes,
hangs or blows up is only that one. And the service does not carry the memory of `onnx` and of a parsed model.
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

MAX_CARD_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """Sizes and metadata of one file; `error` says why it is refused, and then the rest is empty."""

    initializer_bytes: int = 0
    initializer_elements: int = 0
    memory_bytes: int | None = None
    sha256: str = ""
    card: str | None = None
    error: str | None = None


async def inspect(paths: Sequence[Path], settings: "Settings") -> dict[Path, Inspection]:
    """Inspect and try all files, each in a process of its own.

    A file that ends its process, or takes more time or memory than it may, is reported as an error.
    """
    # Here, so that the child, which runs this very module, does not load asyncio and orjson for nothing.
    import asyncio

    from app.processes.parent import ChildError, run_child

    results: dict[Path, Inspection] = {}
    job = {
        "paths": [str(path) for path in paths],
        "cpu_only": settings.devices == {"cpu"},
        "max_batch": settings.max_batch,
        "seconds": settings.trial_seconds,
        "bytes": settings.trial_bytes,
    }
    try:
        async with asyncio.timeout(settings.load_seconds):
            await run_child(
                "app.models.verification",
                job,
                lambda message: results.update({Path(message.pop("path")): Inspection(**message)}),
            )
    except ChildError as error:
        reason = f"reading it failed: {error}"
    except TimeoutError:
        reason = f"not read within {settings.load_seconds:g} s, all files together (KRON_LOAD_SECONDS)"
    else:
        reason = "reading it failed"
    return {path: results.get(path, Inspection(error=reason)) for path in paths}


def main() -> None:
    """Inspect and try the files of the job, one message per file."""
    job = child.receive()
    # What all of the processes need is loaded once, before they are forked.
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
            process = context.Process(target=_report, args=(path, job, writer))
            process.start()
            writer.close()  # here; what is read ends when the process does
            running[reader] = process, path
        connection: Any
        for connection in wait(list(running)):
            process, path = running.pop(connection)
            try:
                result = json.loads(connection.recv_bytes())
            except EOFError:
                process.join()
                result = {"error": _ended(process.exitcode, job["seconds"])}
            child.send(path=path, **result)


def _report(path: str, limits: Mapping[str, Any], writer: "Connection") -> None:
    """The life of one file's process."""
    from app.models.onnx_checks import examine

    found: Mapping[str, Any]
    try:
        _limit(limits["seconds"], limits["bytes"] + 6 * Path(path).stat().st_size)
        found = examine(Path(path), max_card=MAX_CARD_BYTES + 1)
        if "error" not in found:
            found = {**found, **_try(path, limits["max_batch"], cpu_only=limits["cpu_only"])}
    except MemoryError:
        found = {"error": "it takes more memory than it may (KRON_TRIAL_BYTES)"}
    except OSError as error:
        found = {"error": f"cannot be read: {error.strerror}"}
    writer.send_bytes(json.dumps(found).encode())


def _try(path: str, max_batch: int, *, cpu_only: bool) -> Mapping[str, Any]:
    """Load it and run it once on the CPU: the memory that this adds, and what is wrong with it.

    Where it is to run on a GPU, it may be one that the CPU refuses: whether it is good is found out when it is loaded.
    """
    from app.errors import ModelError, OutOfMemory
    from app.inference.engine import Engine
    from app.inference.session import EMPTY_MODEL, cuda_missing, open_session
    from app.system.heap import trim_heap
    from app.system.process_memory import anonymous_bytes

    runtime = open_session(EMPTY_MODEL, device="cpu", threads=1)  # what any session costs is not this model's
    trim_heap([])  # what the inspection has left would be used again, and be missing in the sum
    before = anonymous_bytes()
    try:
        engine = Engine(Path(path), device="cpu", threads=1)
        engine.warm_up(max_batch)
    except OutOfMemory as error:
        return {"error": f"{error} (KRON_TRIAL_BYTES)"}
    except ModelError as error:
        return {} if not cpu_only and cuda_missing() is None else {"error": str(error)}
    trim_heap([])
    after = anonymous_bytes()
    del runtime
    return {} if before is None or after is None else {"memory_bytes": max(0, after - before)}


def _ended(code: int, seconds: float) -> str:
    """Why a process said nothing."""
    import signal

    if code == -getattr(signal, "SIGALRM", 0):
        return f"reading, loading and running it once took longer than {seconds:g} s (KRON_TRIAL_SECONDS)"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"reading, loading or running it once ended the process that tried it ({how})"


def _limit(seconds: float, size: int) -> None:
    """Have the system end this process after so long, and give it no more memory than that besides what it has."""
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
