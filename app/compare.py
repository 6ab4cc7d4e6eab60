"""Latency and memory of several models, measured in processes of their own. No HTTP in it.

One fresh process per model for memory, loading and the first run; then one process in which all models take turns, for
latency. The processes are nice, so that serving is undisturbed.
"""

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
from app.errors import BadRequest, ComparisonError
from app.latency import SERIES
from app.reports import ComparedModel, CompareRequest, CompareSettings, Environment, Latency, Memory, Pair, Report
from app.session import ARENA, CUDA
from app.settings import Settings

NICENESS = 10
SEED = 0
SECONDS_PER_CELL = 1.0  # of timed runs, for one model at one batch size

OnProgress = Callable[[str, int, int], None]


def check(artifacts: Sequence[Artifact], request: CompareRequest, settings: Settings) -> None:
    """Refuse what cannot be measured here.

    Raises:
        BadRequest: with what was got and what was expected.
    """
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


async def compare(
    artifacts: Sequence[Artifact],
    request: CompareRequest,
    settings: Settings,
    progress: OnProgress,
    *,
    report_id: str | None = None,
) -> Report:
    """Measure; cancel it to kill its processes. There is no time limit in it.

    Args:
        artifacts: the models, in the order of the request, as `check` has found them good.
        request: batch sizes, device and threads.
        settings: what the service was told.
        progress: called with the stage, and how many of how many parts are done.
        report_id: of the report; by default a new one.

    Raises:
        ComparisonError: a measuring process failed.
        BadRequest: a model does not do what was asked for.
    """
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
        id=report_id or uuid.uuid4().hex,
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


def too_long(settings: Settings) -> str:
    """What to say of a comparison that took longer than it may."""
    return f"the comparison took longer than {settings.compare_seconds:g} s (KRON_COMPARE_SECONDS)"


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
