"""The project's own API: models, samples, predictions."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response
from starlette.types import Scope

from app.errors import BadRequest, KronError
from app.http.endpoints import Answer, Endpoint, PreparedRequest, add_raw_route
from app.http.responses import Json
from app.inference.batching import InferenceResult
from app.inference.devices import available_devices
from app.models.model import Model
from app.models.schemas import ModelInfo, ModelList, SampleList
from app.parsing import mentions_booleans, name_of, parse_object
from app.routes.dependencies import ERRORS, ServiceDep
from app.service import Service
from app.serving.prediction import Prediction
from app.serving.schemas import PredictRequest, PredictResponse
from app.serving.shadow import ShadowReport
from app.system.cpus import available_cpus

router = APIRouter(prefix="/api", tags=["models"], responses=ERRORS)

_PREDICT_KEYS = frozenset(PredictRequest.model_fields)
_ONE_DIGIT = [[0.0] * 28 if not 4 <= row < 24 else [0.0] * 13 + [0.9, 1.0] + [0.0] * 13 for row in range(28)]


@router.get("/models", response_model=ModelList, summary="All served models")
async def models(service: ServiceDep) -> Response:
    """All served models with their cards, those that answer where a request names none, and what measuring may use."""
    repository = service.repository
    return Json(
        {
            "models": [_info(service, model) for model in repository.models.values()],
            "default": list(repository.default),
            "devices": available_devices(),
            "cpus": available_cpus(),
        }
    )


@router.get("/models/{name}", response_model=ModelInfo, summary="One model")
async def model(service: ServiceDep, name: str) -> Response:
    """One served model with its card."""
    return Json(_info(service, service.repository.get(name)))


@router.get("/models/{name}/samples", response_model=SampleList, summary="Test inputs to try")
async def samples(
    service: ServiceDep,
    name: str,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Inputs exactly as the graph takes them, with their true labels; none where the model came without."""
    found = service.repository.get(name)
    part = slice(offset, offset + limit)
    return Json(
        {
            "model": found.name,
            "version": found.artifact.version,
            "total": len(found.samples) if found.samples else 0,
            "offset": offset,
            "inputs": list(found.samples.inputs[part]) if found.samples else [],
            "labels": [found.label_of(label) for label in found.samples.labels[part]] if found.samples else [],
        }
    )


async def predict(scope: Scope, body: bytes) -> Answer:
    """The answers of one or more models to the same rows, side by side, with the time that each took."""
    service: Service = scope["app"].state.service
    start = time.perf_counter_ns()
    request, chosen = _read(service, body)
    try:
        prediction = _prediction(service, request, chosen, body)
        await prediction.run(service.scheduler, service.settings.predict_seconds)
        return _answer(service, prediction)
    except (KronError, asyncio.CancelledError) as error:
        for failed in chosen:
            failed.statistics.record_failure(time.perf_counter_ns() - start)
            service.metrics.not_predicted(failed.name, failed.version, type(error).__name__)
        raise


def begin_predict(service: Service, path: str, headers: Mapping[bytes, bytes], body: bytes) -> PreparedRequest | None:
    """As `predict`, where no model has to wait for a thread."""
    most = service.scheduler.max_inline_rows
    if not any(most(model.engine) for model in service.repository.served):  # not worth a look at the body
        return None
    request, chosen = _read(service, body)
    if not all(most(model.engine) for model in chosen):
        return None
    prediction = _prediction(service, request, chosen, body)
    asks = prediction.asks(most)
    if asks is None:
        return None

    def finish(inferences: Sequence[InferenceResult]) -> Answer:
        prediction.ran(inferences)
        return _answer(service, prediction)

    return PreparedRequest(asks, finish)


add_raw_route(
    router,
    "POST",
    "/predict",
    Endpoint(predict, begin_predict),
    response_model=PredictResponse,
    summary="Predict",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": PredictRequest.model_json_schema(),
                    "examples": {
                        "one": {"summary": "A hand-drawn 1, by the default twin", "value": {"inputs": [_ONE_DIGIT]}},
                        "flat": {
                            "summary": "Two flat rows, by one model",
                            "value": {"inputs": [[0.0] * 784, [1.0] * 784], "models": ["mnist-kronecker"]},
                        },
                    },
                }
            },
        }
    },
)


@router.get("/shadow", response_model=ShadowReport, summary="The model that is scored beside the one that answers")
async def shadow(service: ServiceDep) -> Response:
    """How they compare since the start; `primary` is null where shadow mode is off."""
    found = service.shadow
    report = ShadowReport(primary=None, shadow=None, share=0.0) if found is None else found.report()
    return Json(report.model_dump(mode="json"))


def _read(service: Service, body: bytes) -> tuple[dict[str, Any], list[Model]]:
    """A request, and the models that it is for."""
    request = parse_object(body, _PREDICT_KEYS)
    chosen = service.repository.choose(_model_names(request.get("models")))
    if "inputs" not in request:
        raise BadRequest("inputs: missing, expected a list of rows")
    return request, chosen


def _prediction(service: Service, request: dict[str, Any], chosen: list[Model], body: bytes) -> Prediction:
    return Prediction(
        chosen,
        request["inputs"],
        max_batch=service.settings.max_batch,
        booleans=mentions_booleans(body, len(body)),
        receipt=_flag(request.get("receipt", False)),
    )


def _answer(service: Service, prediction: Prediction) -> Answer:
    answer = prediction.answer(service.metrics, service.shadow)
    return Answer(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise BadRequest(f"receipt: got {name_of(value)}, expected true or false")
    return value


def _model_names(names: object) -> list[str] | None:
    """The `models` of a request: a list of different names."""
    if names is None:
        return None
    if type(names) is not list or not 1 <= len(names) <= 16 or not all(type(name) is str for name in names):
        raise BadRequest("models: expected a list of 1 to 16 names")
    if len(set(names)) < len(names):
        raise BadRequest(f"models: got {', '.join(names)[:200]}, expected different names")
    return names


def _info(service: Service, model: Model) -> dict[str, Any]:
    dispatch = service.scheduler.placement(model.engine)
    dumped = model.info().model_dump(mode="json", exclude_none=True)
    return dumped | {"card": dumped.get("card"), "dispatch": None if dispatch is None else dispatch.to_dict()}
