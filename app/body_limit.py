"""ASGI middleware: a request body has a largest size and a longest time, however it is sent."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BadRequest, RequestTimeout, TooLarge


class BodyLimit:
    """Counts what arrives, so that a chunked body without Content-Length is bounded too.

    The errors are raised where the body is read, and answered like all others.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = next((value for key, value in scope["headers"] if key == b"content-length"), b"0")
        received = 0
        complete = False
        deadline: float | None = None

        async def bounded() -> Message:
            nonlocal received, complete, deadline
            if complete:
                return await receive()  # only a disconnect can follow, and that may take as long as it likes
            if not announced.isdigit():
                raise BadRequest("Content-Length: expected a number of bytes")
            self._check(int(announced))
            deadline = deadline or asyncio.get_running_loop().time() + self._seconds
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout(f"body: not received within {self._seconds:g} s (KRON_BODY_SECONDS)") from None
            received += len(message.get("body", b""))
            self._check(received)
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, bounded, send)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLarge(f"body: got {size} bytes or more, expected at most {self._max_bytes} (KRON_MAX_BODY_BYTES)")
