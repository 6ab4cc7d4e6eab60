"""Answers: JSON by orjson, which also reads numpy arrays, and errors."""

import logging
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response
from starlette.types import Scope

from app.errors import KronError, RequestError

if TYPE_CHECKING:
    from app.service import Service

log = logging.getLogger(__name__)


class Json(Response):
    """A JSON response."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """As bytes; arrays of numbers as lists."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def error(message: str, status: int, headers: dict[str, str] | None = None) -> Json:
    """The one shape that errors have."""
    return Json({"error": message}, status_code=status, headers=headers)


def internal_error() -> Json:
    """The answer where something happened that nobody foresaw."""
    return error("internal error; the service's log says more", 500)


def failure(service: "Service", scope: Scope, problem: KronError) -> Json:
    """The answer to a request that cannot be answered; it is counted, and logged where the service is to blame."""
    service.metrics.failed(type(problem).__name__)
    if isinstance(problem, RequestError):
        return error(str(problem), problem.status, problem.headers)
    log.error("%s %s: %s", scope["method"], scope["path"][:200], problem)
    return error(str(problem), 500)
