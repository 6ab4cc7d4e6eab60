"""Routes shared by comparisons, sweeps and trainings: start, list, read, follow, cancel and delete."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from app.access.admission import Caller
from app.errors import Conflict
from app.http.responses import Json
from app.jobs.job import Job, JobEvent, JobSpec, error_event
from app.jobs.schemas import Kind
from app.routes.dependencies import ServiceDep
from app.service import Service

EVENTS = "text/event-stream"
KEY_REMOVED = "the API key was removed; the job goes on"
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events `started`, `progress`, then `report` or `error`.", "content": {EVENTS: {}}}
}


def add_job_routes(
    router: APIRouter, kind: Kind, *, listed: type[BaseModel], shown: type[BaseModel], reported: type[BaseModel]
) -> None:
    """Add the routes of a kind of job under its plural, such as `/comparisons/{job_id}`.

    Args:
        router: the router of that kind.
        kind: kind of job.
        listed: response model of the list.
        shown: response model of one job.
        reported: response model of a report that is downloaded.
    """
    plural = f"{kind}s"

    @router.get(f"/{plural}", name=plural, response_model=listed, summary=f"List {plural}")
    async def jobs(
        service: ServiceDep,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> Response:
        """List the jobs of this kind, newest first, including the running one."""
        total, found = await service.jobs.list(kind, limit=limit, offset=offset)
        return Json({"total": total, "offset": offset, plural: [job.model_dump(mode="json") for job in found]})

    @router.get(f"/{plural}/{{job_id}}", name=kind, response_model=shown | reported, summary=f"Read a {kind}")
    async def job(service: ServiceDep, job_id: str, download: bool = False) -> Response:
        """The status of a job and, once the job is done, the report; with `download` the report alone, as a file."""
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
    async def events(service: ServiceDep, request: Request, job_id: str) -> Response:
        """Events from now to the end of the job. A client that disconnects does not end the job.

        The stream of a client whose API key is removed ends with an `error`; the job goes on.
        """
        return _stream(service, request, await service.jobs.follow(kind, job_id))

    @router.delete(
        f"/{plural}/{{job_id}}", name=f"delete_{kind}", status_code=204, summary=f"Cancel or delete a {kind}"
    )
    async def delete(service: ServiceDep, job_id: str) -> Response:
        """Cancel a running job, whose processes have ended before the answer, or delete one that has ended."""
        await service.jobs.cancel(kind, job_id)
        return Response(status_code=204)


async def start_job(service: Service, request: Request, spec: JobSpec, *, wait: bool = False) -> Response:
    """Start a job and respond with its events where the client accepts them.

    Other clients get 202 with the URL of the job or, with `wait`, the report once the job has ended.

    Raises:
        Conflict: another job is running.
        KronError: with `wait`, the reason for which the job failed.
    """
    streamed = EVENTS in request.headers.get("accept", "")

    def count(outcome: str) -> None:
        service.metrics.job_ended(spec.kind, outcome)
        if wait and streamed and outcome not in {"ok", "cancelled"}:
            service.metrics.failed(outcome)  # without a stream, the error response is counted

    job = await service.jobs.start(spec, count)
    if streamed:
        return _stream(service, request, job.follow())
    if wait:
        return await _wait_for_report(service, request, job)
    headers = {"Location": f"/api/{spec.kind}s/{job.id}"}
    return Json(job.summary.model_dump(mode="json"), status_code=202, headers=headers)


async def _wait_for_report(service: Service, request: Request, job: Job) -> Response:
    """Respond with the report of a job; cancel the job if the client disconnects."""
    disconnected = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait([job.task, disconnected], return_when=asyncio.FIRST_COMPLETED)
        if not job.task.done():
            await service.jobs.cancel(job.kind, job.id)
            return Response(status_code=499)
        return Response(await job.result(), media_type="application/json")
    finally:
        disconnected.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _stream(service: Service, request: Request, events: AsyncIterator[JobEvent | None]) -> Response:
    """Respond with server-sent events, until the job has ended or the client's API key is removed."""
    api_key = Caller.from_headers(dict(request.scope["headers"])).api_key

    def is_allowed() -> bool:
        return service.admission.accepts(api_key)

    return StreamingResponse(_lines(events, is_allowed), media_type=EVENTS, headers={"Cache-Control": "no-store"})


async def _lines(events: AsyncIterator[JobEvent | None], is_allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
    async for event in events:
        if not is_allowed():
            yield _event(*error_event(KEY_REMOVED))
            return
        if event is None:
            yield b": keep-alive\n\n"  # so that no proxy closes the connection as idle
        else:
            yield _event(*event)


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
