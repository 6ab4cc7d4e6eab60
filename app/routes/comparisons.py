"""Comparisons: as one JSON answer, or as a stream of events with the progress on the way."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response, StreamingResponse

from app.errors import BadRequest, KronError, Overloaded
from app.json_object import parse_object
from app.responses import Json
from app.routes.state import ERRORS, ServiceDep
from app.schemas import CompareRequest, Report
from app.service import Service
from app.settings import explain

router = APIRouter(prefix="/api", tags=["comparison"], responses=ERRORS)

_KEYS = frozenset(CompareRequest.model_fields)


@router.post(
    "/compare",
    response_model=Report,
    summary="Compare models",
    responses={
        200: {
            "description": "The report; with `Accept: text/event-stream`, events `progress`, then `report` or `error`.",
            "content": {"text/event-stream": {}},
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
async def compare(service: ServiceDep, request: Request) -> Response:
    """Measure memory and latency of 2 to 6 models in processes of their own. One comparison at a time."""
    body = parse_object(await request.body(), _KEYS)
    try:
        wanted = CompareRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]["loc"]
        place = str(first[0]) + "".join(f"[{part}]" for part in first[1:])
        raise BadRequest(f"{place}: {explain(error)}") from None
    models = service.repository.choose(wanted.models)
    for model in models:
        model.rows  # noqa: B018 - where it takes no rows of floats, this says why it cannot be compared
    artifacts = [model.artifact for model in models]
    streamed = "text/event-stream" in request.headers.get("accept", "")
    events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def progress(stage: str, done: int, total: int) -> None:
        if streamed:
            events.put_nowait({"stage": stage, "done": done, "total": total})

    task = service.comparer.start(artifacts, wanted, progress)
    task.add_done_callback(lambda done: service.metrics.compared(_outcome(done)))
    if streamed:
        task.add_done_callback(lambda _: events.put_nowait(None))
        return StreamingResponse(_stream(task, events, service), media_type="text/event-stream")
    return await _answer(task, request)


async def _answer(task: asyncio.Task[Report], request: Request) -> Response:
    """The report; where the client does not wait for it, the comparison ends too."""
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return Response(status_code=499)  # nobody reads it
        return Json(_report(task).model_dump(mode="json"))
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(
    task: asyncio.Task[Report], events: asyncio.Queue[dict[str, Any] | None], service: Service
) -> AsyncIterator[bytes]:
    try:
        while (event := await events.get()) is not None:
            yield _event("progress", event)
        try:
            yield _event("report", _report(task).model_dump(mode="json"))
        except KronError as error:
            service.metrics.failed(type(error).__name__)
            yield _event("error", {"error": str(error)})
    finally:
        task.cancel()


def _report(task: asyncio.Task[Report]) -> Report:
    """The result of a finished task."""
    if task.cancelled():
        raise Overloaded("the comparison was stopped: the service is shutting down")
    return task.result()


def _event(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def _outcome(task: asyncio.Task[Report]) -> str:
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return "ok" if error is None else type(error).__name__
