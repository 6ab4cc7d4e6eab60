"""JSON requests: parse them, validate them, and describe in errors what was got and what was expected."""

import re
import secrets
import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from app.errors import BadRequest, TooLarge
from app.json_arrays import JsonArray, count_characters, index_in_bytes, syntax_error

# Parsing keeps the event loop waiting, for some 2 ms if so many bytes are all brackets.
SHORT_BYTES = 64 * 1024
# So many bytes of numbers take some 2 ms, at most 10 ms if they hold few lists and strings. Longer text is read in a
# thread, and its arrays in pieces.
LONG_BYTES = 512 * 1024
MAX_LISTS = 2000  # and objects, and quotes, of a text that is neither short nor long
MAX_REST_BYTES = 256 * 1024  # of a longer request, besides those arrays
MAX_ARRAYS = 10_000  # in one document

M = TypeVar("M", bound=BaseModel)
Object: TypeAlias = dict[str, Any]
_JSON_NAMES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "a list",
}


def is_long(text: bytes) -> bool:
    """Whether parsing a JSON text takes long."""
    if len(text) <= SHORT_BYTES:
        return False
    return len(text) > LONG_BYTES or any(_occurs(mark, text, MAX_LISTS) for mark in (b"[", b"{", b'"'))


def _occurs(mark: bytes, text: bytes, times: int) -> bool:
    """Whether a byte occurs more than so many times: `bytes.find` is many times faster than `bytes.count`."""
    at = -1
    for _ in range(times + 1):
        at = text.find(mark, at + 1)
        if at < 0:
            return False
    return True


def parse_object(body: bytes, keys: frozenset[str] | None = None, *, max_bytes: int = SHORT_BYTES) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        body: the JSON text.
        keys: all keys that the object may have; None for any.
        max_bytes: most bytes of the text.

    Raises:
        BadRequest: the text is not JSON, not an object, has an unknown key, or holds a number that is not finite.
        TooLarge: it is too long.
    """
    if len(body) > max_bytes:
        raise TooLarge(f"body: got {len(body)} bytes of JSON, expected at most {max_bytes} for this request")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise syntax_error(body, problem, problem.pos) from None
    return _check_object(value, keys)


def parse_with_arrays(
    body: bytes, key: str, holders: Callable[[Object], Iterable[Object]], keys: frozenset[str] | None = None
) -> Object:
    """Parse a JSON object of any length, but for some arrays in it.

    Args:
        body: the JSON text.
        key: of the arrays.
        holders: returns the objects in a parsed body whose arrays under the key are not parsed: each becomes a
            `JsonArray`.
        keys: all keys that the body may have; None for any.

    Raises:
        BadRequest: the text is not JSON, not an object, has an unknown key, or holds a number that is not finite.
        TooLarge: it is too long without those arrays.
    """
    # Each array is replaced by a string that no client can know. The rest is parsed, and where the string is a value
    # under the key, the array was one. Strings elsewhere stand for text that only looked like the key and an array.
    arrays = {f"{secrets.token_hex(16)}{array.start}": array for array in _find_arrays(body, key)}
    value = _parse_rest(body, key, arrays)
    found = _fill_in(value, key, holders, arrays)
    if len(found) < len(arrays):
        value = _parse_rest(body, key, found)
        _fill_in(value, key, holders, found)
    return _check_object(value, keys)


def _find_arrays(body: bytes, key: str) -> Iterable[JsonArray]:
    """Find all arrays in a JSON text that come after a key, and other texts that look like that."""
    quoted = orjson.dumps(key)
    opening = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\[)")
    at, found = 0, 0
    while (at := body.find(quoted, at)) >= 0:
        at += len(quoted)
        separator = opening.match(body, at)
        if separator is not None:
            found += 1
            if found > MAX_ARRAYS:
                raise TooLarge(f"body: got more than {MAX_ARRAYS} lists {key!r}, expected one for each input")
            array = JsonArray(body, separator.end())
            yield array
            at = array.end


def _parse_rest(body: bytes, key: str, arrays: dict[str, JsonArray]) -> Any:
    """Parse a JSON text with strings in the place of arrays."""
    size = len(body) - sum(array.end - array.start - len(name) - 2 for name, array in arrays.items())
    if size > MAX_REST_BYTES:
        expected = f"expected at most {MAX_REST_BYTES}; send fewer rows at once"
        raise TooLarge(f"body: got {size} bytes of JSON besides lists of numbers under {key!r}, {expected}")
    parts: list[bytes] = []
    at = 0
    for name, array in arrays.items():
        parts += (body[at : array.start], b'"%b"' % name.encode())
        at = array.end
    text = b"".join((*parts, body[at:]))
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        before = index_in_bytes(text, problem.pos)
        after = 0
        for name, array in arrays.items():
            if before - after <= array.start:
                break
            array.check()  # an error in it comes first
            after += len(name) + 2 - (array.end - array.start)
        raise syntax_error(text, problem, count_characters(body, before - after)) from None


def _fill_in(
    value: Any, key: str, holders: Callable[[Object], Iterable[Object]], arrays: dict[str, JsonArray]
) -> dict[str, JsonArray]:
    """Put the arrays back in their places; returns those that have a place."""
    found: dict[str, JsonArray] = {}
    for holder in holders(value) if type(value) is dict else ():
        name = holder.get(key)
        if type(name) is str and name in arrays:
            holder[key] = found[name] = arrays[name]
    return found


def _check_object(value: Any, keys: frozenset[str] | None) -> Object:
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
