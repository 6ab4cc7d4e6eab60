"""Routes of comparisons: the report as one JSON response, or events with the progress first."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import BadRequest
from app.http.body import read_body
from app.http.forms import is_form, read_form
from app.jobs.job import Job, JobSpec
from app.measure.comparison import LIMIT_NAME, check, compare
from app.measure.comparison_schemas import CompareRequest, ComparisonJob, ComparisonList, Report
from app.measure.inputs.uploaded import UploadedInputs
from app.parsing import parse_object, validated
from app.routes.dependencies import ERRORS, ServiceDep
from app.routes.jobs import EVENTS, add_job_routes, start_job

router = APIRouter(prefix="/api", tags=["comparison"], responses=ERRORS)
add_job_routes(router, "comparison", listed=ComparisonList, shown=ComparisonJob, reported=Report)

_KEYS = frozenset(CompareRequest.model_fields)
_FILES = ".npy, .npz or .csv"


@router.post(
    "/compare",
    response_model=Report,
    summary="Compare models",
    responses={
        200: {
            "description": "The report; with `Accept: text/event-stream` the events `started` with the id, `progress`, "
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
    """Measure memory, latency and accuracy of 2 to 6 models, in processes apart from the service.

    A form uploads inputs, and optionally the true labels of their rows: accuracy, agreement and confusion are then
    measured on those. Models with several inputs need an `.npz` file with an array for each input by name. With JSON
    alone the models run on the samples that were published with them, or else on inputs made up from their metadata.
    How far the outputs of the models are apart is always part of the report.

    The models need the same interface: inputs of the same names, datatypes and shapes, and outputs of the same shapes.

    One measurement runs at a time. A client that disconnects from the events leaves the comparison running: the event
    `started` holds its id, and `DELETE` cancels it. A client that disconnects while it waits for the report cancels it.
    """
    if is_form(request):
        parsed, uploaded = await _read_uploads(request)
    else:
        parsed, uploaded = validated(CompareRequest, parse_object(await read_body(request), _KEYS)), None
    settings = service.settings
    models = service.repository.choose(parsed.models)
    artifacts = [model.artifact for model in models]
    check(artifacts, parsed, settings)
    names = [artifact.name for artifact in artifacts]

    async def work(job: Job) -> Report:
        return await compare(artifacts, parsed, settings, job.progress, uploaded=uploaded, report_id=job.id)

    spec = JobSpec(
        kind="comparison",
        title=", ".join(names),
        request=parsed.model_dump(mode="json") | {"models": names},
        seconds=settings.compare_seconds,
        limit_name=LIMIT_NAME,
        work=work,
    )
    return await start_job(service, request, spec, wait=True)


async def _read_uploads(request: Request) -> tuple[CompareRequest, UploadedInputs]:
    """Read the parts `request`, `inputs` and `labels` of a form."""
    text, files = await read_form(request, ("inputs", "labels"), _FILES)
    parsed = validated(CompareRequest, parse_object(text, _KEYS))
    if "inputs" not in files:
        raise BadRequest(f"inputs: missing, expected a file {_FILES}")
    return parsed, await asyncio.to_thread(UploadedInputs.read, files["inputs"], files.get("labels"))
