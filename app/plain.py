"""Routes below FastAPI's dependency layer, for requests of which there are many; documented like all others."""

from collections.abc import Awaitable, Callable, Mapping
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
Endpoint: TypeAlias = Callable[[Scope, bytes], Awaitable[Answer]]
PlainRoutes: TypeAlias = Mapping[tuple[str, str], Endpoint]


def plain_route(
    router: APIRouter, routes: dict[tuple[str, str], Endpoint], method: str, path: str, **documentation: Any
) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint that gets scope and body; `routes` is what `Front` looks into before it asks FastAPI."""

    def register(endpoint: Endpoint) -> Endpoint:
        async def documented(request: Request) -> Response:
            body, media_type, headers = await endpoint(request.scope, await request.body())
            response = Response(body, media_type=media_type.decode())
            response.raw_headers.extend(headers)
            return response

        documented.__doc__ = endpoint.__doc__
        documented.__name__ = endpoint.__name__
        router.add_api_route(path, documented, methods=[method], **documentation)
        routes[method, router.prefix + path] = endpoint
        return endpoint

    return register
