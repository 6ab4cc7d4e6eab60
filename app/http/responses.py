"""JSON responses and error responses."""

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
    """Starlette response whose JSON is written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write JSON; numpy arrays of numbers as lists."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def error(message: str, status: int, headers: dict[str, str] | None = None) -> Json:
    """Make the response that every error has: `{"error": message}`."""
    return Json({"error": message}, status_code=status, headers=headers)


def internal_error() -> Json:
    """Make the response to a request that failed by an unexpected exception, without any detail of it."""
    return error("internal error; see the service's log", 500)


def failure(service: "Service", scope: Scope, problem: KronError) -> Json:
    """Make the response to a request that was refused or failed; count it, and log it if the fault is the service's."""
    service.metrics.failed(type(problem).__name__)
    if isinstance(problem, RequestError):
        return error(str(problem), problem.status, problem.headers)
    log.error("%s %s: %s", scope["method"], scope["path"][:200], problem)
    return error(str(problem), 500)
