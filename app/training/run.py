"""One training: `kronmodel train` in a process of its own, then what it published is served. No HTTP in it."""

import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.errors import BadRequest, KronError, TrainingError
from app.jobs.job import Job
from app.measure.environment import NICENESS
from app.models.repository import Repository
from app.processes.parent import ChildError, MemoryLimitExceeded, run_child_for_result
from app.settings import Settings
from app.system.aio import run_in_thread_to_completion
from app.system.cpus import available_cpus
from app.system.files import PrivateFolder
from app.training import child
from app.training.schemas import MAX_WIDTH, EpochReport, Plan, TrainedMember, TrainingReport, TrainRequest

SUFFIXES = (".csv", ".npz")
ERROR_PREFIX = "kronmodel: error: "


class UploadedData:
    """A file that somebody brought along. Untrusted: only the training's own process reads it.

    Args:
        name: as it was called; what is kept of it can be the name of a file and of a model.
        content: its bytes.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self._content = content

    @property
    def suffix(self) -> str:
        """`.csv` or `.npz`, if it is one of ours."""
        return Path(self.name).suffix.lower()

    @property
    def file_name(self) -> str:
        """Letters, digits and dashes, at most 50, and the suffix."""
        stem = Path(self.name.replace("\\", "/")).stem[:50]
        safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem).strip("-")
        return (safe or "data") + self.suffix

    def save(self, folder: Path) -> Path:
        """Write it, and keep it in memory no longer; blocking.

        Raises:
            TrainingError: it cannot be written.
        """
        path = folder / self.file_name
        try:
            path.write_bytes(self._content)
        except OSError as error:
            raise TrainingError(f"the file cannot be kept for the training: {error.strerror}") from None
        self._content = b""
        return path


def check(request: TrainRequest, own: UploadedData | None) -> None:
    """Refuse what cannot be trained, as far as that can be told without reading the data.

    Raises:
        BadRequest: with what was got and what was expected.
    """
    if (request.data is None) == (own is None):
        got = "nothing" if own is None else f"{request.data!r} and a file"
        raise BadRequest(f"data: got {got}, expected the name of a data set, or a file as the part `data` of a form")
    if own is not None and own.suffix not in SUFFIXES:
        raise BadRequest(f"data: got the file {own.name[:100]!r}, expected one that is called .csv or .npz")
    of_csv = own is not None and own.suffix == ".csv"
    if of_csv and request.target is None:
        raise BadRequest("target: missing, expected the column of the .csv file to predict")
    for field, given, allowed, what in (
        ("target", request.target is not None, of_csv, "a .csv file"),
        ("skip_bad_rows", request.skip_bad_rows, of_csv, "a .csv file"),
        ("task", request.task is not None, own is not None, "a file"),
    ):
        if given and not allowed:
            raise BadRequest(f"{field}: expected with {what} only")
    for index, (rows, columns) in enumerate(request.hidden or ()):
        if rows * columns > MAX_WIDTH:
            raise BadRequest(f"hidden[{index}]: got {rows} x {columns}, expected a product of at most {MAX_WIDTH}")


def title(request: TrainRequest, own: UploadedData | None) -> str:
    """What people call it."""
    data = request.data if own is None else own.file_name
    return f"{request.name} on {data}" if request.name else str(data)


def too_long(settings: Settings) -> str:
    """What to say of a training that took longer than it may."""
    return f"the training took longer than {settings.train_seconds:g} s (KRON_TRAIN_SECONDS)"


async def train(
    request: TrainRequest, own: UploadedData | None, settings: Settings, repository: Repository, job: Job
) -> TrainingReport:
    """Train, publish and serve; cancel it to kill its process. There is no time limit in it.

    Args:
        request: as `check` has found it good.
        own: the file to train on, if it is not a data set known by name.
        settings: what the service was told.
        repository: loads what was published.
        job: is told how far it is.

    Raises:
        TrainingError: it failed.
    """
    start = time.perf_counter()
    told = _Told(job)
    async with _folder(settings.models, told) as folder:
        data = str(request.data)
        if own is not None:
            data = str(await run_in_thread_to_completion(own.save, folder))
        answer = await _run(_arguments(request, data, settings, folder, own=own is not None), settings, folder, told)
    models: Mapping[str, Mapping[str, Any]] = answer["models"]
    not_served = await serve(repository, {model["name"]: model["version"] for model in models.values()})
    job.progress("exporting", 1, 1)
    plan = told.plan
    members = [
        TrainedMember.model_validate(
            {
                "role": role,
                "training_seconds": model["train_seconds"],
                "epochs": [epoch for epoch in told.epochs if epoch.role == role],
                **{field: model[field] for field in _SAME},
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


_SAME = ("name", "version", "parameters", "macs_per_sample", "test_metric", "ms_per_step")


class _Told:
    """What the training's process has told so far, and telling it on."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.pid: int | None = None
        self.plan: Plan
        self.epochs: list[EpochReport] = []

    def __call__(self, message: dict[str, Any]) -> None:
        """One message."""
        job = self._job
        match message.get("event"):
            case None:
                self.pid = message["pid"]
            case "plan":
                epochs = max(member["epochs"] for member in message["members"])
                self.plan = Plan.model_validate(message | {"epochs": epochs})
                job.publish("plan", self.plan.model_dump(mode="json"))
            case "step":
                job.progress(message["role"], message["step"], message["steps"])
            case "epoch":
                self.epochs.append(EpochReport.model_validate(message))
                job.publish("epoch", self.epochs[-1].model_dump(mode="json"))
            case "exporting":
                job.progress("exporting", 0, 1)


async def _run(arguments: list[str], settings: Settings, folder: Path, told: _Told) -> dict[str, Any]:
    """What `kronmodel train --json` printed."""
    child_job = {"arguments": arguments, "progress": True, "folder": str(folder), "niceness": NICENESS}
    most = settings.train_memory_bytes
    try:
        return await run_child_for_result(child.__name__, child_job, told, max_memory_bytes=most)
    except MemoryLimitExceeded:
        text = f"the training was killed: it took more than {most} bytes of memory (KRON_TRAIN_MEMORY_BYTES)"
        raise TrainingError(text) from None
    except ChildError as error:
        reason = str(error).removeprefix(ERROR_PREFIX).replace(f"{folder}/", "")
        raise TrainingError(f"the training failed: {reason}") from None


def _arguments(request: TrainRequest, data: str, settings: Settings, folder: Path, *, own: bool) -> list[str]:
    """The command line; each value stands in one piece with its option, so that none is taken for an option itself."""
    values: dict[str, object] = {
        "data": data,
        "out": settings.models,
        "checkpoint": folder / "checkpoints",
        # Half of the CPUs: the service goes on answering.
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
    flags = {"skip-bad-rows": request.skip_bad_rows, "pad": own if request.pad is None else request.pad}
    return [
        "train",
        "--json",
        *(f"--{option}={value}" for option, value in values.items() if value is not None),
        *(f"--{option}" for option, given in flags.items() if given),
    ]


@asynccontextmanager
async def _folder(models: Path, told: _Told) -> AsyncIterator[Path]:
    """A folder for what the training needs on the way, of which nothing is left."""
    folder = TrainingFolder(models)
    try:
        await run_in_thread_to_completion(folder.make)
        yield folder.path
    finally:
        await run_in_thread_to_completion(folder.remove, told.pid)


async def serve(repository: Repository, published: Mapping[str, str]) -> str | None:
    """Load what was published, by name and version, in every worker; why not, where it cannot be."""
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


class TrainingFolder:
    """A folder that is nobody else's, until it is removed. Every method blocks.

    Args:
        models: the folder of models.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._folder = PrivateFolder(PREFIX, models)

    @property
    def path(self) -> Path:
        """Where it is, once it is made."""
        return self._folder.path

    def make(self) -> None:
        """Make it, and remove those of services that were killed.

        Raises:
            TrainingError: the folder of models cannot be written to.
        """
        try:
            self._folder.make()
        except OSError as error:
            raise TrainingError(f"the folder of models cannot be written to: {error.strerror}") from None

    def remove(self, pid: int | None) -> None:
        """Remove it, if it was made, and what the training's process was about to publish when it was killed."""
        for path in self._models.glob(f".publishing-{pid}-*"):
            shutil.rmtree(path, ignore_errors=True)
        self._folder.remove()


PREFIX = ".training-"  # the dot keeps it out of every scan for models
