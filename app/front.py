"""What holds for every request: its id, its key, its limits, its headers; and the short way to the plain endpoints."""

import asyncio
import logging
import time
from collections import Counter
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import request_id
from app.body import Body
from app.errors import Forbidden, HungUp, KronError, Overloaded, TooManyRequests, Unauthorized
from app.headers import DATA_HEADERS, PAGE_HEADERS, complete
from app.keys import find_key, needed_role
from app.plain import Endpoint, plain
from app.responses import failure, internal_error
from app.service import Service

HUNG_UP_SECONDS = 0.02  # only a request that takes longer is worth a look at whether its client still waits
log = logging.getLogger(__name__)
access = logging.getLogger("app.access")


class _Headers(NamedTuple):
    """What matters before anything is read."""

    request_id: bytes | None
    key: bytes | None
    length: bytes
    foreign: bytes | None  # the origin of the page that sent it, if that is another one than ours


class Front:
    """ASGI middleware, the outermost one.

    Args:
        app: what answers everything that is not plain.
        service: for its settings, keys and metrics.
    """

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service
        self._settings = service.settings
        self._running: Counter[str] = Counter()  # by client
        self._total = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _read_headers(scope)
        own_id = request_id.choose(headers.request_id)
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
            receive, headers.length, max_bytes=self._settings.max_body_bytes, seconds=self._settings.body_seconds
        )
        traces = self._service.traces
        span = None if traces is None else traces.begin(scope, own_id.decode())
        client = None
        self._total += 1
        started = time.perf_counter()
        try:
            client = self._admit(scope, headers)
            if endpoint is None:
                await self._app(scope, body, answer)
            else:
                own = [*DATA_HEADERS, (b"x-request-id", own_id)]
                status = await _answer_plainly(endpoint, scope, body, send, own)
        except HungUp:
            status = 499  # nobody reads it
        except KronError as error:
            await failure(self._service, scope, error)(scope, receive, answer)
        except Exception as error:
            self._service.metrics.failed("InternalError")
            log.exception("%s %s", scope["method"], scope["path"][:200], exc_info=error)
            if status == 0:
                await internal_error()(scope, receive, answer)
        finally:
            self._total -= 1
            self._leave(client)
            if traces is not None and span is not None:
                traces.end(span, status)
            if self._settings.access_log:
                fields = {"status": status, "seconds": round(time.perf_counter() - started, 6)}
                access.info("%s %s", scope["method"], scope["path"][:500], extra=fields)

    def _admit(self, scope: Scope, headers: _Headers) -> str | None:
        """Let a request in; the client whose running requests it counts among, until `_leave`.

        Raises:
            Unauthorized, Forbidden: its key does not allow it, or without keys another site's page sent it.
            TooManyRequests: the client has too many running.
            Overloaded: the service has too many running.
        """
        most = self._settings.client_requests
        full = self._total > self._settings.max_requests
        if most is None and not self._service.keys and not full and headers.foreign is None:
            return None
        role = needed_role(scope["method"], scope["path"])
        if role is None:
            return None
        if full:
            raise Overloaded(
                f"{self._settings.max_requests} requests are running, the most that may (KRON_MAX_REQUESTS)"
            )
        client = (scope["client"] or ("",))[0]
        if not self._service.keys:
            self._refuse_foreign(scope, headers.foreign)
        else:
            key = None if headers.key is None else find_key(self._service.keys, headers.key)
            if key is None:
                raise Unauthorized("an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY")
            if key.role < role:
                raise Forbidden(f"got a key for {key.role.name}, expected one for {role.name}")
            client = f"key {key.name}"
        if most is None:
            return None
        if self._running[client] >= most:
            raise TooManyRequests(f"got a request while {most} of this client run, the most that may")
        self._running[client] += 1
        return client

    def _refuse_foreign(self, scope: Scope, origin: bytes | None) -> None:
        """Whatever page a browser shows may send requests to this machine; it must not unload models here."""
        if origin is None or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            return
        got = origin[:200].decode("latin-1")
        if got not in self._settings.cors_origins:
            raise Forbidden(f"got a request from a page of {got}, expected this service's own (KRON_CORS_ORIGINS)")

    def _leave(self, client: str | None) -> None:
        if client is not None:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]


def _read_headers(scope: Scope) -> _Headers:
    given = presented = origin = host = None
    length = b"0"
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = value
        elif name == b"x-request-id":
            given = value
        elif name == b"x-api-key":
            presented = value
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            presented = value[7:].strip()
        elif name == b"origin":
            origin = value
        elif name == b"host":
            host = value
    ours = origin is None or origin.partition(b"://")[2] == host
    return _Headers(given, presented, length, None if ours else origin)


async def _answer_plainly(
    endpoint: Endpoint, scope: Scope, body: Body, send: Send, headers: list[tuple[bytes, bytes]]
) -> int:
    """Send what the endpoint answers; its work ends when the client hangs up."""
    content = await body.read()
    with _HangingUp(body):
        answered, media_type, own = await endpoint(scope, content)
    start = [(b"content-type", media_type), (b"content-length", b"%d" % len(answered)), *headers, *own]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    await send({"type": "http.response.body", "body": answered})
    return 200


class _HangingUp:
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
            raise HungUp("the client hung up") from None

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self._task.cancel()
