"""Routes of trainings: their options, and the routes that all jobs have."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import BadRequest
from app.http.body import read_body
from app.http.forms import is_form, read_form
from app.http.responses import Json
from app.jobs.job import Job, JobSpec
from app.jobs.schemas import JobSummary
from app.parsing import parse_object, validated
from app.routes.dependencies import ERRORS, ServiceDep
from app.routes.jobs import EVENTS, add_job_routes, start_job
from app.schemas import Error
from app.training.run import LIMIT_NAME, check, title, train
from app.training.schemas import (
    ColumnKinds,
    DataDescription,
    TrainingJob,
    TrainingList,
    TrainingOptions,
    TrainingReport,
    TrainRequest,
)
from app.training.uploaded import EXPECTED, UploadedData

router = APIRouter(prefix="/api", tags=["training"], responses=ERRORS)

_KEYS = frozenset(TrainRequest.model_fields)


def _form(description: str, example: str) -> dict[str, Any]:
    """Describe a form of a data file and a request in JSON, as OpenAPI does."""
    request = {"type": "string", "description": description, "examples": [example]}
    data = {"type": "string", "format": "binary", "description": EXPECTED}
    properties = {"data": data, "request": request}
    return {"schema": {"type": "object", "required": ["data"], "properties": properties}}


@router.get("/trainings/options", response_model=TrainingOptions, summary="List data sets, recipes and limits")
async def options(service: ServiceDep) -> Response:
    """Whether this service can train, and the data sets, recipes and limits."""
    return Json((await service.training_catalogue.options()).model_dump(mode="json"))


@router.post(
    "/trainings/data",
    response_model=DataDescription,
    summary="Describe a data file",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": _form("kinds of columns, as JSON", '{"drop": ["id"], "categorical": ["zip"]}')
            },
        }
    },
)
async def describe(service: ServiceDep, request: Request) -> Response:
    """Describe what each column of a table would become in a training, as a feature or as the target.

    The first part of a text file, which ends with a whole line, is enough. Nothing is kept.
    """
    if not is_form(request):
        raise BadRequest("body: expected a form with the file as its part `data`")
    text, files = await read_form(request, ("data",), EXPECTED)
    if "data" not in files:
        raise BadRequest(f"data: missing, expected a file {EXPECTED}")
    kinds = validated(ColumnKinds, parse_object(text, frozenset(ColumnKinds.model_fields)))
    await service.training_catalogue.check(data=None, recipe=None)
    return Json((await service.data_inspector.describe(kinds, UploadedData(*files["data"]))).model_dump(mode="json"))


add_job_routes(router, "training", listed=TrainingList, shown=TrainingJob, reported=TrainingReport)


def _error(description: str, example: str) -> dict[str, Any]:
    return {
        "model": Error,
        "description": description,
        "content": {"application/json": {"example": {"error": example}}},
    }


@router.post(
    "/trainings",
    status_code=202,
    response_model=JobSummary,
    summary="Train a twin",
    responses={
        200: {
            "description": "With `Accept: text/event-stream`: the events `started` with the id, `plan`, `progress`, "
            "`epoch`, then `report` or `error`.",
            "content": {EVENTS: {}},
        },
        400: _error("A value is not allowed.", "hidden[0]: got 100 x 100, expected a product of at most 4096"),
        409: _error("Another job is running.", "another comparison, sweep or training is running; try again later"),
        413: _error(
            "The file is too large.",
            "body: got 20000000 bytes or more, expected at most 16777216 (KRON_MAX_BODY_BYTES)",
        ),
        501: _error(
            "Training is not available.",
            "training needs torch, not installed here: pip install 'kronmodel[train]'",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": TrainRequest.model_json_schema(),
                    "examples": {
                        "default": {"summary": "The default twin", "value": {"data": "mnist"}},
                        "chosen": {
                            "summary": "Rank 1, narrower, three epochs",
                            "value": {
                                "data": "digits",
                                "name": "small",
                                "rank": 1,
                                "hidden": [[8, 8], [8, 8]],
                                "activation": "gelu",
                                "epochs": 3,
                                "seed": 1,
                            },
                        },
                    },
                },
                "multipart/form-data": _form("the JSON body, as text", '{"target": "price", "name": "my-twin"}'),
            },
        }
    },
)
async def post_training(service: ServiceDep, request: Request) -> Response:
    """Train a Kronecker network and its dense twin in the background, publish both and serve them.

    A form uploads the data: a table such as a .csv file with a header, or an .npz file with `x` and `y`. One job runs
    at a time. It goes on without followers until `DELETE /api/trainings/{id}` cancels it.
    """
    if is_form(request):
        text, files = await read_form(request, ("data",), EXPECTED)
        uploaded = UploadedData(*files["data"]) if "data" in files else None
    else:
        text, uploaded = await read_body(request), None
    parsed = validated(TrainRequest, parse_object(text, _KEYS))
    check(parsed, uploaded)
    await service.training_catalogue.check(data=parsed.data, recipe=parsed.recipe)
    settings, repository = service.settings, service.repository

    async def work(job: Job) -> TrainingReport:
        return await train(parsed, uploaded, settings, repository, job)

    spec = JobSpec(
        kind="training",
        title=title(parsed, uploaded),
        request=parsed.model_dump(mode="json") | ({} if uploaded is None else {"file": uploaded.file_name}),
        seconds=settings.train_seconds,
        limit_name=LIMIT_NAME,
        work=work,
    )
    return await start_job(service, request, spec)
