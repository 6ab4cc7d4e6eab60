"""Clients that have ended their side of the connection: those that wait for a response, and those that are gone.

Both look the same to the service, which has read the end of what the client sends. Only bytes that are written tell
them apart: the system of a client that has closed its socket answers them by a reset. Every response begins with the
same bytes; they are written as soon as the client has ended its side, and a reset ends the request.
"""

import socket
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable

STATUS_LINE_START = b"HTTP/1.1 "
FIRST_CHECK_SECONDS, LAST_CHECK_SECONDS = 0.01, 1.0  # the wait between two checks doubles from the one to the other


class ResponseTransport:
    """Transport that uvicorn writes the responses of one connection to.

    Args:
        transport: of the connection.
        close: called where uvicorn closes the connection, after its last response.
    """

    __slots__ = ("_transport", "close", "is_closing", "write")

    def __init__(self, transport: Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.close = close
        self.is_closing = transport.is_closing
        self.write: Callable[[bytes], None] = transport.write

    def begin(self) -> None:
        """Write the bytes that every response begins with; the next `write`, of a response, leaves them out."""
        self._transport.write(STATUS_LINE_START)
        self.write = self._write_rest

    def _write_rest(self, data: bytes) -> None:
        self.write = self._transport.write
        self.write(data.removeprefix(STATUS_LINE_START))


class ResetWatch:
    """Aborts a connection that is not read any more once its client has reset it.

    Args:
        transport: of the connection.
        loop: the event loop.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = FIRST_CHECK_SECONDS
        self._timer: TimerHandle = loop.call_later(self._seconds, self._check)

    def cancel(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _check(self) -> None:
        if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        self._seconds = min(2 * self._seconds, LAST_CHECK_SECONDS)
        self._timer = self._loop.call_later(self._seconds, self._check)
