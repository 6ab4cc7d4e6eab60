"""The outermost ASGI layer: id, admission, limits, headers, errors and access log of each request; raw endpoints."""

import logging
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.admission import Caller
from app.errors import ClientDisconnected, KronError
from app.http.body import Body, DisconnectWatch
from app.http.endpoints import RAW_ROUTES, Endpoint, Headers, answer
from app.http.request_headers import check_headers, read_headers
from app.http.responses import failure, internal_error
from app.http.security_headers import DATA_HEADERS, PAGE_HEADERS, complete
from app.service import Service
from app.telemetry import request_id

log = logging.getLogger(__name__)
access = logging.getLogger("app.access")


class RequestMiddleware:
    """Outermost ASGI middleware: request id, admission, metrics, error responses and access log.

    Args:
        app: answers every request but those to raw endpoints.
        service: its settings, admission, metrics and traces apply.
    """

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service
        self._settings = service.settings
        self._admission = service.admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, or pass on an ASGI connection of another type."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw = scope["headers"]
        headers = read_headers(raw)
        scope["headers"] = [*headers.items()]
        caller = Caller.from_headers(headers)
        own_id = request_id.choose(caller.request_id)
        request_id.current.set(own_id.decode())
        body = Body(
            receive, caller.content_length, max_bytes=self._settings.max_body_bytes, seconds=self._settings.body_seconds
        )
        method = scope["method"]
        without_body = method == "HEAD"
        response = _ResponseSender(send, own_id, without_body=without_body)
        traces = self._service.traces
        span = None if traces is None else traces.begin(scope, own_id.decode())
        client = None
        self._admission.enter()
        started = time.perf_counter()
        try:
            check_headers(scope["http_version"], raw, headers)
            address = (scope["client"] or ("",))[0]
            client = self._admission.admit(method, scope["path"], address, caller)
            endpoint = RAW_ROUTES.find(method, scope["path"])
            if endpoint is None:
                await self._app({**scope, "method": "GET"} if without_body else scope, body, response)
            else:
                await self._answer_raw(endpoint, scope["path"], headers, body, response)
        except (ClientDisconnected, ClientDisconnect):
            response.status = 499  # for the log only: the client has disconnected
        except KronError as error:
            await failure(self._service, scope, error)(scope, receive, response)
        except Exception as error:  # the last place that can answer it and log it
            self._service.metrics.failed("InternalError")
            log.exception("%s %s", scope["method"], scope["path"][:200], exc_info=error)
            if response.status == 0:
                await internal_error()(scope, receive, response)
        finally:
            self._admission.leave(client)
            if traces is not None and span is not None:
                traces.end(span, response.status)
            if self._settings.access_log:
                fields = {"status": response.status, "seconds": round(time.perf_counter() - started, 6)}
                access.info("%s %s", scope["method"], scope["path"][:500], extra=fields)

    async def _answer_raw(
        self, endpoint: Endpoint, path: str, headers: Headers, body: Body, response: "_ResponseSender"
    ) -> None:
        """Answer by a raw endpoint, whose work is cancelled when the client disconnects."""
        content = await body.read()
        with DisconnectWatch(body):
            answered = await answer(endpoint, self._service, path, headers, content)
        await response.send_data(answered.body, answered.media_type, answered.headers)


class _ResponseSender:
    """ASGI `send` of one request that adds the common headers and records the status; 0 before the response starts.

    A HEAD request is answered as a GET of which only the headers are sent (`without_body`).
    """

    __slots__ = ("_request_id", "_send", "_without_body", "status")

    def __init__(self, send: Send, request_id: bytes, *, without_body: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._without_body = without_body
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = complete(message["headers"], [*PAGE_HEADERS, (b"x-request-id", self._request_id)])
            await self._send(message)
            if self._without_body:  # at once: a stream of events has no end
                await self._send({"type": "http.response.body", "body": b""})
        elif not self._without_body:
            await self._send(message)

    async def send_data(self, body: bytes, media_type: bytes, more: list[tuple[bytes, bytes]]) -> None:
        """Send a whole answer with status 200 that no browser shows as a page."""
        headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *DATA_HEADERS]
        headers += [(b"x-request-id", self._request_id), *more]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
        self.status = 200
