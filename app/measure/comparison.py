"""Comparison of several models: memory, latency and quality, measured in processes apart from the service. No HTTP.

The measuring processes run one after the other: one that compares the interfaces and selects the inputs; one for each
model's memory, loading time and first run; one in which all models are timed in turns; where requested, one that starts
a service of these models and times it as a client; and one that evaluates the outputs. Their priority is low.
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
from app.measure.children import inputs as inputs_child
from app.measure.children import quality as quality_child
from app.measure.children import service as service_child
from app.measure.children import session as session_child
from app.measure.comparison_schemas import (
    NICENESS,
    ComparedModel,
    CompareRequest,
    CompareSettings,
    Environment,
    Latency,
    MeasuredInputs,
    MeasuredLayer,
    Memory,
    Report,
)
from app.measure.inputs.uploaded import UploadedInputs
from app.measure.quality_schemas import Quality
from app.measure.timing import SERIES
from app.models.scan import Artifact
from app.processes.parent import run_measuring_process
from app.settings import Settings
from app.system.aio import run_in_thread_to_completion
from app.system.files import PrivateFolder

SEED = 0
SECONDS_PER_CELL = 1.0  # of timed runs, for one model at one batch size
SERVICE_FRACTION = 0.5  # of that, for the layers of the service
SESSION_FRACTION = 0.4  # of the time limit, for measuring the latency of the session
LIMIT_FRACTION = 0.8  # of the time limit, which a request may ask for at most
LIMIT_NAME = "KRON_COMPARE_SECONDS"
PREFIX = "kronserve-comparison-"  # of temporary folders

OnProgress = Callable[[str, int, int], None]  # stage, parts done, parts in total


def check(artifacts: Sequence[Artifact], request: CompareRequest, settings: Settings) -> None:
    """Check that a comparison can run on this machine and within the limits of the service.

    Raises:
        BadRequest: saying what was got and what was expected.
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
    longest = LIMIT_FRACTION * settings.compare_seconds
    if request.seconds is not None and request.seconds > longest:
        raise BadRequest(f"seconds: got {request.seconds:g}, expected at most {longest:g}, of {LIMIT_NAME}")
    check_device(request.device)


async def compare(
    artifacts: Sequence[Artifact],
    request: CompareRequest,
    settings: Settings,
    progress: OnProgress,
    *,
    uploaded: UploadedInputs | None = None,
    report_id: str | None = None,
) -> Report:
    """Run a comparison. Cancelling it kills its processes; the caller limits the time.

    Args:
        artifacts: the models, which `check` has accepted, in the order of the request.
        request: batch sizes, device, threads and layers.
        settings: the settings of the service.
        progress: called with the stage, the number of parts done and the total number of parts.
        uploaded: rows to measure on, instead of the models' own samples.
        report_id: id of the report; by default a new one.

    Raises:
        ComparisonError: a measuring process failed, or the disk is full.
        BadRequest: a model cannot be measured as requested.
    """
    async with temporary_folder() as folder:
        comparison = _Comparison(artifacts, request, settings, progress, folder)
        return await comparison.run(report_id or uuid.uuid4().hex, uploaded)


class _Comparison:
    """Runs the measuring processes of one comparison and builds its report.

    Args:
        artifacts: the models.
        request: batch sizes, device, threads and layers.
        settings: the settings of the service.
        progress: called at the beginning of each part.
        folder: temporary folder for uploaded rows and copies of the models.
    """

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
        self._layers = _service_layers(request)
        self._device = request.device or settings.device
        self._threads = request.threads or settings.threads_used
        self._seconds = seconds_per_cell(artifacts, request, settings)
        self._total = (
            2 + len(artifacts) + (SERIES + service_child.SERIES * bool(self._layers)) * len(request.batch_sizes)
        )
        self._done = 0
        self._job: dict[str, Any] = {
            "device": self._device,
            "threads": self._threads,
            "batch_sizes": request.batch_sizes,
            "seed": SEED,
            "niceness": NICENESS,
            "seconds_per_cell": self._seconds,
            "max_seconds": SESSION_FRACTION * settings.compare_seconds,
            "uploaded": None,
            "inputs": str(folder / "inputs"),
            "models": [model_job(artifact) for artifact in artifacts],
        }

    async def run(self, report_id: str, uploaded: UploadedInputs | None) -> Report:
        """Run every measuring process and build the report; arguments as for `compare`."""
        created, start = datetime.now(UTC), time.perf_counter()
        if uploaded is not None:
            path = self._folder / "uploaded.npz"
            await _write("the rows cannot be kept", uploaded.save, path)
            self._job["uploaded"] = {"name": uploaded.name, "path": str(path)}
        inputs = await self._select_inputs()
        sizes = self._job["batch_sizes"]
        loads = [await self._measure_memory(model) for model in self._job["models"]]
        session = await run_measuring_process(session_child.__name__, self._job | {"kind": "latency"}, self._begin_part)
        self._done = 1 + len(loads) + SERIES * len(sizes)
        service = await self._measure_service() if self._layers else {"layers": {}, "series": None, "notes": []}
        self._done = self._total - 1
        answers = await self._measure_answers(inputs)
        inputs.notes.extend(service["notes"])
        layers = {layer: service["layers"][layer] for layer in self._layers if layer in service["layers"]}
        models = [
            _compared_model(
                artifact,
                loads[index],
                [Latency.model_validate(latency) for latency in session["latencies"][index]],
                [
                    Latency.model_validate(latency | {"depth": layer})
                    for layer, (latencies, _) in layers.items()
                    for latency in latencies[index]
                ],
            )
            for index, artifact in enumerate(self._artifacts)
        ]
        pairs = [conclusions.compared_pair(pair, models, "session") for pair in session["pairs"]]
        self._progress("done", self._total, self._total)
        return Report(
            id=report_id,
            created=created.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - start, 2),
            environment=Environment.current(models[0].provider, self._threads),
            settings=CompareSettings(
                batch_sizes=sizes,
                device=self._device,
                threads=self._threads,
                inputs=inputs.name,
                series=session["series"],
                service_series=service["series"],
                seconds_per_cell=round(self._seconds, 4),
                depths=["session", *layers],
                seed=SEED,
                practical_margin=bootstrap.PRACTICAL_MARGIN,
                confidence=bootstrap.CONFIDENCE,
            ),
            models=models,
            pairs=pairs,
            service_pairs=[
                conclusions.compared_pair(pair, models, layer)
                for layer, (_, layer_pairs) in layers.items()
                for pair in layer_pairs
            ],
            memory_sentence=conclusions.memory_sentence(models),
            predictions=conclusions.predicted_ratios(models, pairs),
            quality=Quality.model_validate(answers["quality"]) if answers["quality"] else None,
            inputs=inputs,
            nodes=answers["nodes"],
            differences=[conclusions.output_difference(each, inputs.rows) for each in answers["differences"]],
        )

    def _begin_part(self, message: Mapping[str, Any]) -> None:
        """Report that a measuring process begins its next part."""
        self._progress(message["progress"], min(self._done, self._total - 1), self._total)
        self._done += 1

    async def _select_inputs(self) -> MeasuredInputs:
        """Find inputs that all models take, and the batch sizes to measure; models of other interfaces are refused."""
        self._begin_part({"progress": "inputs"})
        found = await run_measuring_process(inputs_child.__name__, self._job)
        self._job["batch_sizes"] = found.pop("batch_sizes")
        return MeasuredInputs.model_validate(found)

    async def _measure_memory(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Measure memory, loading time and the first run of one model."""
        self._begin_part({"progress": f"memory {model['name']}"})
        return await run_measuring_process(session_child.__name__, self._job | {"kind": "memory", "models": [model]})

    async def _measure_service(self) -> dict[str, Any]:
        """Measure the latency of the queue and of HTTP, in a service of these models only."""
        folder = self._folder / "models"
        for artifact in self._artifacts:  # one by one, so that a cancelled comparison waits for one copy at most
            await _write(f"{artifact.name} cannot be copied", _copy_model, artifact, folder)
        environment = {
            "KRON_MODELS": str(folder),
            "KRON_HOST": "127.0.0.1",
            "KRON_DEVICE": self._device,
            "KRON_THREADS": str(self._threads),
            "KRON_MAX_BATCH": str(self._settings.max_batch),
            "KRON_MAX_MODEL_BYTES": str(self._settings.max_model_bytes),
            "KRON_MAX_BODY_BYTES": str(2 * service_child.MAX_BODY_BYTES),
            "KRON_REPORTS": "off",
            "KRON_LOG_LEVEL": "error",
        }
        job = self._job | {
            "environment": environment,
            "seconds_per_cell": SERVICE_FRACTION * self._seconds,
            "max_seconds": SERVICE_FRACTION * self._job["max_seconds"],
        }
        return await run_measuring_process(service_child.__name__, job, self._begin_part)

    async def _measure_answers(self, inputs: MeasuredInputs) -> dict[str, Any]:
        """Evaluate the models on the same inputs; fields of `Quality`, or None, `OutputDifference` and `ModelNodes`."""
        self._begin_part({"progress": "answers and nodes" if self._request.nodes else "answers"})
        job = {"source": {"source": inputs.source, "name": inputs.name}, "nodes": self._request.nodes}
        return await run_measuring_process(quality_child.__name__, self._job | job)


@asynccontextmanager
async def temporary_folder() -> AsyncIterator[Path]:
    """A private temporary folder that is removed at the end of the block, also after a cancellation.

    Raises:
        ComparisonError: the folder cannot be made.
    """
    folder = PrivateFolder(PREFIX)
    try:
        await _write("a folder cannot be made", folder.make)
        yield folder.path
    finally:
        await run_in_thread_to_completion(folder.remove)


async def _write(failure: str, function: Callable[..., None], *args: object) -> None:
    """Call a function that writes to the disk in a thread, and wait for its end even when cancelled.

    Raises:
        ComparisonError: `failure` and the reason that the system gives.
    """
    try:
        await run_in_thread_to_completion(function, *args)
    except OSError as error:
        raise ComparisonError(f"{failure} for the comparison: {error.strerror or error}") from None


def model_job(artifact: Artifact) -> dict[str, Any]:
    """Build the description of a model that measuring processes receive in their job."""
    card = None if artifact.card is None else artifact.card.model_dump_json()
    return {"name": artifact.name, "path": str(artifact.path), "samples": str(artifact.samples_path), "card": card}


def _copy_model(artifact: Artifact, folder: Path) -> None:
    """Link or copy the files of a model into another model repository; blocking."""
    for name in (artifact.path.name, *artifact.data_files):
        path = folder / artifact.name / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        source = (artifact.path.parent / name).resolve()  # a link to another folder would not be loaded
        try:
            os.link(source, path)
        except OSError:  # another file system
            shutil.copyfile(source, path)


def seconds_per_cell(artifacts: Sequence[Artifact], request: CompareRequest, settings: Settings) -> float:
    """Time of timed runs of one model at one batch size, at the session."""
    cells = len(artifacts) * len(request.batch_sizes) * (1 + SERVICE_FRACTION * bool(_service_layers(request)))
    most = min(SECONDS_PER_CELL * cells, 0.4 * settings.compare_seconds)
    return (most if request.seconds is None else request.seconds) / cells


def _service_layers(request: CompareRequest) -> list[MeasuredLayer]:
    """The requested layers that need a service to measure."""
    return [layer for layer in ("queue", "http") if layer in request.depths]


def _compared_model(
    artifact: Artifact, load: Mapping[str, Any], latency: Sequence[Latency], service_latency: Sequence[Latency]
) -> ComparedModel:
    """Build the entry of one model in the report.

    Args:
        artifact: the model.
        load: memory, loading time and first run, as measured.
        latency: at the session.
        service_latency: at the layers of the service.
    """
    card = artifact.card
    return ComparedModel(
        model=artifact.name,
        version=artifact.version,
        role=card.role if card else None,
        provider=load["provider"],
        parameters=artifact.parameters,
        file_bytes=artifact.file_bytes,
        initializer_bytes=artifact.initializer_bytes,
        weight_bytes=artifact.weight_bytes,
        c=card.c if card else None,
        macs_per_sample=card.macs_per_sample if card else None,
        test_metric=card.test_metric if card else None,
        load_ms=round(load["load_ms"], 3),
        first_run_ms=round(load["first_run_ms"], 3),
        memory=Memory(**load["memory"]),
        latency=list(latency),
        service_latency=list(service_latency),
    )
