"""Comparisons: as one JSON answer, or as a stream of events with the progress on the way."""

import asyncio

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from app.compare import check, compare, too_long
from app.errors import BadRequest
from app.jobs import Job, outcome, result
from app.reports import CompareRequest, Comparison, ComparisonList, Report
from app.responses import Json, read_object
from app.routes.jobs import EVENTS, add_job_routes, stream
from app.routes.state import ERRORS, ServiceDep
from app.service import Service
from app.settings import explain

router = APIRouter(prefix="/api", tags=["comparison"], responses=ERRORS)
add_job_routes(router, "comparison", listed=ComparisonList, shown=Comparison)

_KEYS = frozenset(CompareRequest.model_fields)


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
                }
            },
        }
    },
)
async def post_comparison(service: ServiceDep, request: Request) -> Response:
    """Measure memory and latency of 2 to 6 models in processes of their own. One measurement at a time.

    A client that hangs up on the events leaves the comparison running: its id is in the first of them, and `DELETE`
    ends it. One that hangs up on the plain answer, whose id it has not seen, ends it.
    """
    body = await read_object(request, _KEYS)
    try:
        wanted = CompareRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]["loc"]
        place = str(first[0]) + "".join(f"[{part}]" for part in first[1:])
        raise BadRequest(f"{place}: {explain(error)}") from None
    job = await _start(service, wanted)
    if EVENTS in request.headers.get("accept", ""):
        job.task.add_done_callback(lambda done: _count_failure(service, outcome(done)))
        return stream(job.follow())
    return await _answer(service, job, request)


async def _start(service: Service, wanted: CompareRequest) -> Job:
    settings = service.settings
    artifacts = [model.artifact for model in service.repository.choose(wanted.models)]
    check(artifacts, wanted, settings)
    names = [artifact.name for artifact in artifacts]

    async def work(job: Job) -> Report:
        return await compare(artifacts, wanted, settings, job.progress, report_id=job.id)

    job = await service.jobs.start(
        "comparison",
        ", ".join(names),
        wanted.model_dump(mode="json") | {"models": names},
        work,
        seconds=settings.compare_seconds,
        too_long=too_long(settings),
    )
    job.task.add_done_callback(lambda done: service.metrics.compared(outcome(done)))
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
