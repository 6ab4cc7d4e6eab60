"""A connection, bounded: how long it may say nothing, how long and large a head may be, and how many there may be."""

from asyncio import TimerHandle, Transport
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.server.proxies import TrustedProxies
from app.settings import Settings

CHUNK_SHARE = 16  # bytes that may frame one of a body: even one that is a chunk of its own needs fewer


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for every connection of a server; `refused` is told why one was ended, in a word."""

    settings: Settings
    proxies: TrustedProxies | None
    refused: Callable[[str], None]


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with an end to every wait for the client that no endpoint has an end for.

    A head that comes in one piece, as they mostly do, costs no timer.
    """

    def __init__(self, bounds: Bounds, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self._bounds = bounds
        self._settings = bounds.settings
        self._peer: tuple[str, int] | None = None
        self._answered: RequestResponseCycle | None = None
        self._timer: TimerHandle | None = None  # until the head has to be complete
        self._stuck: TimerHandle | None = None  # until the client has to have read something
        self._begun = False  # a head that is not complete
        self._completed = False  # one that the last bytes completed
        self._in_body = False
        self._ended = False  # a body that the last bytes completed
        self._head_bytes = 0  # of it, before those that are being read; after it, what is neither it nor its body
        self._read_bytes = 0
        self._body_bytes = 0  # of those that were read last
        self._refusal: tuple[HTTPStatus, str] | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client is here."""
        super().connection_made(transport)
        self._peer = self.client
        most = self._settings.max_connections
        if len(self.connections) > most:
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{most} connections are open, the most that may (KRON_MAX_CONNECTIONS)",
                "TooManyConnections",
            )
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        for timer in (self._timer, self._stuck):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        if self._answered is not None:  # uvicorn thinks of the last request that has come, not of the one before it
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Bytes of any number of requests."""
        self._completed = self._ended = False
        self._read_bytes = len(data)
        self._body_bytes = 0
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._completed and not self._begun:
            self._head_bytes = 0
            return
        waiting = self._begun or self._idle()
        if self._in_body:  # the parser keeps a trailer until it is complete, however long it is
            self._head_bytes = max(0, self._head_bytes + len(data) - CHUNK_SHARE * self._body_bytes)
        elif waiting and not (self._completed or self._ended):
            self._head_bytes += len(data)
        else:
            self._head_bytes = 0
        if self._head_bytes > self._settings.max_head_bytes:
            self._refuse(*self._too_large(), "HeadTooLarge")
        elif self._timer is None and waiting:
            # Also in the rest of a body after an early answer, whose end is waited for no longer than for a head.
            self._await_head()

    def on_message_begin(self) -> None:
        """A request's first byte is here."""
        super().on_message_begin()
        self._begun = True

    def on_headers_complete(self) -> None:
        """A request's head is here."""
        self._begun = False
        self._completed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        most = self._settings.max_head_bytes
        if self._head_bytes + self._read_bytes > most and self._size() > most:
            self._fail_parsing(*self._too_large())
        if self._bounds.proxies is not None and self._peer is not None:
            self.client = self._bounds.proxies.client(self._peer, self.headers)
            self.scope["client"] = self.client
        self.head_complete()
        self._in_body = True

    def head_complete(self) -> None:
        """Begin to answer."""
        super().on_headers_complete()
        self.headers = deque(maxlen=0)  # type: ignore[assignment]  # trailers are no headers: they go nowhere

    def on_body(self, body: bytes) -> None:
        """A part of a request's body is here."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's body is here."""
        self._in_body = False
        self._ended = True
        self.message_complete()

    def message_complete(self) -> None:
        """Let whoever answers know."""
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request has been answered."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reading()

    def eof_received(self) -> None:
        """The client says no more: the transport closes once it has read what is written so far."""
        super().eof_received()
        self._await_reading()

    def send_400_response(self, msg: str) -> None:
        """What came is no request, or was refused while it was being read."""
        refusal, self._refusal = self._refusal, None
        if refusal is None:
            self._refuse(HTTPStatus.BAD_REQUEST, "got something that is not HTTP/1.1", "InvalidHttp")
        else:
            self._refuse(*refusal, "HeadTooLarge")

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        if self.transport.is_closing():  # and has to read the rest, too
            self._await_reading()

    def timeout_keep_alive_handler(self) -> None:
        """No further request has come."""
        self._end()

    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _may_answer(self) -> bool:
        """Whether what is written now is taken for the answer to what comes, not to or for a part of another one."""
        if not self._in_body:
            return self._idle()
        return self.cycle is self._answered is not None and not self.cycle.response_started

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self._settings.head_seconds, self._head_timed_out)

    def _head_timed_out(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if not self._idle():  # the next request has begun before this one was answered: that comes first
            self._await_head()
        elif self._begun:
            seconds = self._settings.head_seconds
            message = f"headers: not received within {seconds:g} s (KRON_HEAD_SECONDS)"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, message, "HeadTimeout")
        else:  # it has not asked for anything
            self._bounds.refused("IdleConnection")
            self._end()

    def _await_reading(self) -> None:
        if self._stuck is None and self.transport.get_write_buffer_size():
            self._stuck = self.loop.call_later(self._settings.send_seconds, self._not_read)

    def _not_read(self) -> None:
        self._stuck = None
        self._bounds.refused("SlowReader")
        self.transport.abort()

    def _end(self) -> None:
        """Close, without a wait for a client that does not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _size(self) -> int:
        """Bytes of a complete head, near enough."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_large(self) -> tuple[HTTPStatus, str]:
        most = self._settings.max_head_bytes
        got = f"headers: got more than {most} bytes"
        if self._in_body:
            got = f"body: got more than {most} bytes besides it, in lengths and extensions of chunks and in trailers"
        message = f"{got}, expected at most so many (KRON_MAX_HEAD_BYTES)"
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message

    def _fail_parsing(self, status: HTTPStatus, message: str) -> NoReturn:
        """End the parsing of what has come; `send_400_response` is called for it."""
        self._refusal = status, message
        raise ValueError(message)

    def _refuse(self, status: HTTPStatus, message: str, reason: str) -> None:
        """Answer and close."""
        self._bounds.refused(reason)
        if not self._may_answer():
            self._close()
            return
        body = orjson.dumps({"error": message})
        head = [f"HTTP/1.1 {status.value} {status.phrase}", "content-type: application/json"]
        head += [f"content-length: {len(body)}", "connection: close", "cache-control: no-store"]
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            head.append("retry-after: 1")
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self._close()

    def _close(self) -> None:
        """Close once the client has read what is written."""
        self.transport.close()
        self._await_reading()
