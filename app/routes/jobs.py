"""What comparisons, sweeps and trainings have in common over HTTP: the kept ones, their events, their end."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from app.errors import Conflict
from app.http.responses import Json
from app.jobs.job import Event
from app.jobs.runner import Work, outcome
from app.jobs.schemas import Kind
from app.routes.dependencies import ServiceDep
from app.service import Service

EVENTS = "text/event-stream"
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events `started`, `progress`, then `report` or `error`.", "content": {EVENTS: {}}}
}


def add_job_routes(
    router: APIRouter, kind: Kind, *, listed: type[BaseModel], shown: type[BaseModel], reported: type[BaseModel]
) -> None:
    """Add the list, one, its events and its end to a router, under the kind's plural."""
    plural = f"{kind}s"

    @router.get(f"/{plural}", name=plural, response_model=listed, summary=f"The {plural} that are kept")
    async def jobs(
        service: ServiceDep,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> Response:
        """The newest first; the running one is among them."""
        total, found = await service.jobs.list(kind, limit=limit, offset=offset)
        return Json({"total": total, "offset": offset, plural: [job.model_dump(mode="json") for job in found]})

    @router.get(f"/{plural}/{{job_id}}", name=kind, response_model=shown | reported, summary=f"One {kind}")
    async def job(service: ServiceDep, job_id: str, download: bool = False) -> Response:
        """Its state and, once it is done, its report; with `download` the report alone, as a file."""
        summary = await service.jobs.get(kind, job_id)
        report = await service.jobs.report(job_id)
        if not download:
            value = None if report is None else orjson.Fragment(report)
            return Json(summary.model_dump(mode="json") | {"report": value})
        if report is None:
            raise Conflict(f"the {kind} is {summary.status}: there is no report")
        name = f"kronmodel-{kind}-{summary.id}.json"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(report, media_type="application/json", headers=headers)

    @router.get(
        f"/{plural}/{{job_id}}/events",
        name=f"{kind}_events",
        response_class=StreamingResponse,
        responses=_STREAMED,
        summary=f"Follow a {kind}",
    )
    async def events(service: ServiceDep, job_id: str) -> Response:
        """From where it is now to its end; hanging up does not end it."""
        return stream(await service.jobs.follow(kind, job_id))

    @router.delete(
        f"/{plural}/{{job_id}}", name=f"delete_{kind}", status_code=204, summary=f"Cancel or delete a {kind}"
    )
    async def delete(service: ServiceDep, job_id: str) -> Response:
        """A running one is ended, with all its processes, before this answers; a kept one is forgotten."""
        await service.jobs.cancel(kind, job_id)
        return Response(status_code=204)


async def start_job(
    service: Service,
    request: Request,
    *,
    kind: Kind,
    title: str,
    asked: Mapping[str, Any],
    work: Work,
    seconds: float,
    too_long: str,
) -> Response:
    """Start a job that goes on in the background: 202 with where it is, or its events if they are wanted.

    Raises:
        Conflict: another one runs.
    """
    job = await service.jobs.start(kind, title, asked, work, seconds=seconds, too_long=too_long)
    job.task.add_done_callback(lambda done: service.metrics.job_ended(kind, outcome(done)))
    if EVENTS in request.headers.get("accept", ""):
        return stream(job.follow())
    headers = {"Location": f"/api/{kind}s/{job.id}"}
    return Json(job.summary.model_dump(mode="json"), status_code=202, headers=headers)


def stream(events: AsyncIterator[Event | None]) -> Response:
    """Server-sent events."""
    return StreamingResponse(_lines(events), media_type=EVENTS, headers={"Cache-Control": "no-store"})


async def _lines(events: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    async for event in events:
        if event is None:
            yield b": keep-alive\n\n"  # so that no proxy takes the silence for the end
        else:
            name, data = event
            yield b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
