"""Latency, memory and answers of several models, measured in processes of their own. No HTTP in it.

One fresh process per model for memory, loading and the first run; then one process in which all models take turns, for
latency; then one that asks a service of its own, for what a client sees; then one that looks at the answers. The
processes are nice, so that serving is undisturbed.
"""

import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.errors import BadRequest, ComparisonError
from app.inference.devices import check_device, check_threads
from app.measure import bootstrap, conclusions
from app.measure.children import quality as quality_probe
from app.measure.children import service as service_probe
from app.measure.children import session
from app.measure.comparison_schemas import (
    ComparedModel,
    CompareRequest,
    CompareSettings,
    Depth,
    Latency,
    Memory,
    Quality,
    Report,
)
from app.measure.environment import NICENESS, environment
from app.measure.timing import SERIES
from app.measure.uploaded_inputs import UploadedInputs
from app.models.scan import Artifact
from app.processes.parent import run_measuring_process
from app.settings import Settings
from app.system.aio import run_in_thread_to_completion
from app.system.files import PrivateFolder

SEED = 0
SECONDS_PER_CELL = 1.0  # of timed runs, for one model at one batch size
SERVICE_SHARE = 0.5  # of that, for the depths of the service
SHARE_OF_LIMIT = 0.8  # of the time limit that may be asked for
PREFIX = "kronserve-comparison-"  # of temporary folders

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
    if request.threads is not None:
        check_threads(request.threads)
    longest = SHARE_OF_LIMIT * settings.compare_seconds
    if request.seconds is not None and request.seconds > longest:
        raise BadRequest(f"seconds: got {request.seconds:g}, expected at most {longest:g}, of KRON_COMPARE_SECONDS")
    check_device(request.device)


async def compare(
    artifacts: Sequence[Artifact],
    request: CompareRequest,
    settings: Settings,
    progress: OnProgress,
    *,
    inputs: UploadedInputs | None = None,
    report_id: str | None = None,
) -> Report:
    """Measure; cancel it to kill its processes. There is no time limit in it.

    Args:
        artifacts: the models, in the order of the request, as `check` has found them good.
        request: batch sizes, device, threads, depths.
        settings: what the service was told.
        progress: called with the stage, and how many of how many parts are done.
        inputs: rows to measure on, in place of the models' own samples.
        report_id: of the report; by default a new one.

    Raises:
        ComparisonError: a measuring process failed, or the disk is full.
        BadRequest: a model does not do what was asked for.
    """
    async with _folder() as folder:
        comparison = _Comparison(artifacts, request, settings, progress, folder)
        if inputs is not None:
            await _on_disk("the rows cannot be kept", comparison.take, inputs)
        return await comparison.run(report_id or uuid.uuid4().hex)


class _Comparison:
    """One comparison, part by part."""

    def __init__(
        self,
        artifacts: Sequence[Artifact],
        request: CompareRequest,
        settings: Settings,
        progress: OnProgress,
        folder: Path,
    ) -> None:
        self._artifacts = artifacts
        self._request = request
        self._settings = settings
        self._progress = progress
        self._folder = folder
        self._depths = service_depths(request)
        self._device = request.device or settings.device
        self._threads = request.threads or settings.threads_used
        self._seconds = seconds_per_cell(artifacts, request, settings)
        series = SERIES + (service_probe.SERIES if self._depths else 0)
        self._total = len(artifacts) + series * len(request.batch_sizes) + 1
        self._done = 0
        self._job: dict[str, Any] = {
            "device": self._device,
            "threads": self._threads,
            "batch_sizes": request.batch_sizes,
            "seed": SEED,
            "niceness": NICENESS,
            "seconds_per_cell": self._seconds,
            "own": None,
            "models": [_job_of(artifact) for artifact in artifacts],
        }

    def take(self, inputs: UploadedInputs) -> None:
        """Measure on these rows; blocking."""
        path = self._folder / "inputs.npz"
        inputs.save(path)
        self._job["own"] = {"name": inputs.name, "path": str(path)}

    async def run(self, report_id: str) -> Report:
        """Every part, one after the other."""
        created, start = datetime.now(UTC), time.perf_counter()
        alone = [await self._memory(model) for model in self._job["models"]]
        together = await run_measuring_process(session.__name__, self._job | {"kind": "latency"}, self._step)
        self._done = len(alone) + SERIES * len(self._request.batch_sizes)
        service = await self._service() if self._depths else {"depths": {}, "series": None}
        self._done = self._total - 1
        quality = await self._quality()
        depths = {depth: service["depths"][depth] for depth in self._depths if depth in service["depths"]}
        models = [
            _compared(
                artifact,
                alone[index],
                [Latency.model_validate(latency) for latency in together["latencies"][index]],
                [
                    Latency.model_validate(latency | {"depth": depth})
                    for depth, (latencies, _) in depths.items()
                    for latency in latencies[index]
                ],
            )
            for index, artifact in enumerate(self._artifacts)
        ]
        pairs = [conclusions.pair_of(pair, models, "session") for pair in together["pairs"]]
        self._progress("done", self._total, self._total)
        return Report(
            id=report_id,
            created=created.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - start, 2),
            environment=environment(models[0].provider, self._threads),
            settings=CompareSettings(
                batch_sizes=self._request.batch_sizes,
                device=self._device,
                threads=self._threads,
                inputs=together["inputs"],
                series=together["series"],
                service_series=service["series"],
                seconds_per_cell=round(self._seconds, 4),
                depths=["session", *depths],
                seed=SEED,
                practical_margin=bootstrap.PRACTICAL_MARGIN,
                confidence=bootstrap.CONFIDENCE,
            ),
            models=models,
            pairs=pairs,
            service_pairs=[
                conclusions.pair_of(pair, models, depth) for depth, (_, found) in depths.items() for pair in found
            ],
            memory_sentence=conclusions.memory_sentence(models),
            predictions=conclusions.predictions(models, pairs),
            quality=quality,
        )

    def _step(self, message: Mapping[str, Any]) -> None:
        """A measuring process begins its next part."""
        self._progress(message["progress"], min(self._done, self._total - 1), self._total)
        self._done += 1

    async def _memory(self, model: Mapping[str, Any]) -> dict[str, Any]:
        self._step({"progress": f"memory {model['name']}"})
        return await run_measuring_process(session.__name__, self._job | {"kind": "memory", "models": [model]})

    async def _service(self) -> dict[str, Any]:
        """Through the queue and over HTTP, of a service that has these models only."""
        folder = self._folder / "models"
        for artifact in self._artifacts:  # one by one, so that a cancelled comparison waits for one of them at most
            await _on_disk(f"{artifact.name} cannot be copied", _copy_model, artifact, folder)
        environment = {
            "KRON_MODELS": str(folder),
            "KRON_HOST": "127.0.0.1",
            "KRON_DEVICE": self._device,
            "KRON_THREADS": str(self._threads),
            "KRON_MAX_BATCH": str(self._settings.max_batch),
            "KRON_MAX_MODEL_BYTES": str(self._settings.max_model_bytes),
            "KRON_MAX_BODY_BYTES": str(2 * service_probe.MAX_BODY_BYTES),
            "KRON_REPORTS": "off",
            "KRON_LOG_LEVEL": "error",
        }
        job = self._job | {"environment": environment, "seconds_per_cell": SERVICE_SHARE * self._seconds}
        return await run_measuring_process(service_probe.__name__, job, self._step)

    async def _quality(self) -> Quality | None:
        """What the models say to the rows; None where there are none that all of them take."""
        self._step({"progress": "answers"})
        result = await run_measuring_process(quality_probe.__name__, self._job)
        return Quality.model_validate(result["quality"]) if result["quality"] else None


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    """A folder for what the comparison needs on the way, of which nothing is left."""
    folder = PrivateFolder(PREFIX)
    try:
        await _on_disk("a folder cannot be made", folder.make)
        yield folder.path
    finally:
        await run_in_thread_to_completion(folder.remove)


async def _on_disk(failure: str, function: Callable[..., None], *args: object) -> None:
    """Call it in a thread, to its end; a disk that does not take it is told in one line."""
    try:
        await run_in_thread_to_completion(function, *args)
    except OSError as error:
        raise ComparisonError(f"{failure} for the comparison: {error.strerror or error}") from None


def _job_of(artifact: Artifact) -> dict[str, Any]:
    card = None if artifact.card is None else artifact.card.model_dump_json()
    return {"name": artifact.name, "path": str(artifact.path), "samples": str(artifact.samples_path), "card": card}


def _copy_model(artifact: Artifact, folder: Path) -> None:
    """Put it among the models of a folder; blocking."""
    path = folder / artifact.name / "1" / artifact.path.name
    path.parent.mkdir(parents=True)
    try:
        os.link(artifact.path, path)
    except OSError:  # another file system
        shutil.copyfile(artifact.path, path)


def seconds_per_cell(artifacts: Sequence[Artifact], request: CompareRequest, settings: Settings) -> float:
    """How long one model is timed at one batch size at the session."""
    cells = len(artifacts) * len(request.batch_sizes) * (1 + SERVICE_SHARE * bool(service_depths(request)))
    if request.seconds is not None:
        return request.seconds / cells
    return min(SECONDS_PER_CELL, 0.4 * settings.compare_seconds / cells)


def service_depths(request: CompareRequest) -> list[Depth]:
    """The depths that take a service to measure."""
    return [depth for depth in ("queue", "http") if depth in request.depths]


def too_long(settings: Settings) -> str:
    """What to say of a comparison that took longer than it may."""
    return f"the comparison took longer than {settings.compare_seconds:g} s (KRON_COMPARE_SECONDS)"


def _compared(
    artifact: Artifact, own: Mapping[str, Any], latency: Sequence[Latency], service_latency: Sequence[Latency]
) -> ComparedModel:
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
        latency=list(latency),
        service_latency=list(service_latency),
    )
