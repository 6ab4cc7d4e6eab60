"""JSON in and out by orjson, which also reads numpy arrays."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.errors import BadRequest
from app.json_object import parse_object


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
    value = parse_object(await request.body())
    if unknown := value.keys() - keys:
        raise BadRequest(f"body: got the unknown key {min(unknown)[:100]!r}, expected {', '.join(sorted(keys))}")
    return value
