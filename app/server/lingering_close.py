"""Closing a connection whose client is still sending, so that the client can read its response."""

from asyncio import AbstractEventLoop, Protocol, Transport
from collections.abc import Callable

MAX_BYTES = 2**30  # dropped before the connection is closed


class LingeringClose(Protocol):
    """Protocol of a connection after its last response: drops what the client sends until the client closes, too.

    The system resets a connection that is closed while bytes arrive, and the reset can destroy a response that the
    client has not read yet. So the service first ends its own side only (RFC 9112, 9.6).

    Args:
        transport: of the connection; its protocol is replaced by this one.
        loop: the event loop.
        seconds: longest wait for the client.
        on_lost: called when the connection is closed, as `Protocol.connection_lost`.
    """

    def __init__(
        self,
        transport: Transport,
        loop: AbstractEventLoop,
        seconds: float,
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._transport = transport
        self._on_lost = on_lost
        self._bytes = 0
        self._timer = loop.call_later(seconds, self._close)
        transport.set_protocol(self)
        transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Drop the bytes; close where they are too many."""
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer, and report the end of the connection."""
        self._timer.cancel()
        self._on_lost(exc)

    def _close(self) -> None:
        if self._transport.get_write_buffer_size():  # the client does not read either
            self._transport.abort()
        else:
            self._transport.close()
