"""Latency and memory of several models, measured in processes of their own. No HTTP in it.

One fresh process per model for memory, loading and the first run; then one process in which all models take turns, for
latency. At most one comparison at a time, within a time limit; the processes are nice, so that serving is undisturbed.
"""

import asyncio
import platform
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from app import probe, stats
from app.artifacts import Artifact
from app.children import ChildError, run_child
from app.cpus import available_cpus
from app.errors import BadRequest, ComparisonError, Conflict, TimedOut
from app.latency import SERIES
from app.lock import Lock
from app.schemas import ComparedModel, CompareRequest, CompareSettings, Environment, Latency, Memory, Pair, Report
from app.session import ARENA, CUDA
from app.settings import Settings

NICENESS = 10
SEED = 0
SECONDS_PER_CELL = 1.0  # of timed runs, for one model at one batch size

Progress = Callable[[str, int, int], None]


class Comparer:
    """Runs one comparison at a time.

    Args:
        settings: how long one may take, and more.
        shared: folder of all processes between which there may be no more than one comparison.
    """

    def __init__(self, settings: Settings, shared: Path | None = None) -> None:
        self._settings = settings
        self._lock = Lock(shared / "comparison.lock") if shared else None
        self._running: asyncio.Task[Report] | None = None

    def start(self, artifacts: Sequence[Artifact], request: CompareRequest, progress: Progress) -> asyncio.Task[Report]:
        """Start to compare; cancel the task to kill its processes.

        Args:
            artifacts: the models, in the order of the request.
            request: batch sizes, device and threads.
            progress: called with the stage, and how many of how many parts are done.

        Raises:
            BadRequest: something in the request cannot be measured here.
            Conflict: another comparison runs.
            From the task: ComparisonError, BadRequest, TimedOut.
        """
        _check(request, artifacts, self._settings)
        if self._running is not None and not self._running.done():
            raise Conflict("another comparison is running; try again later")
        if self._lock is not None and not self._lock.acquire():
            raise Conflict("another comparison is running; try again later")
        self._running = asyncio.create_task(self._run(artifacts, request, progress))
        if self._lock is not None:
            self._running.add_done_callback(self._release)
        return self._running

    def _release(self, _: asyncio.Task[Report]) -> None:
        if self._lock is not None:
            self._lock.release()

    async def stop(self) -> None:
        """End the running comparison, if there is one."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self, artifacts: Sequence[Artifact], request: CompareRequest, progress: Progress) -> Report:
        limit = self._settings.compare_seconds
        try:
            async with asyncio.timeout(limit):
                return await _measure(artifacts, request, self._settings, progress)
        except TimeoutError:
            raise TimedOut(f"the comparison took longer than {limit:g} s (KRON_COMPARE_SECONDS)") from None


def _check(request: CompareRequest, artifacts: Sequence[Artifact], settings: Settings) -> None:
    names = [artifact.name for artifact in artifacts]
    if not 2 <= len(names) <= 6 or len(set(names)) < len(names):
        raise BadRequest(f"models: got {', '.join(names) or 'none'}, expected 2 to 6 different ones")
    sizes = request.batch_sizes
    if len(set(sizes)) < len(sizes):
        raise BadRequest(f"batch_sizes: got {sizes}, expected different ones")
    if max(sizes) > settings.max_batch:
        raise BadRequest(f"batch_sizes: got {max(sizes)}, expected at most {settings.max_batch}")
    if request.threads is not None and request.threads > available_cpus():
        raise BadRequest(
            f"threads: got {request.threads}, expected at most {available_cpus()}, the CPUs to be had here"
        )
    available = onnxruntime.get_available_providers()
    if request.device == "cuda" and CUDA not in available:
        raise BadRequest(f"device: got 'cuda', expected a device of one of: {', '.join(available)}")


async def _measure(
    artifacts: Sequence[Artifact], request: CompareRequest, settings: Settings, progress: Progress
) -> Report:
    started, start = datetime.now(UTC), time.perf_counter()
    sizes = request.batch_sizes
    device = request.device or settings.device
    threads = request.threads or settings.threads_used
    total = len(artifacts) + SERIES * len(sizes)
    cells = len(artifacts) * len(sizes)
    job = {
        "device": device,
        "threads": threads,
        "batch_sizes": sizes,
        "seed": SEED,
        "niceness": NICENESS,
        "seconds_per_cell": min(SECONDS_PER_CELL, 0.4 * settings.compare_seconds / cells),
    }
    models = [
        {"name": artifact.name, "path": str(artifact.path), "samples": str(artifact.samples_path)}
        for artifact in artifacts
    ]
    alone = []
    for index, model in enumerate(models):
        progress(f"memory {model['name']}", index, total)
        alone.append(await _probe(job | {"kind": "memory", "models": [model]}, lambda stage, series: None))
    done = len(artifacts)

    def on_progress(stage: str, series: int) -> None:
        nonlocal done
        progress(stage, done, len(artifacts) + series * len(sizes))
        done += 1

    together = await _probe(job | {"kind": "latency", "models": models}, on_progress)
    compared = [
        _compared(artifact, own, latencies)
        for artifact, own, latencies in zip(artifacts, alone, together["latencies"], strict=True)
    ]
    progress("done", total, total)
    return Report(
        id=uuid.uuid4().hex,
        created=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - start, 2),
        environment=_environment(compared[0].provider, threads),
        settings=CompareSettings(
            batch_sizes=sizes,
            device=device,
            threads=threads,
            inputs=together["inputs"],
            series=together["series"],
            seed=SEED,
            practical_margin=stats.PRACTICAL_MARGIN,
            confidence=stats.CONFIDENCE,
        ),
        models=compared,
        pairs=[_pair(pair, compared) for pair in together["pairs"]],
    )


async def _probe(job: Mapping[str, object], on_progress: Callable[[str, int], None]) -> dict[str, Any]:
    """The result of one measuring process."""
    answers: list[dict[str, Any]] = []

    def on_message(message: dict[str, Any]) -> None:
        if "progress" in message:
            on_progress(message["progress"], message["of"])
        else:
            answers.append(message)

    try:
        await run_child(probe.__name__, job, on_message)
    except ChildError as error:
        raise ComparisonError(f"a measuring process failed: {error}") from None
    if len(answers) != 1:
        raise ComparisonError("a measuring process ended without a result")
    if "refused" in answers[0]:
        raise BadRequest(answers[0]["refused"])
    result: dict[str, Any] = answers[0]["result"]
    return result


def _compared(artifact: Artifact, own: Mapping[str, Any], latencies: Sequence[Mapping[str, Any]]) -> ComparedModel:
    card = artifact.card
    return ComparedModel(
        model=artifact.name,
        version=artifact.version,
        role=card.role if card else None,
        provider=own["provider"],
        parameters=artifact.parameters,
        file_bytes=artifact.file_bytes,
        initializer_bytes=artifact.initializer_bytes,
        macs_per_sample=card.macs_per_sample if card else None,
        test_metric=card.test_metric if card else None,
        load_ms=round(own["load_ms"], 3),
        first_run_ms=round(own["first_run_ms"], 3),
        memory=Memory(**own["memory"]),
        latency=[Latency.model_validate(latency) for latency in latencies],
    )


def _pair(pair: Mapping[str, Any], models: Sequence[ComparedModel]) -> Pair:
    a, b = models[pair["a"]], models[pair["b"]]
    size, ratio, low, high = pair["batch_size"], pair["ratio"], pair["low"], pair["high"]
    verdict = stats.verdict(low, high)
    p50_a, p50_b = (next(latency.p50_us for latency in model.latency if latency.batch_size == size) for model in (a, b))
    medians = f"medians {p50_a:,.1f} µs and {p50_b:,.1f} µs"
    if verdict == "not distinguishable":
        sentence = (
            f"At batch size {size}, {a.model} and {b.model} are not distinguishable "
            f"({medians}; ratio {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f})."
        )
    else:
        fast, slow = (a, b) if verdict == "faster" else (b, a)
        if verdict == "slower":
            ratio, low, high = 1 / ratio, 1 / high, 1 / low
        sentence = (
            f"At batch size {size}, {fast.model} is {ratio:.2f} times as fast as {slow.model} "
            f"({medians} for {a.model} and {b.model}; 95 % interval {low:.2f} to {high:.2f})."
        )
    return Pair(
        a=a.model, b=b.model, batch_size=size, verdict=verdict, sentence=sentence,
        ratio=round(pair["ratio"], 4), low=round(pair["low"], 4), high=round(pair["high"], 4),
    )  # fmt: skip


def _environment(provider: str, threads: int) -> Environment:
    return Environment(
        cpu=_cpu_name(),
        cores=available_cpus(),
        platform=platform.platform(),
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
        numpy=np.__version__,
        provider=provider,
        threads=threads,
        arena=ARENA,
        niceness=NICENESS,
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
