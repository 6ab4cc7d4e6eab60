"""Tensors in JSON: a flat or nested list, row-major, to an array and back."""

import struct
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from app.errors import BadRequest
from app.oip.datatypes import BINARY_ONLY, BOOL, BYTES, DTYPES, Array
from app.rows import name_of

# struct refuses what is not such a number, and fills ten times as fast as numpy.
_TYPECODES: Mapping[str, str] = {
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "FP32": "f", "FP64": "d",
}  # fmt: skip
_FLOATS = ("FP32", "FP64")


def to_array(data: object, datatype: str, shape: tuple[int, ...], name: str, *, may_hold_booleans: bool) -> Array:
    """The array of a request's `data`.

    Args:
        data: parsed JSON.
        datatype: any of the protocol's.
        shape: its product is the number of elements; how deep the lists are nested does not matter.
        name: of the input, for messages.
        may_hold_booleans: False where the whole request has no `true` or `false` in it, so that nothing looks for them.

    Raises:
        BadRequest: a wrong number of elements, or one that is not of the datatype.
    """
    place = f"input {name!r}: data"
    if datatype in BINARY_ONLY:
        raise BadRequest(f"{place}: {datatype} has no JSON form; send it as binary data")
    if type(data) is not list:
        raise BadRequest(f"{place}: got {name_of(data)}, expected a list")
    flat = _flat(data, place)
    count = 1
    for size in shape:
        count *= size
    if len(flat) != count:
        raise BadRequest(f"{place}: got {len(flat)} elements, expected {count} for shape {list(shape)}")
    if datatype == BYTES:
        _check_types(flat, {str}, "a string", place)
        values = np.empty(count, object)
        values[:] = flat
        return values.reshape(shape)
    if datatype == BOOL:
        _check_types(flat, {bool}, "a boolean", place)
        return np.array(flat, np.bool_).reshape(shape)
    return _numbers(flat, datatype, place, may_hold_booleans=may_hold_booleans).reshape(shape)


def to_json(values: Array, datatype: str, name: str) -> Any:
    """What orjson writes as the flat `data` of a response.

    Raises:
        BadRequest: JSON has no form for it: values that are not finite.
    """
    if datatype == BYTES:
        return values.ravel().tolist()
    if datatype in _FLOATS and not np.isfinite(values).all():
        raise BadRequest(f"output {name!r}: some values are not finite, which JSON cannot say; ask for binary_data")
    return np.ascontiguousarray(values).reshape(-1)


def _flat(data: list[Any], place: str) -> list[Any]:
    """Without nesting: lists and other things may not stand side by side."""
    while data and type(data[0]) is list:
        _check_types(data, {list}, "a list", place)
        data = list(chain.from_iterable(data))
    return data


def _numbers(flat: list[Any], datatype: str, place: str, *, may_hold_booleans: bool) -> Array:
    floats = datatype in _FLOATS
    expected = "a number" if floats else "an integer"
    types: set[type] = {int, float} if floats else {int}
    if may_hold_booleans:  # Python's booleans are integers, JSON's are not
        _check_types(flat, types, expected, place)
    try:
        packed = _packer(len(flat), _TYPECODES[datatype]).pack(*flat)
    except struct.error:
        _check_types(flat, types, expected, place)
        raise BadRequest(f"{place}: got a value beyond {datatype}") from None
    values = np.frombuffer(packed, DTYPES[datatype].newbyteorder("="))
    if floats and not np.isfinite(values).all():
        index = int(np.isfinite(values).argmin())
        raise BadRequest(
            f"{place}: element {index}: got {flat[index]!r}, expected a finite number that fits in {datatype}"
        )
    return values


@lru_cache(maxsize=256)
def _packer(count: int, typecode: str) -> struct.Struct:
    return struct.Struct(f"{count}{typecode}")


def _check_types(values: list[Any], types: set[type], expected: str, place: str) -> None:
    if not types.issuperset(map(type, values)):
        index = next(index for index, value in enumerate(values) if type(value) not in types)
        raise BadRequest(f"{place}: element {index}: got {_shown(values[index])}, expected {expected}")


def _shown(value: object) -> str:
    return f"{value!r}"[:40] if type(value) in {int, float} else name_of(value)
