"""JSON in and out by orjson, which also reads numpy arrays."""

import re
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.errors import BadRequest
from app.rows import name_of
from app.settings import explain

M = TypeVar("M", bound=BaseModel)
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


async def read_object(request: Request, keys: frozenset[str]) -> dict[str, Any]:
    """The request's body, a JSON object with no other keys than `keys`.

    Raises:
        BadRequest: it is not; where the problem is a number that is not finite, it says so.
        TooLarge: from the middleware that counts the bytes.
    """
    return parse_object(await request.body(), keys)


def parse_object(body: bytes, keys: frozenset[str]) -> dict[str, Any]:
    """As `read_object`, of bytes that have been read.

    Raises:
        BadRequest: they are not such an object.
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


def validated(model: type[M], value: object) -> M:
    """A request as its model.

    Raises:
        BadRequest: it is not; the message starts with the place, as `batch_sizes[1]`.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]["loc"]
        place = str(first[0]) + "".join(f"[{part}]" for part in first[1:]) if first else "body"
        raise BadRequest(f"{place}: {explain(error)}") from None
