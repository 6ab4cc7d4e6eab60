"""Routes of sweeps."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.http.body import read_body
from app.jobs.job import Job, JobSpec
from app.jobs.schemas import JobSummary
from app.measure.sweep import LIMIT_NAME, check, sweep
from app.measure.sweep_schemas import SweepJob, SweepList, SweepReport, SweepRequest
from app.parsing import parse_object, validated
from app.routes.dependencies import ERRORS, ServiceDep
from app.routes.jobs import EVENTS, add_job_routes, start_job

router = APIRouter(prefix="/api", tags=["sweep"], responses=ERRORS)
add_job_routes(router, "sweep", listed=SweepList, shown=SweepJob, reported=SweepReport)

_KEYS = frozenset(SweepRequest.model_fields)


@router.post(
    "/sweeps",
    status_code=202,
    response_model=JobSummary,
    summary="Find the width from which Kronecker layers are faster",
    responses={
        200: {
            "description": "With `Accept: text/event-stream`: the events `started` with the id, `progress`, `cells` "
            "with the results of one width, then `report` or `error`.",
            "content": {EVENTS: {}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": SweepRequest.model_json_schema(),
                    "examples": {
                        "default": {"summary": "Five widths, ranks 1 and 2", "value": {}},
                        "short": {
                            "summary": "A quick look",
                            "value": {"widths": [64, 784], "ranks": [1], "batch_sizes": [1], "seconds": 2},
                        },
                    },
                }
            },
        }
    },
)
async def post_sweep(service: ServiceDep, request: Request) -> Response:
    """Measure synthetic Kronecker networks beside dense ones of the same width, in the background.

    One measurement runs at a time. It goes on without followers until `DELETE /api/sweeps/{id}` cancels it.
    """
    parsed = validated(SweepRequest, parse_object(await read_body(request), _KEYS))
    settings = service.settings
    check(parsed, settings)

    async def work(job: Job) -> SweepReport:
        return await sweep(
            parsed,
            settings,
            job.progress,
            lambda cells: job.publish("cells", {"cells": [cell.model_dump(mode="json") for cell in cells]}),
            report_id=job.id,
        )

    spec = JobSpec(
        kind="sweep",
        title=f"Widths {', '.join(map(str, sorted(parsed.widths)))}",
        request=parsed.model_dump(mode="json"),
        seconds=settings.sweep_seconds,
        limit_name=LIMIT_NAME,
        work=work,
    )
    return await start_job(service, request, spec)
