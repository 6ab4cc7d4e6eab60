"""Inference by the Open Inference Protocol, below FastAPI's layers, for speed."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import Scope

from app.errors import BadRequest, KronError, NotFound
from app.http import compression as encoding
from app.http.endpoints import Answer, Endpoint, PreparedRequest, documented, plain
from app.http.openapi import amend_document
from app.inference.batching import InferenceResult, InferenceTask
from app.models.model import Model
from app.oip.infer_request import InferRequest
from app.oip.request import read_request
from app.oip.response import write_response
from app.routes.dependencies import served
from app.routes.infer_openapi import document
from app.service import Service
from app.serving.prediction import make_receipt

PATHS = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
MAX_LENGTH_DIGITS = 12

_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_LENGTH = b"inference-header-content-length"
_clock = time.perf_counter_ns


async def infer(scope: Scope, body: bytes) -> Answer:
    """Body, media type and further headers of the answer to a request for one of `PATHS`.

    Raises:
        KronError: whatever is wrong; the application's handlers answer it.
    """
    service: Service = scope["app"].state.service
    model = _model(service, scope["path"])
    start = _clock()
    try:
        return await _answer(model, service, dict(scope["headers"]), body)
    except (KronError, asyncio.CancelledError) as error:
        model.statistics.record_failure(_clock() - start)
        service.metrics.not_predicted(model.name, model.version, type(error).__name__)
        raise


def begin_infer(service: Service, path: str, headers: Mapping[bytes, bytes], body: bytes) -> PreparedRequest | None:
    """As `infer`, where nothing has to wait: neither for a thread to run the model nor for one to compress."""
    model = _model(service, path)
    most = service.scheduler.max_inline_rows(model.engine)
    if not most or b"content-encoding" in headers:
        return None
    start = _clock()
    request = read_request(body, _header_length(headers.get(_LENGTH)), model.signature)
    if request.rows > most:
        return None
    if b"accept-encoding" in headers and not model.signature.response_fits(request.rows, encoding.MIN_BYTES):
        return None
    read = _clock()

    def finish(inferences: Sequence[InferenceResult]) -> Answer:
        return _written(model, service, request, inferences[0], times=(start, read))

    names = [wanted.name for wanted in request.outputs]
    return PreparedRequest([InferenceTask(model.engine, request.feeds, names, request.rows, read)], finish)


async def _answer(model: Model, service: Service, request_headers: Mapping[bytes, bytes], body: bytes) -> Answer:
    compression = request_headers.get(b"content-encoding")
    if compression is not None:
        body = await decoded(body, compression, service.settings.max_body_bytes)
    start = _clock()
    request = read_request(body, _header_length(request_headers.get(_LENGTH)), model.signature)
    read = _clock()
    inference = await service.scheduler.infer(
        model.engine, request.feeds, [wanted.name for wanted in request.outputs], timeout=request.timeout_s
    )
    answer = _written(model, service, request, inference, times=(start, read))
    accepted = request_headers.get(b"accept-encoding")
    if accepted is not None and len(answer.body) >= encoding.MIN_BYTES:
        chosen = encoding.accepted(accepted.decode("latin-1"))
        if chosen != encoding.IDENTITY:
            compressed = await asyncio.to_thread(encoding.encode, answer.body, chosen)
            more = [(b"content-encoding", chosen.encode()), (b"vary", b"accept-encoding")]
            return Answer(compressed, answer.media_type, [*answer.headers, *more])
    return answer


def _model(service: Service, path: str) -> Model:
    target = _PATH.fullmatch(path)
    if target is None:
        raise NotFound(f"no such path: {path[:200]}")
    return served(service, *target.groups())


def _written(
    model: Model, service: Service, request: InferRequest, inference: InferenceResult, times: tuple[int, int]
) -> Answer:
    """The answer, after which the request counts as answered; `times` are before and after it was read."""
    start, read = times
    ran = _clock()
    body, header_length = write_response(
        request,
        inference.outputs,
        name=model.name,
        version=model.version,
        labels=model.labels,
        batched=model.signature.batchable,
        parameters=make_receipt(model, inference) if request.provenance else None,
    )
    written = _clock()
    if service.shadow is not None:
        service.shadow.offer(model, request.feeds, inference.outputs, inference.compute_ns)
    model.statistics.record_success(
        rows=request.rows,
        batch_size=inference.batch_size,
        queue_ns=inference.queue_ns,
        compute_ns=inference.compute_ns,
        input_ns=read - start,
        output_ns=written - ran,
    )
    service.metrics.predicted(
        model.name,
        model.version,
        rows=request.rows,
        request_ns=written - read,
        queue_ns=inference.queue_ns,
        compute_ns=inference.compute_ns,
    )
    if header_length is None:
        return Answer(body)
    return Answer(body, b"application/octet-stream", [(_LENGTH, b"%d" % header_length)])


async def decoded(body: bytes, content_encoding: bytes, max_bytes: int) -> bytes:
    """The body as it was before it was compressed; other threads do the work.

    Raises:
        UnsupportedEncoding, BadRequest, TooLarge: as `encoding.decode`.
    """
    name = content_encoding.decode("latin-1").strip().lower()
    if name in {"", encoding.IDENTITY}:
        return body
    return await asyncio.to_thread(encoding.decode, body, name, max_bytes=max_bytes)


def _header_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        got = value[:40].decode("latin-1")
        raise BadRequest(f"Inference-Header-Content-Length: got {got!r}, expected a number of bytes")
    return int(value)


_endpoint = Endpoint(infer, begin_infer)
plain.add("POST", _PATH, _endpoint)


def add_infer(app: FastAPI) -> None:
    """Put the paths before all others, and into the OpenAPI document."""
    for path in reversed(PATHS):
        app.router.routes.insert(0, Route(path, endpoint=documented(_endpoint), methods=["POST"]))
    amend_document(app, _add_paths)


def _add_paths(openapi: dict[str, Any]) -> None:
    for path in PATHS:
        openapi["paths"].setdefault(path, document(path))
