"""Routes below FastAPI's dependency layer, for requests of which there are many; documented like all others."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Scope

from app.headers import RawHeaders


class Answer(NamedTuple):
    """What a plain endpoint answers with status 200."""

    body: bytes
    media_type: bytes = b"application/json"
    headers: RawHeaders = []  # noqa: RUF012 - never changed


# From `scope["app"].state.service` an endpoint has all it needs; errors are raised as everywhere.
Endpoint: TypeAlias = Callable[[Scope, bytes], Awaitable[tuple[bytes, bytes, RawHeaders]]]


class PlainRoutes:
    """The endpoints that `Front` asks before it asks FastAPI: by exact path first, then by pattern."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], Endpoint] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Endpoint]] = []

    def add(self, method: str, path: str | re.Pattern[str], endpoint: Endpoint) -> None:
        """Register an endpoint; a pattern has to match the whole path."""
        if isinstance(path, str):
            self._exact[method, path] = endpoint
        else:
            self._patterns.append((method, path, endpoint))

    def find(self, method: str, path: str) -> Endpoint | None:
        """The endpoint for a request, if there is one."""
        found = self._exact.get((method, path))
        if found is not None:
            return found
        for wanted, pattern, endpoint in self._patterns:
            if method == wanted and pattern.fullmatch(path):
                return endpoint
        return None


def plain_route(
    router: APIRouter, routes: PlainRoutes, method: str, path: str, **documentation: Any
) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint with FastAPI too, which documents it, and runs it where `Front` is not asked."""

    def register(endpoint: Endpoint) -> Endpoint:
        async def documented(request: Request) -> Response:
            body, media_type, headers = await endpoint(request.scope, await request.body())
            response = Response(body, media_type=media_type.decode())
            response.raw_headers.extend(headers)
            return response

        documented.__doc__ = endpoint.__doc__
        documented.__name__ = endpoint.__name__
        router.add_api_route(path, documented, methods=[method], **documentation)
        routes.add(method, router.prefix + path, endpoint)
        return endpoint

    return register
