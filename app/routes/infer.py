"""Inference by the Open Inference Protocol: a raw endpoint."""

import re
import time
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from app.errors import BadRequest, NotFound, UnknownModel
from app.http import compression
from app.http.endpoints import RAW_ROUTES, Answer, Headers, RawRequest, handler
from app.http.openapi import amend_document
from app.inference.batching import InferenceResult, InferenceTask
from app.inference.datatypes import BYTES
from app.models.model import Model
from app.oip.infer_request import InferRequest
from app.oip.request import read_request
from app.oip.response import is_long_response, write_response
from app.parsing import SHORT_BYTES, is_long
from app.routes.infer_openapi import document
from app.service import Service
from app.serving.prediction import provenance

PATHS = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
MAX_LENGTH_DIGITS = 12

_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_LENGTH = b"inference-header-content-length"
_clock = time.perf_counter_ns


def served_model(service: Service, name: str, version: str | None = None) -> Model:
    """Find a served model for an endpoint of the protocol.

    Raises:
        NotFound: no such model or version is in the folder; worded as by Triton, whose clients' examples look for that.
        NotReady: it is in the folder, but not loaded.
        Overloaded: the service is not ready.
    """
    try:
        return service.repository.get(name, version)
    except UnknownModel as error:
        raise UnknownModel(f"Request for unknown model: {str(error).removeprefix('models: ')}") from None


class RawInferRequest(RawRequest):
    """Inference request of the Open Inference Protocol, which runs one model."""

    __slots__ = ("_model", "_parse_ns", "_parsed_ns", "_request", "_write_ns", "_written_ns")

    compressible = True
    _request: InferRequest
    _parse_ns: int
    _parsed_ns: int
    _write_ns: int
    _written_ns: int

    def __init__(self, service: Service, path: str, headers: Headers) -> None:
        target = _PATH.fullmatch(path)
        if target is None:
            raise NotFound(f"no such path: {path[:200]}")
        self._model = served_model(service, *target.groups())
        super().__init__(service, path, headers)

    def may_run_inline(self) -> bool:
        """Whether the model runs on the event loop at all."""
        return self.service.scheduler.max_inline_rows(self._model.engine) > 0

    def is_long(self, body: bytes) -> bool:
        """Whether the JSON is long, or the body has so many strings as BYTES that decoding them may take long."""
        length = self.headers.get(_LENGTH)
        if length is None:
            return is_long(body)
        if len(body) <= SHORT_BYTES:
            return False
        if not length.isdigit() or int(length[:MAX_LENGTH_DIGITS]) > SHORT_BYTES:
            return True
        return any(tensor.datatype == BYTES for tensor in self._model.signature.inputs.values())

    def prepare(self, body: bytes) -> None:
        """Parse and validate the body.

        Raises:
            BadRequest: the body does not fit the model.
            NotSupported: it asks for shared memory, sequences or priorities.
        """
        model = self._model
        self._parse_ns = _clock()
        request = read_request(body, _header_length(self.headers.get(_LENGTH)), model.signature)
        self._parsed_ns = _clock()
        self._request = request
        self.timeout_s = request.timeout_s
        outputs = [output.name for output in request.outputs]
        self.tasks = (InferenceTask(model.engine, request.feeds, outputs, request.rows, self._parsed_ns),)

    def is_worth_compressing(self) -> bool:
        """Whether the answer may be long enough for compression."""
        return not self._model.signature.response_fits(self._request.rows, compression.MIN_BYTES)

    def has_long_answer(self, inferences: Sequence[InferenceResult]) -> bool:
        """Whether the outputs are so large that writing them takes long."""
        return is_long_response(self._request.outputs, inferences[0].outputs)

    def write(self, inferences: Sequence[InferenceResult]) -> Answer:
        """Write the response.

        Raises:
            BadRequest: an output has values that JSON cannot express.
        """
        (inference,) = inferences
        model, request = self._model, self._request
        started_ns = _clock()
        body, header_length = write_response(
            request,
            inference.outputs,
            name=model.name,
            version=model.version,
            labels=model.labels,
            batched=model.signature.batchable,
            parameters=provenance(model, inference) if request.provenance else None,
        )
        self._written_ns = _clock()
        self._write_ns = self._written_ns - started_ns
        if header_length is None:
            return Answer(body)
        return Answer(body, b"application/octet-stream", [(_LENGTH, b"%d" % header_length)])

    def count(self, inferences: Sequence[InferenceResult]) -> None:
        """Count the request as answered."""
        (inference,) = inferences
        model, request = self._model, self._request
        if self.service.shadow is not None:
            self.service.shadow.offer(model, request.feeds, inference.outputs, inference.compute_ns)
        model.statistics.record_success(
            rows=request.rows,
            batch_size=inference.batch_size,
            queue_ns=inference.queue_ns,
            compute_ns=inference.compute_ns,
            input_ns=self._parsed_ns - self._parse_ns,
            output_ns=self._write_ns,
        )
        self.service.metrics.predicted(
            model.name,
            model.version,
            rows=request.rows,
            request_ns=self._written_ns - self._parsed_ns,
            queue_ns=inference.queue_ns,
            compute_ns=inference.compute_ns,
        )

    def failed(self, error: BaseException) -> None:
        """Count the request as failed for its model."""
        model = self._model
        model.statistics.record_failure(_clock() - self.started_ns)
        self.service.metrics.not_predicted(model.name, model.version, type(error).__name__)


def _header_length(value: bytes | None) -> int | None:
    """Read `Inference-Header-Content-Length`: how many bytes of the body are JSON; None where it is not given."""
    if value is None:
        return None
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        got = value[:40].decode("latin-1")
        raise BadRequest(f"Inference-Header-Content-Length: got {got!r}, expected a number of bytes")
    return int(value)


RAW_ROUTES.add("POST", _PATH, RawInferRequest)


def add_infer(app: FastAPI) -> None:
    """Add the paths to the application's routes and to its OpenAPI document."""
    for path in PATHS:
        app.router.routes.append(Route(path, endpoint=handler(RawInferRequest), methods=["POST"]))
    amend_document(app, _add_paths)


def _add_paths(openapi: dict[str, Any]) -> None:
    for path in PATHS:
        openapi["paths"].setdefault(path, document(path))
