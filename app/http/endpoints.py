"""Routes below FastAPI's dependency layer, for requests of which there are many; documented like all others."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Scope

from app.http.security_headers import RawHeaders
from app.inference.batching import InferenceResult, InferenceTask

if TYPE_CHECKING:
    from app.service import Service


class Answer(NamedTuple):
    """What a plain endpoint answers with status 200."""

    body: bytes
    media_type: bytes = b"application/json"
    headers: RawHeaders = []  # noqa: RUF012 - never changed


@dataclass(slots=True)
class PreparedRequest:
    """A request that has been read and only needs models to be run.

    Args:
        asks: for what.
        finish: what came of them to the answer. Like the reading it may raise, and leaves no trace then.
    """

    asks: Sequence[InferenceTask]
    finish: Callable[[Sequence[InferenceResult]], Answer]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers a path.

    Args:
        answer: scope and body to the answer; from `scope["app"].state.service` it has all it needs, and errors are
            raised as everywhere.
        begin: the same for a request that has nothing to wait for: service, path, headers by name and body to what it
            needs, or None if it has to wait. It leaves no trace then, or where it raises, since `answer` is asked next.
    """

    answer: Callable[[Scope, bytes], Awaitable[Answer]]
    begin: "Callable[[Service, str, Mapping[bytes, bytes], bytes], PreparedRequest | None]"


class RawRoutes:
    """Endpoints by method and path, or by a pattern of paths."""

    def __init__(self) -> None:
        self._paths: dict[tuple[str, str], Endpoint] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Endpoint]] = []

    def add(self, method: str, path: str | re.Pattern[str], endpoint: Endpoint) -> None:
        """Have `endpoint` answer."""
        if isinstance(path, str):
            self._paths[method, path] = endpoint
        else:
            self._patterns.append((method, path, endpoint))

    def find(self, method: str, path: str) -> Endpoint | None:
        """What answers, if anything does."""
        found = self._paths.get((method, path))
        if found is None:
            for its_method, pattern, endpoint in self._patterns:
                if method == its_method and pattern.fullmatch(path):
                    return endpoint
        return found


plain = RawRoutes()  # those of the application, which are the same for every service


def documented(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint as FastAPI and Starlette know them."""

    async def answer(request: Request) -> Response:
        body, media_type, headers = await endpoint.answer(request.scope, await request.body())
        response = Response(body, media_type=media_type.decode())
        response.raw_headers.extend(headers)
        return response

    answer.__doc__ = endpoint.answer.__doc__
    answer.__name__ = endpoint.answer.__name__
    return answer


def add_raw_route(router: APIRouter, method: str, path: str, endpoint: Endpoint, **documentation: Any) -> None:
    """Have an endpoint answer within `RequestMiddleware`, or before it; FastAPI knows it for the documentation."""
    router.add_api_route(path, documented(endpoint), methods=[method], **documentation)
    plain.add(method, router.prefix + path, endpoint)
