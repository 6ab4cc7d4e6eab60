"""Bounds and ends of a connection: how long the service waits for its client, and how the connection is closed."""

from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.server.connection_state import Action, ConnectionState, Event, State, refusal
from app.server.fast_path import FastPath
from app.server.half_close import ResetWatch, ResponseTransport
from app.server.lingering_close import LingeringClose
from app.server.proxies import TrustedProxies
from app.settings import Settings
from app.system.accept_queue import is_readable

# At the end of the service:
IDLE_GRACE_SECONDS = 0.1  # for a request that is on its way on a connection that was used before
REQUEST_GRACE_SECONDS = 2.0  # for the first request of a new connection, and for a request of which a part has arrived

# Looking up a member of an enumeration takes 0.1 µs in Python 3.11, a global name a tenth of that.
HEADERS, FAST_PATH = State.HEADERS, State.FAST_PATH
ARRIVING = frozenset({State.BODY, State.EARLY_RESPONSE, State.NEXT_HEADERS, State.NEXT_BODY})  # part of a request
NO_REQUEST = frozenset({State.IDLE, HEADERS})  # is complete, or being answered
RESPONSE_COMPLETE, CLOSE = Event.RESPONSE_COMPLETE, Action.CLOSE
ANSWERED_WHILE_SENDING = frozenset({Event.INVALID_HTTP, Event.HEADERS_TOO_LARGE})


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """Configuration that all connections of a server share."""

    settings: Settings
    fast_path: FastPath
    proxies: TrustedProxies | None  # trusted proxies, which set `X-Forwarded-For`
    count_refusal: Callable[[str], None]  # called with the reason, such as `HeadTimeout`, of each refused connection


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol of one connection, with limits on every wait for the client and with ends that lose no answer.

    `ConnectionState` decides what may be written and when the connection closes; this class carries it out.
    """

    def __init__(
        self,
        shared: ConnectionConfig,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared = shared
        self._settings = shared.settings
        self._fast_path = shared.fast_path
        self._state = ConnectionState()
        self._peer: tuple[str, int] | None = None
        self._opened_at = self.loop.time()
        self._cycle_answered: RequestResponseCycle | None = None  # uvicorn's `cycle` is that of the newest request
        self._headers_timer: TimerHandle | None = None  # ends the wait for the client to send
        self._reading_timer: TimerHandle | None = None  # ends the wait for the client to read
        self._responses: ResponseTransport  # set with the transport
        self._reset_watch: ResetWatch | None = None  # after the client has ended its side
        self._lingers = False  # the last response is complete while the client is still sending

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # asyncio's is wider; TCP has a Transport
        """Count the new connection, and refuse it where there are too many."""
        super().connection_made(transport)
        self._peer = self.client
        self._responses = ResponseTransport(transport, self._close_after_response)
        most = self._settings.max_connections
        if len(self.connections) > most:
            message = f"got {len(self.connections)} open connections, expected at most {most} (KRON_MAX_CONNECTIONS)"
            self._refuse(Event.TOO_MANY_CONNECTIONS, message, "TooManyConnections")
        else:
            self._start_headers_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers, and report the disconnect to the application."""
        self._state.receive(Event.CONNECTION_LOST)
        for timer in (self._headers_timer, self._reading_timer, self.timeout_keep_alive_task, self._reset_watch):
            if timer is not None:
                timer.cancel()
        if self._cycle_answered is not None:  # uvicorn reports the disconnect to the newest request only
            self._cycle_answered.disconnected = True
            self._cycle_answered.message_event.set()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begin with the next request, or wait for it."""
        if self._state.receive(RESPONSE_COMPLETE) is CLOSE:
            self.transport.close()
        elif self.pipeline:
            self._cycle_answered = self.pipeline[-1][0]  # uvicorn starts it now
        super().on_response_complete()
        if self._lingers:
            self._linger()
        elif self.transport.is_closing():
            self._state.receive(Event.CLOSE_BEGUN)
            self._await_reading()

    def eof_received(self) -> bool:  # type: ignore[override]  # declared without a result in uvicorn
        """Answer the requests that are complete; the transport closes after them and once all bytes are sent.

        Returns:
            whether the transport stays open for these responses.
        """
        self._finish_fast_path()
        super().eof_received()
        if self._state.receive(Event.CLIENT_ENDED) is CLOSE:
            self._await_reading()
            return False
        self._cancel_headers_timer()
        if self._cycle_answered is not None and not self._cycle_answered.response_started:
            self._responses.begin()
        self._reset_watch = ResetWatch(self.transport, self.loop)
        return True

    def shutdown(self) -> None:
        """Close the connection after the response, or after a moment if it is idle: a request may be on its way."""
        self._finish_fast_path()
        until = self.loop.time()
        if self._state.state is HEADERS:
            until += REQUEST_GRACE_SECONDS
        elif self._state.state is State.IDLE:
            until += IDLE_GRACE_SECONDS
            if self.timeout_keep_alive_task is None:  # no request has come yet
                until = max(until, self._opened_at + REQUEST_GRACE_SECONDS)
        self._shut_down(until)

    def pause_writing(self) -> None:
        """Limit the time of a client that reads more slowly than the service writes."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """Cancel the time limit of a client that has read its responses."""
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None
        if self.transport.is_closing():  # and has to read the rest, too
            self._await_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for the keep-alive time."""
        self._state.receive(Event.KEEP_ALIVE_TIMED_OUT)
        self._close_now()

    def _shut_down(self, until: float) -> None:
        """Close after the response; while no request is complete, at the time `until` of the event loop."""
        self._finish_fast_path()
        state = self._state.state
        if self.transport.is_closing() or state is State.DRAINING:
            return
        if state is State.DISCARDING:
            self._linger()
            return
        if state in NO_REQUEST and (self.loop.time() < until or self._has_unread_bytes()):
            self.loop.call_later(IDLE_GRACE_SECONDS, self._shut_down, until)
            return
        super().shutdown()
        if self.transport.is_closing():
            self._state.receive(Event.CLOSE_BEGUN)

    def _has_unread_bytes(self) -> bool:
        """Whether something has arrived that this process, if it is busy, has yet to read."""
        return is_readable(self.transport.get_extra_info("socket").fileno())

    def _close_after_response(self) -> None:
        """Close after the last response; in stages while the client is still sending."""
        cycle = self._cycle_answered
        if cycle is not None and cycle.response_complete and self._state.state in ARRIVING:
            self.pipeline.clear()
            self._lingers = True  # `on_response_complete` is called next
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Close in stages: the client may be sending, and would not read its response after a reset."""
        self._state.receive(Event.CLOSE_BEGUN)
        self._cancel_headers_timer()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # uvicorn reports only a lost connection to the application
            self.cycle.message_event.set()
        self.flow.resume_reading()
        LingeringClose(self.transport, self.loop, self._settings.head_seconds, self.connection_lost)

    def _start_headers_timer(self) -> None:
        self._headers_timer = self.loop.call_later(self._settings.head_seconds, self._headers_timed_out)

    def _cancel_headers_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _headers_timed_out(self) -> None:
        self._headers_timer = None
        if self.transport.is_closing():
            return
        if self._state.state is HEADERS:
            message = f"headers: not received within {self._settings.head_seconds:g} s (KRON_HEAD_SECONDS)"
            self._refuse(Event.HEADERS_TIMED_OUT, message, "HeadTimeout")
        elif self._state.receive(Event.HEADERS_TIMED_OUT) is Action.WAIT:
            self._start_headers_timer()
        else:
            self._shared.count_refusal("IdleConnection")
            self._close_now()

    def _await_reading(self) -> None:
        if self._reading_timer is None and self.transport.get_write_buffer_size():
            self._reading_timer = self.loop.call_later(self._settings.send_seconds, self._not_read_in_time)

    def _not_read_in_time(self) -> None:
        self._reading_timer = None
        self._state.receive(Event.NOT_READ_IN_TIME)
        self._shared.count_refusal("SlowReader")
        self.transport.abort()

    def _refuse(self, event: Event, message: str, reason: str) -> None:
        """Refuse a request: count it, write an error response if the client takes it for its answer, and close."""
        if self._state.state is State.BODY and self.cycle.response_started:  # uvicorn does not report it
            self._state.receive(Event.RESPONSE_STARTED)
        action = self._state.receive(event)
        self._shared.count_refusal(reason)
        if action is Action.REFUSE:
            self.transport.write(refusal(event, message))
            if event in ANSWERED_WHILE_SENDING:
                self._linger()
                return
        self.transport.close()
        self._await_reading()

    def _close_now(self) -> None:
        """Close at once, without waiting for a client that does not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _finish_fast_path(self) -> None:
        if self._state.state is FAST_PATH:
            self._fast_path.finish()
