"""Sandboxed smoke tests of model files: each is read, loaded and run in its own process before it is served.

One row decides whether a file is served. What is left of the time and memory goes into runs of several rows, which
decide whether requests may share a run.

The child process (`python -m app.models.verification`) forks one process per file, as many at a time as there are CPUs.
A hostile file can crash, block or exhaust only its own process, and the service does not hold the memory of the `onnx`
package and of parsed models.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.processes import child

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from app.settings import Settings


SECONDS_PER_BYTE = 20 / 2**30  # of weights in other files, which are read twice


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationResult:
    """The sizes and metadata of a model file, or the reason to refuse it.

    Args:
        initializer_bytes: size of the weights: initializers, constants, and numbers in attributes of `ai.onnx.ml`.
        initializer_elements: number of their elements.
        memory_bytes: memory that loading and running the model added to its process; None where it was not measured.
        checksums: SHA-256 of the file and of the files that it keeps weights in, by name, this file first.
        data_files: those other files, relative to its folder, each with its `fingerprint` before it was read.
        card: its model card, not parsed and perhaps cut; None if it has none.
        any_rank: names of the inputs and outputs whose rank the file leaves open.
        independent: each row of every output depends on the same row of the inputs only, as the graph shows.
        graph_reason: how the graph shows that, or why it does not.
        certain: the graph shows the one or the other; False if it has an operator that is not analysed.
        ran: one row ran on the CPU.
        trial_rows: most rows that may run together, as the same rows had the same outputs together and alone; 0 if
            rows must run alone.
        trial_reason: how the runs show that.
        error: the reason to refuse the file; the other fields are empty then.
    """

    initializer_bytes: int = 0
    initializer_elements: int = 0
    memory_bytes: int | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    data_files: Mapping[str, Sequence[int]] = field(default_factory=dict)
    card: str | None = None
    any_rank: Sequence[str] = ()
    independent: bool = False
    graph_reason: str = ""
    certain: bool = False
    ran: bool = False
    trial_rows: int = 0
    trial_reason: str = ""
    error: str | None = None


async def verify(
    paths: Sequence[Path], settings: "Settings", batch_axes: Mapping[Path, bool] | None = None
) -> dict[Path, VerificationResult]:
    """Inspect model files and smoke-test each in its own process.

    The result of a file that crashes its process, or exceeds the limits of time or memory, is an error.

    Args:
        paths: the files.
        settings: limits and devices.
        batch_axes: whether the first axis is the batch, for files whose configuration says so.
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
        "max_model_bytes": settings.max_model_bytes,
        "batch_axes": {str(path): axis for path, axis in (batch_axes or {}).items()},
    }
    try:
        async with asyncio.timeout(settings.load_seconds):
            await run_child(
                "app.models.verification",
                job,
                lambda message: results.update({Path(message.pop("path")): VerificationResult(**message)}),
            )
    except ChildError as error:
        reason = f"its smoke test failed: {error}"
    except TimeoutError:
        reason = f"not read within {settings.load_seconds:g} s, all files together (KRON_LOAD_SECONDS)"
    else:
        reason = "the process of its smoke test ended too early: load the model again"
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
    results: dict[str, Mapping[str, Any]] = {}
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
            process, path = running[connection]
            try:
                results[path] = json.loads(connection.recv_bytes())  # each message replaces the one before
            except (EOFError, OSError):
                process.join()
                del running[connection]
                result = results.pop(path, None) or {"error": _describe_exit(process.exitcode, job["seconds"])}
                child.send(path=path, **result)


def _verify_file(path: str, job: Mapping[str, Any], writer: "Connection") -> None:
    """Verify one file in this process, and send the fields of its `VerificationResult`, once or several times."""
    from app.models.checksums import checksums_of
    from app.models.onnx_checks import inspect_file

    deadline = time.monotonic() + job["seconds"]
    fields: Mapping[str, Any]
    try:
        file_bytes = Path(path).stat().st_size
        _limit_time(job["seconds"])
        _limit_memory(job["bytes"] + 6 * file_bytes)
        fields = inspect_file(Path(path), max_card_chars=job["max_card_chars"], max_bytes=job["max_model_bytes"])
        if "error" not in fields:
            data_files = fields["data_files"]
            data_bytes = sum(size for size, *_ in data_files.values())
            reading_seconds = data_bytes * SECONDS_PER_BYTE
            _extend_time(reading_seconds)
            _limit_memory(job["bytes"] + 6 * (file_bytes + data_bytes))
            fields = {**fields, "checksums": checksums_of(Path(path).parent, [Path(path).name, *data_files])}
            for tested in _smoke_test(path, job, fields, deadline + reading_seconds):
                fields = {**fields, **tested}
                writer.send_bytes(json.dumps(fields).encode())
            return
    except MemoryError:
        fields = {"error": "it needs more memory than a smoke test may have (KRON_TRIAL_BYTES)"}
    except OSError as error:
        fields = {"error": f"cannot be read: {error.strerror}"}
    writer.send_bytes(json.dumps(fields).encode())


def _smoke_test(
    path: str, job: Mapping[str, Any], fields: Mapping[str, Any], deadline: float
) -> Iterator[Mapping[str, Any]]:
    """Load a model and run it on the CPU, one row first, then several.

    Yields the memory that this added, and what the runs show, or the error; later results replace earlier ones, which
    stand if this process ends in between. A model for a GPU may be one that the CPU cannot run, so its error is found
    when it is loaded there.
    """
    from app.errors import ModelError, OutOfMemory
    from app.inference import trial
    from app.inference.engine import Engine
    from app.inference.session import EMPTY_MODEL, open_session, why_no_cuda
    from app.system.heap import trim_heap
    from app.system.process_memory import anonymous_bytes

    empty_session = open_session(EMPTY_MODEL, device="cpu", threads=1)  # the cost of any session is not this model's
    trim_heap()  # the model would use pages that the inspection freed, and they would be missing in the difference
    before = anonymous_bytes()

    def memory() -> Mapping[str, int]:
        trim_heap()
        after = anonymous_bytes()
        return {} if before is None or after is None else {"memory_bytes": max(0, after - before)}

    try:
        engine = Engine(
            Path(path),
            device="cpu",
            threads=1,
            any_rank=fields["any_rank"],
            batch_axis=job["batch_axes"].get(path),
            rows_apart=fields["independent"],
        )
        first = trial.run_one_row(engine)
    except OutOfMemory as error:
        yield {"error": f"{error} (KRON_TRIAL_BYTES)"}
        return
    except ModelError as error:
        yield {} if not job["cpu_only"] and why_no_cuda() is None else {"error": str(error)}
        return
    yield {**memory(), "ran": True, "trial_reason": "the smoke test ended while it ran several rows together"}
    rows, reason = 0, ""
    try:
        joining = engine.decide_by_runs(first, job["max_batch"], lambda: deadline - time.monotonic())
        rows, reason = joining.max_rows, joining.reason
    except (MemoryError, ModelError) as error:
        reason = f"several rows together fail: {str(error) or type(error).__name__}"
    yield {**memory(), "trial_rows": rows, "trial_reason": reason}
    del empty_session


def _describe_exit(code: int, seconds: float) -> str:
    """The reason why a process exited without a result, by its exit code."""
    import signal

    if code == -getattr(signal, "SIGALRM", 0):
        return f"reading, loading and running it once took longer than {seconds:g} s (KRON_TRIAL_SECONDS)"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"reading, loading or running it once crashed the process of its smoke test ({how}): export the model again"


def _limit_time(seconds: float) -> None:
    """Limit this process, on Unix, to `seconds` from now, and keep it from dumping its memory when it crashes."""
    try:
        import resource
        import signal
    except ImportError:
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _extend_time(seconds: float) -> None:
    """Extend the time limit of this process by `seconds`."""
    with suppress(ImportError, AttributeError):  # on Windows, where there is no limit
        import signal

        signal.setitimer(signal.ITIMER_REAL, signal.getitimer(signal.ITIMER_REAL)[0] + seconds)


def _limit_memory(size: int) -> None:
    """Limit this process, on Unix, to `size` bytes of memory beyond its present use."""
    try:
        import resource
    except ImportError:
        return
    with suppress(OSError):
        size += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


if __name__ == "__main__":
    main()
