"""HTTP connections: uvicorn's httptools protocol with limits on every wait for a client, and with the fast path."""

from asyncio import AbstractEventLoop
from collections import deque
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.server import ServerState

from app.http.endpoints import Endpoint
from app.server.bounded_connection import BoundedConnection, ConnectionConfig
from app.server.connection_state import CLIENT_MUST_SEND, FRAMING_COUNTS, HEADERS_COUNT, Event, State
from app.server.fast_path import MAX_BYTES
from app.server.request_parser import headers_without_upgrade, new_parser

FRAMING_RATIO = 16  # bytes of framing allowed for each byte of a body; one that is a chunk of its own needs fewer

# Looking up a member of an enumeration takes 0.1 µs in Python 3.11, a global name a tenth of that.
HEADERS, HELD, FAST_PATH, NEXT_BODY = State.HEADERS, State.HELD, State.FAST_PATH, State.NEXT_BODY
REQUEST_BEGUN, REQUEST_HELD, REQUEST_PASSED_ON = Event.REQUEST_BEGUN, Event.REQUEST_HELD, Event.REQUEST_PASSED_ON
FAST_PATH_BEGUN, BODY_COMPLETE = Event.FAST_PATH_BEGUN, Event.BODY_COMPLETE


class HttpConnection(BoundedConnection):
    """Protocol of one connection: uvicorn's, with limits that no endpoint can set, and with the fast path.

    `ConnectionState` decides what may be written and when the connection closes; this class parses, measures, writes.

    A request that the fast path may be able to answer is held back until the bytes that brought its headers have been
    parsed. Mostly they hold the whole body too: then the fast path answers without a task, in the same turn of the
    event loop. Every other request is passed on to uvicorn, which starts a task for the application.
    """

    def __init__(
        self,
        shared: ConnectionConfig,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(shared, config, server_state, app_state, _loop)
        self.parser = new_parser(self)
        self._endpoint: Endpoint | None = None  # of the request that is held
        self._body_parts: list[bytes] = []  # of the request that is held
        self._overhead_bytes = 0  # of headers that are not complete, or of a body's framing and trailers
        self._read_bytes = 0  # of the present read
        self._read_body_bytes = 0  # of the present read: bytes of bodies
        self._read_is_within = True  # the present read completed neither headers nor a body

    def data_received(self, data: bytes) -> None:
        """Parse the bytes of any number of requests."""
        self._read_bytes = len(data)
        self._read_body_bytes = 0
        self._read_is_within = True
        self._parse(data)
        state = self._state.state
        if state is FAST_PATH or self.transport.is_closing():
            return
        if state is HELD:  # the rest of the body is still to come
            self._pass_on_held()
            return
        if state in FRAMING_COUNTS and self._read_is_within:  # the parser keeps trailers until they are complete
            overhead = self._read_bytes - FRAMING_RATIO * self._read_body_bytes
            self._overhead_bytes = max(0, self._overhead_bytes + overhead)
        elif state in HEADERS_COUNT and self._read_is_within:
            self._overhead_bytes += self._read_bytes
        else:
            self._overhead_bytes = 0
        if self._overhead_bytes > self._settings.max_head_bytes:
            self._refuse_too_large()
        elif self._headers_timer is None and state in CLIENT_MUST_SEND:  # headers in one piece need no timer
            self._start_headers_timer()

    def on_message_begin(self) -> None:
        """Begin a request at its first byte; an earlier one that the fast path has prepared is answered first."""
        if self._state.state is FAST_PATH:
            self._fast_path.finish()
            if self.timeout_keep_alive_task is not None:  # the client has sent its next request
                self.timeout_keep_alive_task.cancel()
                self.timeout_keep_alive_task = None
        super().on_message_begin()
        self._state.receive(REQUEST_BEGUN)

    def on_headers_complete(self) -> None:
        """Hold the request for the fast path, or pass it on to the application."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":  # what follows is not HTTP
                raise ValueError("this is no proxy")
            self._state.receive(Event.UPGRADE_OFFERED)
            return
        if self._headers_timer is not None:
            self._cancel_headers_timer()
        most = self._settings.max_head_bytes
        if self._overhead_bytes + self._read_bytes > most and self._headers_size() > most:
            self._refuse_too_large()
            raise ValueError("headers are too large")  # ends the parsing
        self._read_is_within = False
        self._overhead_bytes = 0
        if self._shared.proxies is not None and self._peer is not None:
            self.client = self._shared.proxies.client(self._peer, self.headers)
            self.scope["client"] = self.client
        if self._may_take_fast_path():
            self._endpoint = self._fast_path.find("POST", self.url.decode("ascii", "replace"))
        if self._endpoint is None:
            self._pass_on()
        else:
            self._state.receive(REQUEST_HELD)

    def on_body(self, body: bytes) -> None:
        """Keep a part of a held request's body, or pass it on to the application."""
        if self._state.state is HELD:
            self._body_parts.append(body)
        else:
            self._read_body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; the fast path begins to answer it if it was held."""
        if self._state.state is HELD:
            parts = self._body_parts
            assert self._endpoint is not None
            if self._fast_path.begin(
                self._endpoint,
                "POST",
                self.url.decode("ascii"),
                address=self.client[0] if self.client else "",
                headers=self.headers,
                body=parts[0] if len(parts) == 1 else b"".join(parts),
                deliver=self._deliver,
            ):
                self._state.receive(FAST_PATH_BEGUN)
                return
            self._pass_on_held()
        elif self.parser.should_upgrade():  # its body has not been read yet
            return
        self._read_is_within = False
        super().on_message_complete()
        self._state.receive(BODY_COMPLETE)

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not valid HTTP; too large headers have been refused before."""
        if self._state.state is not State.DRAINING:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(Event.INVALID_HTTP, "got something that is not HTTP/1.1", "InvalidHttp")

    def _parse(self, data: bytes) -> None:
        """Feed the parser; requests that offer another protocol are parsed as if they did not."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        rest: bytes | memoryview = data
        headers = b""
        while True:
            try:
                if headers:
                    self.parser.feed_data(headers)
                self.parser.feed_data(rest)
            except HttpParserUpgrade as offer:
                rest = memoryview(rest)[offer.args[0] :]
                method, version = self.parser.get_method(), self.parser.get_http_version()
                headers = headers_without_upgrade(method, self.url, version, self.headers)
                self.parser = new_parser(self)
            except HttpParserError as error:
                self.send_400_response(str(error))
                return
            else:
                return

    def _may_take_fast_path(self) -> bool:
        """Whether a request may take the fast path: a short POST, with nothing else in progress on the connection."""
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
            and self._state.state is HEADERS
            and not self.flow.write_paused
            and self._content_length() <= MAX_BYTES
        )

    def _content_length(self) -> float:
        """Length of the body in bytes by the request's headers; infinite where they do not give it."""
        for name, value in self.headers:
            if name == b"content-length":
                return int(value)  # httptools has checked that it is a number
        return float("inf")

    def _pass_on(self) -> None:
        """Have uvicorn start the application for the present request, or let the request wait for earlier ones."""
        if self._state.state is State.DRAINING:
            raise ValueError("the last response is written")  # ends the parsing: it could not be answered
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # such a client knows no interim response
        super().on_headers_complete()
        self.cycle.transport = self._responses  # type: ignore[assignment]  # has what the cycle uses
        self.headers = deque(maxlen=0)  # type: ignore[assignment]  # trailers are no headers: they are dropped
        self._state.receive(REQUEST_PASSED_ON)
        if self._state.state is not NEXT_BODY:
            self._cycle_answered = self.cycle

    def _pass_on_held(self) -> None:
        """Pass on the held request with the received part of its body."""
        parts = self._release_held()
        if not self.transport.is_closing():
            self._pass_on()
            for part in parts:
                super().on_body(part)

    def _release_held(self) -> list[bytes]:
        """Stop holding a request; returns the received parts of its body."""
        self._endpoint = None
        parts, self._body_parts = self._body_parts, []
        return parts

    def _deliver(self, answer: tuple[bytes, bytes] | None) -> None:
        """Write the answer of the fast path, or pass the request on where it has none."""
        if self._state.state is not FAST_PATH:
            self._release_held()  # the connection is lost
        elif self.transport.is_closing():
            self._release_held()
            self._state.receive(Event.CLOSE_BEGUN)
        elif answer is None:
            self._pass_on_held()
            super().on_message_complete()
        else:
            self._release_held()
            headers, body = answer
            common = self._fast_path.lines(self.server_state.default_headers)
            self.transport.write(b"%b%b\r\n%b" % (headers, common, body))
            if self._fast_path.closes:
                self.transport.close()
            self.on_response_complete()

    def _headers_size(self) -> int:
        """Size in bytes of the request's URL and complete headers, close to the size that was sent."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_too_large(self) -> None:
        most = self._settings.max_head_bytes
        got = f"headers: got more than {most} bytes"
        if self._state.state in FRAMING_COUNTS:
            got = f"body: got more than {most} bytes besides it, in lengths and extensions of chunks and in trailers"
        message = f"{got}, expected at most {most} (KRON_MAX_HEAD_BYTES)"
        self._refuse(Event.HEADERS_TOO_LARGE, message, "HeadTooLarge")
