"""The short way: plain endpoints' answers as bytes for the connection, without a task, where nothing has to wait."""

from app import request_id
from app.admission import Caller
from app.headers import DATA_HEADERS, RawHeaders
from app.plain import Endpoint, plain
from app.service import Service

MAX_BYTES = 64 * 1024  # of a body; what takes longer to read is no matter of microseconds


class Shortcut:
    """Answers what can be answered at once and well; all else is left to `Front`, which begins anew.

    Args:
        service: that answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._headers = _lines(DATA_HEADERS)
        self._common: RawHeaders = []
        self._written = b""
        # Both want to know of each request when it began and when it ended, which `Front` tells them.
        self._open = service.traces is None and not service.settings.access_log

    def find(self, method: str, path: str) -> Endpoint | None:
        """What may answer a request, once its body is here."""
        return plain.find(method, path) if self._open else None

    def answer(
        self, endpoint: Endpoint, method: str, path: str, *, address: str, headers: RawHeaders, body: bytes
    ) -> tuple[bytes, bytes] | None:
        """Head and body of the answer to a whole request, or None. The head lacks only the headers of all answers.

        Args:
            endpoint: of the request.
            method: of the request.
            path: of the request.
            address: of the client.
            headers: of the request, names in lower case.
            body: of the request.
        """
        given = dict(headers)
        if b"origin" in given:  # what a browser may do is for the layers around `Front` to say
            return None
        caller = Caller.of(given)
        try:
            self._service.admission.check(method, path, address, caller)
            answer = endpoint.at_once(self._service, path, given, body)
        except Exception:  # whatever it is, `Front` meets it again, and counts, logs and answers it
            return None
        if answer is None:
            return None
        own_id = request_id.choose(caller.request_id)
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
