"""Tensors as JSON: flat or nested lists, row-major, decoded to arrays and back."""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from app.errors import BadRequest
from app.inference.datatypes import BINARY_ONLY, BOOL, BYTES, DTYPES, Array
from app.parsing import fits_float32, name_of

# Packing by struct refuses other types and too large numbers, and is ten times as fast as numpy's conversion.
_TYPECODES: Mapping[str, str] = {
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "FP32": "f", "FP64": "d",
}  # fmt: skip
_FLOATS = ("FP32", "FP64")
_NUMBER_TYPES: frozenset[type] = frozenset({int, float})
_INTEGER_TYPES: frozenset[type] = frozenset({int})
_MAX_LETTERS = 64  # occurrences of one letter to look at before assuming that its word occurs


def decode_json_tensor(
    data: object, datatype: str, shape: tuple[int, ...], name: str, *, may_have_booleans: bool
) -> Array:
    """Decode the `data` of an input to an array.

    Args:
        data: parsed JSON.
        datatype: any of the protocol's.
        shape: of the array; the lists may be nested to any depth.
        name: of the input, for messages.
        may_have_booleans: False if the request contains neither `true` nor `false`, so that no element is checked.

    Raises:
        BadRequest: a wrong number of elements, or an element that is not of the datatype.
    """
    if datatype in BINARY_ONLY:
        raise BadRequest(f"{_place(name)}: {datatype} has no JSON form; send it as binary data")
    if type(data) is not list:
        raise BadRequest(f"{_place(name)}: got {name_of(data)}, expected a list")
    flat = _flatten(data, name) if data and type(data[0]) is list else data
    count = 1
    for size in shape:
        count *= size
    if len(flat) != count:
        raise BadRequest(f"{_place(name)}: got {len(flat)} elements, expected {count} for shape {list(shape)}")
    if datatype == BYTES:
        _check_types(flat, {str}, "a string", name)
        values = np.empty(count, object)
        values[:] = flat
        return values.reshape(shape)
    if datatype == BOOL:
        _check_types(flat, {bool}, "a boolean", name)
        return np.array(flat, np.bool_).reshape(shape)
    return _decode_numbers(flat, datatype, name, may_have_booleans=may_have_booleans).reshape(shape)


def encode_json_tensor(values: Array, datatype: str) -> Any:
    """The flat list or array that orjson writes as an output's `data`; it writes `null` for non-finite numbers."""
    return values.ravel().tolist() if datatype == BYTES else values.reshape(-1)


def mentions_booleans(body: bytes, end: int) -> bool:
    """Whether a JSON text may contain `true` or `false` before `end`; if False, it certainly does not.

    Finding single letters is ten times as fast as finding words, and the letters r and l are rare in requests.
    """
    return _mentions(body, b"true", 1, end) or _mentions(body, b"false", 2, end)


def _mentions(body: bytes, word: bytes, letter: int, end: int) -> bool:
    """Whether a word may occur before `end`; found by the letter at an index of it."""
    wanted = word[letter : letter + 1]
    at = -1
    for _ in range(_MAX_LETTERS):
        at = body.find(wanted, at + 1, end)
        if at < 0:
            return False
        if at >= letter and body.startswith(word, at - letter):
            return True
    return True


def _flatten(data: list[Any], name: str) -> list[Any]:
    """Remove the nesting; refuse a list of lists and other values."""
    while data and type(data[0]) is list:
        _check_types(data, {list}, "a list", name)
        data = list(chain.from_iterable(data))
    return data


def _decode_numbers(flat: list[Any], datatype: str, name: str, *, may_have_booleans: bool) -> Array:
    types = _NUMBER_TYPES if datatype in _FLOATS else _INTEGER_TYPES
    expected = "a number" if datatype in _FLOATS else "an integer"
    if may_have_booleans:  # booleans are integers in Python, but not in JSON
        _check_types(flat, types, expected, name)
    try:
        packed = _packer(len(flat), _TYPECODES[datatype])(*flat)
    except struct.error:
        _check_types(flat, types, expected, name)
        raise BadRequest(f"{_place(name)}: got a value out of the range of {datatype}") from None
    except OverflowError:  # a number too large for float32
        index = next(index for index, value in enumerate(flat) if not fits_float32(value))
        got = _describe(flat[index])
        raise BadRequest(
            f"{_place(name)}: element {index}: got {got}, expected a finite number that fits in {datatype}"
        ) from None
    return np.frombuffer(packed, DTYPES[datatype])


@lru_cache(maxsize=256)
def _packer(count: int, typecode: str) -> Callable[..., bytes]:
    return struct.Struct(f"<{count}{typecode}").pack


def _check_types(values: list[Any], types: frozenset[type] | set[type], expected: str, name: str) -> None:
    if not types.issuperset(map(type, values)):
        index = next(index for index, value in enumerate(values) if type(value) not in types)
        raise BadRequest(f"{_place(name)}: element {index}: got {_describe(values[index])}, expected {expected}")


def _place(name: str) -> str:
    return f"input {name!r}: data"


def _describe(value: object) -> str:
    return f"{value!r}"[:40] if type(value) in _NUMBER_TYPES else name_of(value)
