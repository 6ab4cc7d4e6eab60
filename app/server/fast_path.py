"""The short way: plain endpoints' answers as bytes for the connection, without a task, where nothing has to wait."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from app.access.admission import Caller
from app.http.endpoints import Endpoint, PreparedRequest, plain
from app.http.security_headers import DATA_HEADERS, RawHeaders
from app.inference.batching import InferenceResult
from app.service import Service
from app.telemetry import request_id

MAX_BYTES = 64 * 1024  # of a body; what takes longer to read is no matter of microseconds

# Takes headers and body of an answer, without the headers that all answers share; None: `RequestMiddleware` answers.
Deliver: TypeAlias = Callable[[tuple[bytes, bytes] | None], None]


class FastPath:
    """Answers what can be answered at once and well; all else is left to `RequestMiddleware`, which begins anew.

    What arrives in one turn of the event loop is run together; a request that comes alone waits for nothing.

    Args:
        service: that answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._headers = _lines(DATA_HEADERS)
        self._common: RawHeaders = []
        self._written = b""
        self._begun: list[tuple[PreparedRequest, bytes | None, Deliver]] = []
        # Both want to know of each request when it began and when it ended, which `RequestMiddleware` tells them.
        self._open = service.traces is None and not service.settings.access_log

    def find(self, method: str, path: str) -> Endpoint | None:
        """What may answer a request, once its body is here."""
        return plain.find(method, path) if self._open else None

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
        """Read a whole request; if that is all that it has to wait for, it is answered before the event loop waits.

        Args:
            endpoint: of the request.
            method: of the request.
            path: of the request.
            address: of the client.
            headers: of the request, names in lower case.
            body: of the request.
            deliver: is given the answer.

        Returns:
            False if it is left to `RequestMiddleware`.
        """
        given = dict(headers)
        if b"origin" in given:  # what a browser may do is for the layers around `RequestMiddleware` to say
            return False
        caller = Caller.from_headers(given)
        try:
            self._service.admission.check(method, path, address, caller)
            begun = endpoint.begin(self._service, path, given, body)
        except Exception:  # whatever it is, `RequestMiddleware` meets it again, and counts, logs and answers it
            return False
        if begun is None:
            return False
        if not self._begun:
            # Run once all that has arrived by now has been read: what came together can be run together.
            asyncio.get_running_loop().call_soon(self.finish)
        self._begun.append((begun, caller.request_id, deliver))
        return True

    def finish(self) -> None:
        """Answer all that has begun, in the order in which it came."""
        all_begun, self._begun = self._begun, []
        asks = [ask for begun, _, _ in all_begun for ask in begun.asks]
        answers = iter(self._service.scheduler.run_inline(asks))
        for begun, given_id, deliver in all_begun:
            mine = [next(answers) for _ in begun.asks]
            deliver(self._answer(begun, mine, given_id))

    def _answer(
        self, begun: PreparedRequest, results: Sequence[InferenceResult | Exception], given_id: bytes | None
    ) -> tuple[bytes, bytes] | None:
        inferences = [result for result in results if not isinstance(result, Exception)]
        if len(inferences) < len(results):
            return None
        try:
            answer = begun.finish(inferences)
        except Exception:  # as above
            return None
        own_id = request_id.choose(given_id)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bx-request-id: %b\r\n"
        head %= (answer.media_type, len(answer.body), self._headers, own_id)
        return (head + _lines(answer.headers) if answer.headers else head), answer.body

    def lines(self, headers: RawHeaders) -> bytes:
        """The headers of all answers as they are written; uvicorn makes them anew each second, for the date."""
        if headers is not self._common:
            self._common, self._written = headers, _lines(headers)
        return self._written


def _lines(headers: RawHeaders) -> bytes:
    """Headers as they are written."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
