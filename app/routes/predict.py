"""The endpoint `/api/predict`: answers of several models to the same rows; a raw endpoint."""

import time
from collections.abc import Sequence

import orjson
from fastapi import APIRouter

from app.errors import BadRequest
from app.http.endpoints import Answer, Headers, RawRequest, add_raw_route
from app.inference.batching import InferenceResult
from app.models.model import Model
from app.oip.json_data import JsonWriter, mentions_booleans
from app.oip.response import LONG_ELEMENTS
from app.parsing import LONG_BYTES, is_long, name_of, parse_object, parse_with_arrays
from app.routes.dependencies import ERRORS
from app.service import Service
from app.serving.prediction import Prediction
from app.serving.schemas import PredictRequest, PredictResponse

MAX_MODELS = 16  # of a request

router = APIRouter(prefix="/api", tags=["models"], responses=ERRORS)

_KEYS = frozenset(PredictRequest.model_fields)
_ONE_DIGIT = [[0.0] * 28 if not 4 <= row < 24 else [0.0] * 13 + [0.9, 1.0] + [0.0] * 13 for row in range(28)]


class RawPredictRequest(RawRequest):
    """Request to `/api/predict`, which runs one or more models on the same rows."""

    __slots__ = ("_models", "_prediction")

    _models: Sequence[Model]
    _prediction: Prediction

    def __init__(self, service: Service, path: str, headers: Headers) -> None:
        super().__init__(service, path, headers)
        self.timeout_s = service.settings.predict_seconds
        self._models = ()

    def may_run_inline(self) -> bool:
        """Whether any served model runs on the event loop."""
        max_inline_rows = self.service.scheduler.max_inline_rows
        return any(max_inline_rows(model.engine) for model in self.service.repository.served)

    def prepare(self, body: bytes) -> None:
        """Parse and validate the body.

        Raises:
            BadRequest: the body is not such a request, or its rows do not fit one of the models.
            NotFound: it names a model that is not served.
        """
        if is_long(body):
            request = parse_with_arrays(body, "inputs", lambda document: [document], _KEYS)
        else:
            request = parse_object(body, _KEYS, max_bytes=LONG_BYTES)
        models = self.service.repository.choose(_model_names(request.get("models")))
        if ("inputs" in request) == ("rows" in request):
            got = "both inputs and rows" if "inputs" in request else "missing"
            raise BadRequest(f"inputs: {got}, expected a list of rows, or rows with names as `rows`")
        self._models = models
        self._prediction = Prediction(
            models,
            request.get("inputs"),
            named_rows=request.get("rows"),
            max_batch=self.service.settings.max_batch,
            booleans=mentions_booleans(body, len(body)),
            with_provenance=_flag(request, "receipt"),
            with_novelty=_flag(request, "novelty"),
        )
        self.tasks = self._prediction.tasks

    def has_long_answer(self, inferences: Sequence[InferenceResult]) -> bool:
        """Whether the outputs are so large that writing them takes long."""
        elements = 0
        for inference in inferences:  # a generator would take three times as long, in every request
            for values in inference.outputs.values():
                elements += values.size
        return elements > LONG_ELEMENTS

    def write(self, inferences: Sequence[InferenceResult]) -> Answer:
        """Write the response.

        Raises:
            BadRequest: a model has no finite answer to a row.
        """
        answer = self._prediction.answer(inferences)
        if not self.has_long_answer(inferences):
            return Answer(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
        writer = JsonWriter()
        for result in answer["results"]:
            rows = [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in result["outputs"]]
            result["outputs"] = writer.add_list(rows)
        return Answer(writer.write(answer)[0])

    def count(self, inferences: Sequence[InferenceResult]) -> None:
        """Count the request as answered by each model."""
        self._prediction.count(self.service.metrics, self.service.shadow)

    def failed(self, error: BaseException) -> None:
        """Count the request as failed for each of its models."""
        taken_ns = time.perf_counter_ns() - self.started_ns
        for model in self._models:
            model.statistics.record_failure(taken_ns)
            self.service.metrics.not_predicted(model.name, model.version, type(error).__name__)


def _flag(request: dict[str, object], name: str) -> bool:
    value = request.get(name, False)
    if type(value) is not bool:
        raise BadRequest(f"{name}: got {name_of(value)}, expected true or false")
    return value


def _model_names(names: object) -> list[str] | None:
    """Validate the `models` of a request: a list of different names; None for the default."""
    if names is None:
        return None
    if type(names) is not list or not 1 <= len(names) <= MAX_MODELS or not all(type(name) is str for name in names):
        raise BadRequest(f"models: got {names!r:.40}, expected a list of 1 to {MAX_MODELS} names")
    if len(set(names)) < len(names):
        raise BadRequest(f"models: got {', '.join(names)[:200]}, expected different names")
    return names


add_raw_route(
    router,
    "POST",
    "/predict",
    RawPredictRequest,
    name="predict",
    response_model=PredictResponse,
    summary="Predict",
    description="The answers of one or more models to the same rows, side by side, with the time that each run took.",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": PredictRequest.model_json_schema(),
                    "examples": {
                        "one": {"summary": "A hand-drawn 1, by the default twin", "value": {"inputs": [_ONE_DIGIT]}},
                        "names": {
                            "summary": "A row of a table by the names of its columns",
                            "value": {"rows": [{"island": "Dream", "bill_length_mm": 39.1, "sex": None}]},
                        },
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
