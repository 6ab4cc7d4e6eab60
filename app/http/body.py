"""A request body has a largest size and a longest time, however it is sent."""

import asyncio

from starlette.types import Message, Receive

from app.errors import BadRequest, ClientDisconnected, RequestTimeout, TooLarge

LATE_SECONDS = 0.25  # for what has come while the event loop was away


class Body:
    """The `receive` of one request, which counts what arrives, so that a body without Content-Length is bounded too."""

    __slots__ = ("_announced", "_complete", "_deadline", "_late", "_max_bytes", "_receive", "_received", "_seconds")

    def __init__(self, receive: Receive, announced: bytes, *, max_bytes: int, seconds: float) -> None:
        self._receive = receive
        self._announced = announced.strip()
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._received = 0
        self._complete = False
        self._deadline: float | None = None
        self._late = False

    async def __call__(self) -> Message:
        """The next message.

        Raises:
            BadRequest: the length that was announced is none.
            TooLarge: the length announced, or what has arrived, is too much.
            RequestTimeout: it does not come in time.
        """
        if self._complete:
            return await self._receive()  # only a disconnect can follow, and that may take as long as it likes
        if not self._announced.isdigit():
            raise BadRequest("Content-Length: expected a number of bytes")
        self._check(int(self._announced))
        loop = asyncio.get_running_loop()
        self._deadline = self._deadline or loop.time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            if self._late:
                raise RequestTimeout(f"body: not received within {self._seconds:g} s (KRON_BODY_SECONDS)") from None
            self._late, self._deadline = True, loop.time() + LATE_SECONDS
            return await self()
        self._received += len(message.get("body", b""))
        self._check(self._received)
        self._complete = not message.get("more_body", False)
        return message

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            HungUp: the client is gone.
        """
        parts = []
        while not self._complete:
            message = await self()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("the client hung up before its body was complete")
            parts.append(message["body"])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLarge(f"body: got {size} bytes or more, expected at most {self._max_bytes} (KRON_MAX_BODY_BYTES)")
