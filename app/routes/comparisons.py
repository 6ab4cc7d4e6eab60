"""Comparisons: as one JSON answer, or as a stream of events with the progress on the way."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import BadRequest
from app.http.forms import is_form, read_form
from app.http.responses import Json
from app.jobs.job import Job
from app.jobs.runner import outcome, result
from app.measure.comparison import check, compare, too_long
from app.measure.comparison_schemas import CompareRequest, Comparison, ComparisonList, Report
from app.measure.uploaded_inputs import UploadedInputs
from app.parsing import parse_object, validated
from app.routes.dependencies import ERRORS, ServiceDep
from app.routes.jobs import EVENTS, add_job_routes, stream
from app.service import Service

router = APIRouter(prefix="/api", tags=["comparison"], responses=ERRORS)
add_job_routes(router, "comparison", listed=ComparisonList, shown=Comparison, reported=Report)

_KEYS = frozenset(CompareRequest.model_fields)
_FILES = ".npy, .npz or .csv"


@router.post(
    "/compare",
    response_model=Report,
    summary="Compare models",
    responses={
        200: {
            "description": "The report; with `Accept: text/event-stream`, events `started` with the id, `progress`, "
            "then `report` or `error`.",
            "content": {EVENTS: {}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["inputs"],
                        "properties": {
                            "inputs": {"type": "string", "format": "binary", "description": ".npy, .npz or .csv"},
                            "labels": {"type": "string", "format": "binary", "description": ".npy, .npz or .csv"},
                            "request": {"type": "string", "description": "the JSON body, as text"},
                        },
                    }
                },
                "application/json": {
                    "schema": CompareRequest.model_json_schema(),
                    "examples": {
                        "default": {"summary": "The default twin", "value": {}},
                        "chosen": {
                            "summary": "Two models, one thread",
                            "value": {
                                "models": ["mnist-kronecker", "mnist-dense"],
                                "batch_sizes": [1, 32],
                                "device": "cpu",
                                "threads": 1,
                            },
                        },
                    },
                },
            },
        }
    },
)
async def post_comparison(service: ServiceDep, request: Request) -> Response:
    """Measure memory, latency and answers of 2 to 6 models in processes of their own. One measurement at a time.

    A form brings rows along, with their true labels: then accuracy, agreement and confusion are of those. JSON alone
    measures on the samples that came with the models.

    A client that hangs up on the events leaves the comparison running: its id is in the first of them, and `DELETE`
    ends it. One that hangs up on the plain answer, whose id it has not seen, ends it.
    """
    if is_form(request):
        wanted, inputs = await _form(request)
    else:
        wanted, inputs = validated(CompareRequest, parse_object(await request.body(), _KEYS)), None
    job = await _start(service, wanted, inputs)
    if EVENTS in request.headers.get("accept", ""):
        job.task.add_done_callback(lambda done: _count_failure(service, outcome(done)))
        return stream(job.follow())
    return await _answer(service, job, request)


async def _form(request: Request) -> tuple[CompareRequest, UploadedInputs | None]:
    """The parts `request`, `inputs` and `labels` of a form."""
    text, files = await read_form(request, ("inputs", "labels"), _FILES)
    wanted = validated(CompareRequest, parse_object(text, _KEYS))
    if "inputs" not in files:
        raise BadRequest(f"inputs: missing, expected a file {_FILES}")
    return wanted, await asyncio.to_thread(UploadedInputs.read, files["inputs"], files.get("labels"))


async def _start(service: Service, wanted: CompareRequest, inputs: UploadedInputs | None) -> Job:
    settings = service.settings
    models = service.repository.choose(wanted.models)
    for model in models:
        model.row_input  # noqa: B018 - where it takes no rows of floats, this says why it cannot be compared
    artifacts = [model.artifact for model in models]
    check(artifacts, wanted, settings)
    names = [artifact.name for artifact in artifacts]

    async def work(job: Job) -> Report:
        return await compare(artifacts, wanted, settings, job.progress, inputs=inputs, report_id=job.id)

    job = await service.jobs.start(
        "comparison",
        ", ".join(names),
        wanted.model_dump(mode="json") | {"models": names},
        work,
        seconds=settings.compare_seconds,
        too_long=too_long(settings),
    )
    job.task.add_done_callback(lambda done: service.metrics.job_ended("comparison", outcome(done)))
    return job


async def _answer(service: Service, job: Job, request: Request) -> Response:
    """The report; where the client does not wait for it, the comparison ends too."""
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([job.task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not job.task.done():
            await service.jobs.cancel("comparison", job.id)
            return Response(status_code=499)  # nobody reads it
        return Json(result(job.task).model_dump(mode="json"))
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _count_failure(service: Service, how: str) -> None:
    if how not in {"ok", "cancelled"}:
        service.metrics.failed(how)
