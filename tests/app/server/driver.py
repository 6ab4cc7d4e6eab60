"""A connection without a socket, which tests drive by bytes."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.server.bounded_connection import ConnectionConfig
from app.server.connection import HttpConnection
from app.server.connection_state import Action, ConnectionState, Event, IllegalTransitionError, State
from app.server.fast_path import FastPath
from app.server.lingering_close import LingeringClose
from app.settings import Settings

PATIENT = Settings(head_seconds=60, keep_alive_seconds=60, send_seconds=60, max_head_bytes=1024)
HASTY = Settings(head_seconds=0.05, keep_alive_seconds=0.4, send_seconds=0.05, max_head_bytes=1024)


_SILENT = socket.socketpair()  # no byte arrives


class FakeSocket:
    """The socket under a transport; `error` is the system's, such as that of a reset.

    `ends` are the service's end and the client's, where a test sends bytes that the service does not read at once.
    """

    error = 0
    ends: tuple[socket.socket, socket.socket] | None = None

    def fileno(self) -> int:
        return self.ends[0].fileno() if self.ends else _SILENT[0].fileno()

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 4711

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 8000

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self.error


class FakeTransport(asyncio.Transport):
    """Records what is written; `unread` is the number of bytes that the client has still to read.

    `protocol` is the one that has replaced the connection's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unread = 0
        self.closing = self.aborted = self.reading_paused = self.ended = False
        self.socket = FakeSocket()
        self.protocol: asyncio.BaseProtocol | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def take(self) -> bytes:
        """What was written since the last call."""
        written, self.written = self.written, b""
        return written


def open_connection(
    protocol: Callable[..., asyncio.Protocol], app: ASGIApp, state: ServerState | None = None, **options: Any
) -> tuple[Any, FakeTransport]:
    """A connection that has just been made, on a transport without a socket; needs a running event loop."""
    config = Config(app, http=protocol, log_config=None, access_log=False, ws="none", **options)  # type: ignore[arg-type]
    config.load()
    connection = protocol(config=config, server_state=state or ServerState(), app_state={}, _loop=None)
    transport = FakeTransport()
    connection.connection_made(transport)
    return connection, transport


async def turn(times: int = 5) -> None:
    """Let everything run that is ready."""
    for _ in range(times):
        await asyncio.sleep(0)


class ManualApp:
    """ASGI application whose responses a test starts and ends, in the order of the requests."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.receives: list[Receive] = []
        self.sends: list[Send] = []
        self._ends: list[asyncio.Event] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.receives.append(receive)
        self.sends.append(send)
        self._ends.append(asyncio.Event())
        await self._ends[-1].wait()

    async def start(self, number: int) -> None:
        headers = [(b"content-length", b"2")]
        await self.sends[number]({"type": "http.response.start", "status": 200, "headers": headers})

    async def end(self, number: int) -> None:
        await self.sends[number]({"type": "http.response.body", "body": b"%02d" % number})
        self._ends[number].set()
        await turn()

    async def respond(self, number: int) -> None:
        await self.start(number)
        await self.end(number)


class StandInFastPath:
    """Accepts `/fast`, and answers when the test asks for it, or leaves the request to the application."""

    def __init__(self) -> None:
        self.accepts = self.answers = True
        self.closes = False
        self.deliver: Callable[[tuple[bytes, bytes] | None], None] | None = None

    def find(self, _: str, path: str) -> object | None:
        return self if path == "/fast" else None

    def begin(self, *_: object, deliver: Callable[[tuple[bytes, bytes] | None], None], **__: object) -> bool:
        if self.accepts:
            self.deliver = deliver
        return self.accepts

    def finish(self) -> None:
        deliver, self.deliver = self.deliver, None
        if deliver is not None:
            deliver((b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n", b"fast") if self.answers else None)

    def lines(self, _: object) -> bytes:
        return b""


class RecordingState(ConnectionState):
    """Keeps the events, and those that were illegal: the parser takes an exception for bad HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.illegal: list[str] = []

    def receive(self, event: Event) -> Action:
        self.events.append(event)
        try:
            return super().receive(event)
        except IllegalTransitionError as error:
            self.illegal.append(str(error))
            raise


class Driver:
    """One connection without a socket."""

    def __init__(self, settings: Settings = PATIENT) -> None:
        self.app = ManualApp()
        self.fast_path = StandInFastPath()
        self.refused: list[str] = []
        shared = ConnectionConfig(settings, cast(FastPath, self.fast_path), None, self.refused.append)
        self.protocol = partial(HttpConnection, shared)
        connection, self.transport = open_connection(
            self.protocol, self.app, timeout_keep_alive=settings.keep_alive_seconds
        )
        assert isinstance(connection, HttpConnection)
        self.connection = connection
        self.machine = connection._state = RecordingState()

    def lingers(self) -> bool:
        """Whether the service has ended its side of the connection and drops what the client still sends."""
        return isinstance(self.transport.protocol, LingeringClose) and self.transport.ended

    def state(self) -> State:
        return self.machine.state

    async def feed(self, data: bytes) -> State:
        """Have the connection read these bytes, and run what is ready then; the state after it."""
        reader = self.transport.protocol or self.connection
        assert isinstance(reader, asyncio.Protocol)
        reader.data_received(data)
        await turn()
        return self.machine.state

    def lose(self) -> None:
        if self.machine.state is not State.CLOSED:
            self.transport.close()
            (self.transport.protocol or self.connection).connection_lost(None)
        assert self.machine.state is State.CLOSED
        assert not self.machine.illegal


def drive(test: Callable[[Driver], Awaitable[None]], settings: Settings = PATIENT) -> None:
    """Run a test of one connection in an event loop."""

    async def run() -> None:
        driver = Driver(settings)
        await test(driver)
        driver.lose()
        await turn()

    asyncio.run(run())


def drive_stock(
    test: Callable[[Any, FakeTransport, ManualApp], Awaitable[None]],
    protocol: Callable[..., asyncio.Protocol] = HttpToolsProtocol,
) -> None:
    """Run a test of one of uvicorn's own protocols in an event loop."""

    async def run() -> None:
        app = ManualApp()
        connection, transport = open_connection(protocol, app)
        await test(connection, transport, app)
        connection.connection_lost(None)
        await turn()

    asyncio.run(run())


def says(what: str) -> str:
    """The message of a failed check."""
    return f"uvicorn {uvicorn.__version__}: {what}"
