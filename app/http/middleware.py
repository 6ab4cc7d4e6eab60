"""What holds for every request: its id, its key, its limits, its headers; and the short way to the plain endpoints."""

import asyncio
import logging
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.admission import Caller
from app.errors import ClientDisconnected, KronError
from app.http.body import Body
from app.http.endpoints import Endpoint, plain
from app.http.responses import failure, internal_error
from app.http.security_headers import DATA_HEADERS, PAGE_HEADERS, complete
from app.service import Service
from app.telemetry import request_id

HUNG_UP_SECONDS = 0.02  # only a request that takes longer is worth a look at whether its client still waits
log = logging.getLogger(__name__)
access = logging.getLogger("app.access")


class RequestMiddleware:
    """ASGI middleware, the outermost one.

    Args:
        app: what answers everything that is not plain.
        service: for its settings, keys and metrics.
    """

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service
        self._settings = service.settings
        self._admission = service.admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = Caller.from_headers(dict(scope["headers"]))
        own_id = request_id.choose(caller.request_id)
        request_id.current.set(own_id.decode())
        endpoint = plain.find(scope["method"], scope["path"])
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = complete(message["headers"], [*PAGE_HEADERS, (b"x-request-id", own_id)])
            await send(message)

        body = Body(
            receive, caller.content_length, max_bytes=self._settings.max_body_bytes, seconds=self._settings.body_seconds
        )
        traces = self._service.traces
        span = None if traces is None else traces.begin(scope, own_id.decode())
        client = None
        self._admission.enter()
        started = time.perf_counter()
        try:
            address = (scope["client"] or ("",))[0]
            client = self._admission.admit(scope["method"], scope["path"], address, caller)
            if endpoint is None:
                await self._app(scope, body, answer)
            else:
                own = [*DATA_HEADERS, (b"x-request-id", own_id)]
                status = await _answer_raw(endpoint, scope, body, send, own)
        except (ClientDisconnected, ClientDisconnect):
            status = 499  # nobody reads it
        except KronError as error:
            await failure(self._service, scope, error)(scope, receive, answer)
        except Exception as error:  # the last place where it can be answered and logged
            self._service.metrics.failed("InternalError")
            log.exception("%s %s", scope["method"], scope["path"][:200], exc_info=error)
            if status == 0:
                await internal_error()(scope, receive, answer)
        finally:
            self._admission.leave(client)
            if traces is not None and span is not None:
                traces.end(span, status)
            if self._settings.access_log:
                fields = {"status": status, "seconds": round(time.perf_counter() - started, 6)}
                access.info("%s %s", scope["method"], scope["path"][:500], extra=fields)


async def _answer_raw(
    endpoint: Endpoint, scope: Scope, body: Body, send: Send, headers: list[tuple[bytes, bytes]]
) -> int:
    """Send what the endpoint answers; its work ends when the client hangs up."""
    content = await body.read()
    with _DisconnectWatch(body):
        answered, media_type, own = await endpoint.answer(scope, content)
    start = [(b"content-type", media_type), (b"content-length", b"%d" % len(answered)), *headers, *own]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    await send({"type": "http.response.body", "body": answered})
    return 200


class _DisconnectWatch:
    """Cancels what runs inside when the client hangs up, and raises HungUp then."""

    __slots__ = ("_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._timer = loop.call_later(HUNG_UP_SECONDS, self._begin)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._watcher is None:
            return
        hung_up = self._watcher.done()
        self._watcher.cancel()
        if kind is asyncio.CancelledError and hung_up and self._task is not None and self._task.uncancel() == 0:
            raise ClientDisconnected("the client hung up") from None

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self._task.cancel()
