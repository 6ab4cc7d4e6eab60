"""The short way: plain endpoints' answers as bytes for the connection, without a task, where nothing has to wait."""

from app import request_id
from app.admission import Caller
from app.headers import DATA_HEADERS, RawHeaders
from app.plain import plain
from app.service import Service

MAX_BYTES = 64 * 1024  # of a body; what takes longer to read is no matter of microseconds
_HEADERS = b"".join(b"%b: %b\r\n" % header for header in DATA_HEADERS)


class Shortcut:
    """Answers what can be answered at once and well; all else is left to `Front`, which begins anew.

    Args:
        service: that answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        # Both want to know of each request when it began and when it ended, which `Front` tells them.
        self._open = service.traces is None and not service.settings.access_log

    def may_answer(self, method: str, path: str) -> bool:
        """Whether a request is worth waiting for its body."""
        return self._open and plain.find(method, path) is not None

    def answer(
        self,
        method: str,
        path: str,
        *,
        address: str,
        headers: RawHeaders,
        body: bytes,
        more: RawHeaders,
    ) -> bytes | None:
        """The whole answer to a whole request, or None.

        Args:
            method: of the request.
            path: of the request.
            address: of the client.
            headers: of the request, names in lower case.
            body: of the request.
            more: headers of every answer.
        """
        endpoint = plain.find(method, path)
        given = dict(headers)
        if endpoint is None or b"origin" in given:  # what a browser may do is for the layers around `Front` to say
            return None
        caller = Caller.of(given)
        try:
            self._service.admission.check(method, path, address, caller)
            answer = endpoint.at_once(self._service, path, given, body)
        except Exception:  # whatever it is, `Front` meets it again, and counts, logs and answers it
            return None
        if answer is None:
            return None
        parts = [
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n" % (answer.media_type, len(answer.body)),
            _HEADERS,
            b"x-request-id: %b\r\n" % request_id.choose(caller.request_id),
        ]
        parts += [b"%b: %b\r\n" % header for header in (*answer.headers, *more)]
        parts += (b"\r\n", answer.body)
        return b"".join(parts)
