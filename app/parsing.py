"""JSON requests: parse them, validate them, and describe in errors what was got and what was expected."""

import re
import struct
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from app.errors import BadRequest

M = TypeVar("M", bound=BaseModel)
_NOT_FINITE = re.compile(rb"-?(NaN|Infinity)", re.IGNORECASE)
_JSON_NAMES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "a list",
}


def parse_object(body: bytes, keys: frozenset[str] | None = None) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        body: the JSON text.
        keys: all keys that the object may have; None for any.

    Raises:
        BadRequest: the text is not JSON, not an object, has an unknown key, or holds a number that is not finite.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        # The position counts characters; it is one in bytes only if the text before it is ASCII, as it usually is.
        token = _NOT_FINITE.match(body, problem.pos)
        if token or "infinity" in problem.msg:
            got = token.group().decode() if token else "a number beyond float64"
            raise BadRequest(f"body: got {got} at character {problem.pos}, expected finite numbers") from None
        got = "nothing" if not body else f"{problem.msg} at character {problem.pos}"
        raise BadRequest(f"body: got {got}, expected a JSON object") from None
    if type(value) is not dict:
        raise BadRequest(f"body: got {name_of(value)}, expected a JSON object")
    if keys is not None and (unknown := value.keys() - keys):
        raise BadRequest(f"body: got the unknown key {min(unknown)[:100]!r}, expected {', '.join(sorted(keys))}")
    return value


def validated(model: type[M], value: object) -> M:
    """Validate a parsed request with its pydantic model.

    Raises:
        BadRequest: it is invalid; the message starts with the place, such as `batch_sizes[1]`.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]["loc"]
        place = str(first[0]) + "".join(f"[{part}]" for part in first[1:]) if first else "body"
        raise BadRequest(f"{place}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Describe the first problem of a failed validation as `got ..., expected ...`."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        return "not a known field"
    if first["type"] == "missing":
        return "missing"
    got = repr(first["input"])
    got = got if len(got) <= 80 else got[:77] + "..."
    message = first["msg"]
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return f"got {got}, expected {message}"


def name_of(value: object) -> str:
    """Name of a parsed value's JSON type with its article, for error messages."""
    return "null" if value is None else _JSON_NAMES[type(value)]


def fits_float32(value: float) -> bool:
    """Whether a number is finite in float32."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return False
    return True
