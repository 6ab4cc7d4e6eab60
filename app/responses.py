"""JSON in and out by orjson, which also reads numpy arrays."""

import logging
import re
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response
from starlette.types import Scope

from app.errors import BadRequest, KronError, RequestError
from app.rows import name_of

if TYPE_CHECKING:
    from app.service import Service

_MAX_LETTERS = 32  # of a kind that are looked at; with more it is a text of many words
log = logging.getLogger(__name__)

_NOT_FINITE = re.compile(rb"-?(NaN|Infinity)", re.IGNORECASE)


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


def parse_object(body: bytes, keys: frozenset[str]) -> dict[str, Any]:
    """A request's body, a JSON object with no other keys than `keys`.

    Raises:
        BadRequest: it is not; where the problem is a number that is not finite, it says so.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        # The position counts characters, which are bytes up to there unless the text is stranger than any we expect.
        token = _NOT_FINITE.match(body, problem.pos)
        if token or "infinity" in problem.msg:
            got = token.group().decode() if token else "a number beyond float64"
            raise BadRequest(f"body: got {got} at character {problem.pos}, expected finite numbers") from None
        got = "nothing" if not body else f"{problem.msg} at character {problem.pos}"
        raise BadRequest(f"body: got {got}, expected a JSON object") from None
    if type(value) is not dict:
        raise BadRequest(f"body: got {name_of(value)}, expected a JSON object")
    if unknown := value.keys() - keys:
        raise BadRequest(f"body: got the unknown key {min(unknown)[:100]!r}, expected {', '.join(sorted(keys))}")
    return value


def mentions_booleans(body: bytes) -> bool:
    """Whether a JSON text may hold `true` or `false`; False is certain.

    Single letters are found ten times as fast as words, and among numbers there are none.
    """
    return any(_mentions(body, word) for word in (b"true", b"false"))


def _mentions(body: bytes, word: bytes) -> bool:
    at = -1
    for _ in range(_MAX_LETTERS):
        at = body.find(word[:1], at + 1)
        if at < 0:
            return False
        if body.startswith(word, at):
            return True
    return True
