"""Request bodies with limits of size and time, and detection of clients that disconnect."""

import asyncio

from starlette.requests import Request
from starlette.types import Message, Receive

from app.errors import BadRequest, ClientDisconnected, RequestTimeout, TooLarge
from app.http.compression import decode_body

GRACE_SECONDS = 0.25  # after the deadline, for bytes that arrived while the event loop was busy
WATCH_AFTER_SECONDS = 0.02  # a shorter request ends before a disconnect could spare anything


class Body:
    """ASGI `receive` of one request that limits the size and the time of its body, a chunked one included.

    Args:
        receive: of the server.
        announced: value of the header `Content-Length`, `0` where there is none.
        max_bytes: largest body.
        seconds: longest wait for the whole body, from the first call.
    """

    __slots__ = ("_announced", "_complete", "_deadline", "_in_grace", "_max_bytes", "_receive", "_received", "_seconds")

    def __init__(self, receive: Receive, announced: bytes, *, max_bytes: int, seconds: float) -> None:
        self._receive = receive
        self._announced = announced.strip()
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._received = 0
        self._complete = False
        self._deadline: float | None = None
        self._in_grace = False

    async def __call__(self) -> Message:
        """Receive the next ASGI message.

        Raises:
            BadRequest: the announced length is not a number.
            TooLarge: the announced length, or what has arrived, is over the limit.
            RequestTimeout: the body is not complete in time.
        """
        if self._complete:
            return await self._receive()  # only a disconnect can follow, and there is no limit on when
        if not self._announced.isdigit():
            raise BadRequest(f"Content-Length: got {self._announced[:40]!r}, expected a number of bytes")
        self._check(int(self._announced))
        loop = asyncio.get_running_loop()
        self._deadline = self._deadline or loop.time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            if self._in_grace:
                raise RequestTimeout(f"body: not received within {self._seconds:g} s (KRON_BODY_SECONDS)") from None
            self._in_grace, self._deadline = True, loop.time() + GRACE_SECONDS
            return await self()
        self._received += len(message.get("body", b""))
        self._check(self._received)
        self._complete = not message.get("more_body", False)
        return message

    async def read(self) -> bytes:
        """Receive the whole body.

        Raises:
            ClientDisconnected: the client disconnected before the body was complete.
        """
        parts = []
        while not self._complete:
            message = await self()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("the client disconnected before its body was complete")
            parts.append(message["body"])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLarge(f"body: got {size} bytes or more, expected at most {self._max_bytes} (KRON_MAX_BODY_BYTES)")


async def read_body(request: Request) -> bytes:
    """Receive the whole body of a request to a route of FastAPI, and decompress it.

    Raises:
        UnsupportedEncoding, BadRequest, TooLarge: as `app.http.compression.decode`.
    """
    encoding = request.headers.get("content-encoding", "").encode("latin-1")
    return await decode_body(await request.body(), encoding, request.app.state.service.settings)


class DisconnectWatch:
    """Context that cancels its own task when the client disconnects.

    Args:
        receive: of a request whose body has been read.

    Raises:
        ClientDisconnected: at the end of the context, instead of the cancellation.
    """

    __slots__ = ("_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._timer = loop.call_later(WATCH_AFTER_SECONDS, self._start)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._watcher is None:
            return
        disconnected = self._watcher.done()
        self._watcher.cancel()
        if kind is asyncio.CancelledError and disconnected and self._task is not None and self._task.uncancel() == 0:
            raise ClientDisconnected("the client disconnected") from None

    def _start(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self._task.cancel()
