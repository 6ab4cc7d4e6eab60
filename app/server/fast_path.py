"""The fast path: raw endpoints answered on the event loop, without a task or ASGI, where nothing has to be awaited."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from app.access.admission import Caller
from app.http.endpoints import RAW_ROUTES, Endpoint, Headers, RawRequest
from app.http.security_headers import DATA_HEADERS, RawHeaders
from app.inference.batching import InferenceResult
from app.service import Service
from app.telemetry import request_id

MAX_BYTES = 64 * 1024  # of a body; reading a longer one would keep the event loop from other requests
CLOSE = (b"connection", b"close")  # among uvicorn's default headers while the service ends

# Receives status line, headers and body of an answer, without the headers that uvicorn adds to all of them; None where
# the request is left to `RequestMiddleware`.
Deliver: TypeAlias = Callable[[tuple[bytes, bytes] | None], None]


class FastPath:
    """Answers the requests that need no waiting and succeed; all others are left to `RequestMiddleware`.

    A request that is left has changed nothing: no statistics, no metrics, no log. `RequestMiddleware` reads it from the
    start, and reports what is wrong with it.

    Requests that arrive in one iteration of the event loop are run together; a lone one is not delayed.

    Args:
        service: answers the requests.

    `closes` says whether the connection closes after an answer, as the headers of `lines` say.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._data_headers = _lines(DATA_HEADERS)
        self._default_headers: RawHeaders = []
        self._default_lines = b""
        self.closes = False
        self._prepared: list[tuple[RawRequest, bytes | None, Deliver]] = []
        # Traces and the access log need the start and the end of each request, which only `RequestMiddleware` reports.
        self._enabled = service.traces is None and not service.settings.access_log

    def find(self, method: str, path: str) -> Endpoint | None:
        """Find the endpoint that may answer a request once its body is complete."""
        return RAW_ROUTES.find(method, path) if self._enabled else None

    def begin(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        *,
        address: str,
        headers: RawHeaders,
        body: bytes,
        deliver: Deliver,
    ) -> bool:
        """Prepare a complete request; if it needs no waiting, `finish` answers it in this iteration of the event loop.

        Args:
            endpoint: found by `find`.
            method: of the request.
            path: of the request.
            address: IP address of the client.
            headers: of the request, names in lower case.
            body: of the request.
            deliver: called with the answer.

        Returns:
            False if the request is left to `RequestMiddleware`; `deliver` is not called then.
        """
        given = dict(headers)
        # CORS is decided by the layers around `RequestMiddleware`, repeated and missing headers by itself.
        if b"origin" in given or len(given) < len(headers) or b"host" not in given:
            return False
        caller = Caller.from_headers(given)
        try:
            self._service.admission.check(method, path, address, caller)
            request = self._prepare(endpoint, path, given, body)
        except Exception:  # any error: `RequestMiddleware` raises it again, and counts, logs and answers it
            return False
        if request is None:
            return False
        if not self._prepared:
            # Called after all bytes that have arrived by now are parsed, so that these requests can be run together.
            asyncio.get_running_loop().call_soon(self.finish)
        self._prepared.append((request, caller.request_id, deliver))
        return True

    def finish(self) -> None:
        """Run and answer all prepared requests, in the order of their arrival."""
        prepared, self._prepared = self._prepared, []
        results = iter(
            self._service.scheduler.run_inline([task for request, _, _ in prepared for task in request.tasks])
        )
        for request, given_id, deliver in prepared:
            deliver(self._answer(request, [next(results) for _ in request.tasks], given_id))

    def _prepare(self, endpoint: Endpoint, path: str, headers: Headers, body: bytes) -> RawRequest | None:
        """Read a request; None if a run is too long for the event loop, or a body has to be (de)compressed."""
        if b"content-encoding" in headers:
            return None
        request = endpoint(self._service, path, headers)
        if not request.may_run_inline():
            return None
        request.prepare(body)
        if b"accept-encoding" in headers and request.is_worth_compressing():
            return None
        max_inline_rows = self._service.scheduler.max_inline_rows
        for task in request.tasks:
            if task.rows > max_inline_rows(task.engine):
                return None
        return request

    def _answer(
        self, request: RawRequest, results: Sequence[InferenceResult | Exception], given_id: bytes | None
    ) -> tuple[bytes, bytes] | None:
        inferences = [result for result in results if not isinstance(result, Exception)]
        if len(inferences) < len(results):
            return None
        try:
            answer = request.finish(inferences)
        except Exception:  # any error: `RequestMiddleware` repeats the request, and answers it
            return None
        own_id = request_id.choose(given_id)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bx-request-id: %b\r\n"
        head %= (answer.media_type, len(answer.body), self._data_headers, own_id)
        return (head + _lines(answer.headers) if answer.headers else head), answer.body

    def lines(self, headers: RawHeaders) -> bytes:
        """Format uvicorn's default headers; kept until uvicorn replaces the list, each second, for the date."""
        if headers is not self._default_headers:
            self._default_headers, self._default_lines = headers, _lines(headers)
            self.closes = CLOSE in headers
        return self._default_lines


def _lines(headers: RawHeaders) -> bytes:
    """Format headers as the lines of an HTTP/1.1 response."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
