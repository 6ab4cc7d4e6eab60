"""Training: `kronmodel train` in a child process, then serving of the models that it published. No HTTP."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.errors import BadRequest, KronError, TrainingError
from app.jobs.job import Job
from app.measure.comparison_schemas import NICENESS
from app.models.repository import Repository
from app.processes.parent import ChildError, MemoryLimitExceeded, run_child_for_result
from app.settings import Settings
from app.system.aio import run_in_thread_to_completion
from app.system.cpus import available_cpus
from app.training import child
from app.training.folder import TrainingFolder
from app.training.inspection import reason_of
from app.training.schemas import MAX_WIDTH, EpochReport, TrainedMember, TrainingPlan, TrainingReport, TrainRequest
from app.training.uploaded import UploadedData

LIMIT_NAME = "KRON_TRAIN_SECONDS"


def check(request: TrainRequest, uploaded: UploadedData | None) -> None:
    """Check a training request as far as possible without reading the data.

    Raises:
        BadRequest: saying what was got and what was expected.
    """
    if (request.data is None) == (uploaded is None):
        got = "nothing" if uploaded is None else f"{request.data!r} and a file"
        raise BadRequest(f"data: got {got}, expected the name of a data set, or a file as the part `data` of a form")
    is_table = uploaded is not None and uploaded.is_table
    if is_table and request.target is None:
        raise BadRequest("target: missing, expected the column of the table to predict")
    of_tables = {"target": request.target, "skip_bad_rows": request.skip_bad_rows, **request.kinds()}
    for field, given, allowed, source in (
        *((name, bool(value), is_table, "a table such as a .csv file") for name, value in of_tables.items()),
        ("task", request.task is not None, uploaded is not None, "a file"),
    ):
        if given and not allowed:
            raise BadRequest(f"{field}: expected with {source} only")
    for index, (rows, columns) in enumerate(request.hidden or ()):
        if rows * columns > MAX_WIDTH:
            raise BadRequest(f"hidden[{index}]: got {rows} x {columns}, expected a product of at most {MAX_WIDTH}")


def title(request: TrainRequest, uploaded: UploadedData | None) -> str:
    """The title of a training in lists."""
    data = request.data if uploaded is None else uploaded.file_name
    return f"{request.name} on {data}" if request.name else str(data)


async def train(
    request: TrainRequest, uploaded: UploadedData | None, settings: Settings, repository: Repository, job: Job
) -> TrainingReport:
    """Train models in a child process, publish and serve them. Cancelling kills the process; callers limit the time.

    Args:
        request: the request, which `check` has accepted.
        uploaded: the file to train on; None for a data set that the request names.
        settings: the settings of the service.
        repository: loads the published models.
        job: receives the progress and the events `plan` and `epoch`.

    Raises:
        TrainingError: the training failed.
    """
    start = time.perf_counter()
    monitor = _Monitor(job)
    async with _temporary_folder(settings.models, monitor) as folder:
        data = str(request.data)
        if uploaded is not None:
            data = str(await run_in_thread_to_completion(uploaded.save, folder))
        arguments = _arguments(request, data, settings, folder, pad=uploaded is not None)
        result = await _run_child(arguments, settings, folder, monitor)
    models: Mapping[str, Mapping[str, Any]] = result["models"]
    not_served = await serve(repository, {model["name"]: model["version"] for model in models.values()})
    job.progress("exporting", 1, 1)
    plan = monitor.plan
    members = [
        TrainedMember.model_validate(
            {
                "role": role,
                "training_seconds": model["train_seconds"],
                "epochs": [epoch for epoch in monitor.epochs if epoch.role == role],
                **{field: model[field] for field in _COPIED_FIELDS if field in model},
            }
        )
        for role, model in models.items()
    ]
    return TrainingReport(
        id=job.id,
        created=job.created,
        seconds=round(time.perf_counter() - start, 2),
        headline="; ".join(map(_sentence, members)),
        metric=plan.metric,
        request=job.summary.request,
        data=plan.data,
        members=members,
        served=not_served is None,
        not_served=not_served,
    )


_COPIED_FIELDS = (
    "name", "version", "parameters", "weight_bytes", "c", "macs_per_sample", "test_metric", "ms_per_step",
)  # fmt: skip


class _Monitor:
    """Collects the messages of the child process and forwards them to the job.

    Args:
        job: receives the progress and the events `plan` and `epoch`.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self.pid: int | None = None  # of the child process
        self.plan: TrainingPlan
        self.epochs: list[EpochReport] = []

    def receive(self, message: dict[str, Any]) -> None:
        """Handle one message: the pid, or an event of `kronmodel train`."""
        job = self._job
        match message.get("event"):
            case None:
                self.pid = message["pid"]
            case "plan":
                epochs = max(member["epochs"] for member in message["members"])
                self.plan = TrainingPlan.model_validate(message | {"epochs": epochs})
                job.publish("plan", self.plan.model_dump(mode="json"))
            case "step":
                job.progress(message["role"], message["step"], message["steps"])
            case "epoch":
                self.epochs.append(EpochReport.model_validate(message))
                job.publish("epoch", self.epochs[-1].model_dump(mode="json"))
            case "exporting":
                job.progress("exporting", 0, 1)


async def _run_child(arguments: list[str], settings: Settings, folder: Path, monitor: _Monitor) -> dict[str, Any]:
    """Run `kronmodel train` and return the JSON object that it prints.

    Raises:
        TrainingError: it failed or exceeded the memory limit.
    """
    child_job = {"arguments": arguments, "progress": True, "folder": str(folder), "niceness": NICENESS}
    most = settings.train_memory_bytes
    try:
        return await run_child_for_result(child.__name__, child_job, monitor.receive, max_memory_bytes=most)
    except MemoryLimitExceeded:
        text = f"the training was killed: it took more than {most} bytes of memory (KRON_TRAIN_MEMORY_BYTES)"
        raise TrainingError(text) from None
    except ChildError as error:
        reason = reason_of(error, folder)
        raise TrainingError(f"the training failed: {reason}") from None


def _arguments(request: TrainRequest, data: str, settings: Settings, folder: Path, *, pad: bool) -> list[str]:
    """Build the command line of `kronmodel train`.

    Values are joined to their options by `=`, so that none is parsed as an option.

    Args:
        request: the request.
        data: name of a data set, or path of a file.
        settings: the settings of the service.
        folder: temporary folder of the training.
        pad: whether to pad the features where the request does not say.
    """
    values: dict[str, object] = {
        "data": data,
        "out": settings.models,
        "checkpoint": folder / "checkpoints",
        # Half of the CPUs, so that the service keeps responding.
        "threads": max(1, available_cpus() // 2),
        "kind": request.kind,
        "seed": request.seed,
        "target": request.target,
        "task": request.task,
        "name": request.name,
        "recipe": request.recipe,
        "rank": request.rank,
        "hidden": request.hidden and ",".join("x".join(map(str, shape)) for shape in request.hidden),
        "activation": request.activation,
        "epochs": request.epochs,
        "batch-size": request.batch_size,
        "learning-rate": request.learning_rate,
    }
    flags = {"skip-bad-rows": request.skip_bad_rows, "pad": pad if request.pad is None else request.pad}
    return [
        "train",
        "--json",
        *(f"--{option}={value}" for option, value in values.items() if value is not None),
        *(f"--{option}" for option, given in flags.items() if given),
        *request.arguments(),
    ]


@asynccontextmanager
async def _temporary_folder(models: Path, monitor: _Monitor) -> AsyncIterator[Path]:
    """A private temporary folder that is removed at the end of the block, also after a cancellation."""
    folder = TrainingFolder(models)
    try:
        await run_in_thread_to_completion(folder.make)
        yield folder.path
    finally:
        await run_in_thread_to_completion(folder.remove, monitor.pid)


async def serve(repository: Repository, published: Mapping[str, str]) -> str | None:
    """Load published models in every worker.

    Args:
        repository: the model repository.
        published: versions by name of the model.

    Returns:
        Why one of them cannot be served; None where all are.
    """
    for name, version in published.items():
        try:
            await repository.load_model(name)
        except KronError as error:
            return str(error)
        if version not in repository.versions(name):
            return f"{name} version {version} is not among the versions to serve (KRON_VERSION_POLICY)"
    return None


def _sentence(member: TrainedMember) -> str:
    metric = member.test_metric
    value = f"{metric.value:.2%}" if metric.name == "accuracy" else f"{metric.value:.4g}"
    return f"{member.name} version {member.version}: {metric.name} {value} with {member.parameters:,} weights"
