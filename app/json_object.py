"""A JSON object, read by orjson, with errors that say what was got."""

import re
from typing import Any

import orjson

from app.errors import BadRequest
from app.rows import name_of

_NOT_FINITE = re.compile(rb"-?(NaN|Infinity)", re.IGNORECASE)


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object.

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
    return value
