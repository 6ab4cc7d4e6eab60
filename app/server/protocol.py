"""HTTP on a connection: uvicorn's protocol, with a short way for requests that are here as a whole."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from app.http.endpoints import Endpoint
from app.server.connection import Bounds, Connection
from app.server.fast_path import MAX_BYTES, FastPath


class Protocol(Connection):
    """One connection.

    uvicorn starts a task as soon as the headers are there. For a request that may be answered at once this waits until
    the bytes that brought the headers have been read to their end: mostly they hold the body too, and then the answer
    needs no task, and comes in the same turn of the event loop. In every other case all is as uvicorn does it, from the
    headers on.
    """

    def __init__(
        self,
        shortcut: FastPath,
        bounds: Bounds,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(bounds, config, server_state, app_state)
        self._shortcut = shortcut
        self._endpoint: Endpoint | None = None  # of a request that no task has been started for
        self._held: list[bytes] = []  # its body so far
        self._read = False  # it has been read

    def data_received(self, data: bytes) -> None:
        """Bytes of any number of requests."""
        super().data_received(data)
        if self._endpoint is not None and not self._read:  # the rest of the body is still to come
            self._release()

    def on_message_begin(self) -> None:
        """A request's first byte is here: what the client sent before it is answered first."""
        if self._read:
            self._finish()
            self._unset_keepalive_if_required()  # which waits for this very byte
        super().on_message_begin()

    def head_complete(self) -> None:
        """A request's headers are there."""
        if self._is_plain():
            self._endpoint = self._shortcut.find("POST", self.url.decode("ascii", "replace"))
        if self._endpoint is None:
            super().head_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body is there."""
        if self._endpoint is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def message_complete(self) -> None:
        """All of it is there."""
        if self._endpoint is None:
            super().message_complete()
            return
        self._read = self._shortcut.begin(
            self._endpoint,
            "POST",
            self.url.decode("ascii"),
            address=self.client[0] if self.client else "",
            headers=self.headers,
            body=self._held[0] if len(self._held) == 1 else b"".join(self._held),
            deliver=self._deliver,
        )
        if not self._read:
            self._release()
            super().message_complete()

    def eof_received(self) -> None:
        """The client says no more, but may still read."""
        self._finish()
        super().eof_received()

    def shutdown(self) -> None:
        """The server ends."""
        self._finish()
        super().shutdown()

    def _finish(self) -> None:
        if self._read:
            self._shortcut.finish()

    def _deliver(self, answer: tuple[bytes, bytes] | None) -> None:
        self._read = False
        if self.transport.is_closing():
            self._endpoint = None
            self._held.clear()
        elif answer is None:
            self._release()
            super().message_complete()
        else:
            self._endpoint = None
            self._held.clear()
            head, body = answer
            common = self._shortcut.lines(self.server_state.default_headers)
            self.transport.write(b"%b%b\r\n%b" % (head, common, body))
            self.on_response_complete()

    def _is_plain(self) -> bool:
        """Whether request and connection are as those mostly are that can be answered at once."""
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and self._length() <= MAX_BYTES
        )

    def _length(self) -> float:
        """Bytes of the body; infinite where they are not told."""
        for name, value in self.headers:
            if name == b"content-length":
                return int(value)  # httptools has seen to it that it is a number
        return float("inf")

    def _release(self) -> None:
        """Have the request answered as any other."""
        self._endpoint = None
        held, self._held = self._held, []
        if self.transport.is_closing():
            return
        super().head_complete()
        for part in held:
            super().on_body(part)


def protocol(shortcut: FastPath, bounds: Bounds) -> type[asyncio.Protocol]:
    """The class of a server's connections, as uvicorn wants it."""

    class OfServer(Protocol):
        def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **_: object) -> None:
            super().__init__(shortcut, bounds, config, server_state, app_state)

    return OfServer
