"""Tensors as JSON: flat or nested lists, row-major, decoded to arrays and back."""

import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import orjson

from app.errors import BadRequest
from app.inference.datatypes import BINARY_ONLY, BOOL, BYTES, DTYPES, Array
from app.json_arrays import JsonArray
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
_STRING_TYPES: frozenset[type] = frozenset({str})
_BOOLEAN_TYPES: frozenset[type] = frozenset({bool})
_LIST_TYPES: frozenset[type] = frozenset({list})
_PIECE_ELEMENTS = 32 * 1024  # that are read or written at once; a piece of a long request has at most as many
_MAX_LETTERS = 64  # occurrences of one letter to look at before assuming that its word occurs


def decode_json_tensor(
    data: object, datatype: str, shape: tuple[int, ...], name: str, *, may_have_booleans: bool
) -> Array:
    """Decode the `data` of an input to an array.

    Args:
        data: parsed JSON; of a long request a `JsonArray`.
        datatype: any of the protocol's.
        shape: of the array; the lists may be nested to any depth.
        name: of the input, for messages.
        may_have_booleans: False if the request contains neither `true` nor `false`, so that no element is checked.

    Raises:
        BadRequest: a wrong number of elements, or an element that is not of the datatype.
    """
    if datatype in BINARY_ONLY:
        raise BadRequest(f"{_place(name)}: {datatype} has no JSON form; send it as binary data")
    count = 1
    for size in shape:
        count *= size
    if type(data) is JsonArray:
        return _decode_pieces(data, count, datatype, shape, name, may_have_booleans=may_have_booleans)
    if type(data) is not list:
        raise BadRequest(f"{_place(name)}: got {name_of(data)}, expected a list")
    flat = _flatten(data, name) if data and type(data[0]) is list else data
    if len(flat) != count:
        raise BadRequest(f"{_place(name)}: got {len(flat)} elements, expected {count} for shape {list(shape)}")
    return _decode_flat(flat, 0, datatype, name, may_have_booleans=may_have_booleans).reshape(shape)


def _decode_flat(flat: list[Any], first: int, datatype: str, name: str, *, may_have_booleans: bool) -> Array:
    """Decode a flat list of elements, of which the first one has the index `first` in the whole tensor."""
    if datatype == BYTES:
        _check_types(flat, _STRING_TYPES, "a string", name, first)
        values = np.empty(len(flat), object)
        values[:] = flat
        return values
    if datatype == BOOL:
        _check_types(flat, _BOOLEAN_TYPES, "a boolean", name, first)
        return np.array(flat, np.bool_)
    return _decode_numbers(flat, first, datatype, name, may_have_booleans=may_have_booleans)


def _decode_pieces(
    data: JsonArray, count: int, datatype: str, shape: tuple[int, ...], name: str, *, may_have_booleans: bool
) -> Array:
    """Decode the data of a long request, piece by piece."""
    if data.values > 2 * count + _PIECE_ELEMENTS:  # far too many to parse them only to say so
        got = f"{data.values} elements" if data.lists == 1 else f"{data.values} elements and empty lists"
        raise BadRequest(f"{_place(name)}: got {got}, expected {count} for shape {list(shape)}")
    flattener = _Flattener(name)
    parts: list[Array] = []
    total = 0
    wrong: BadRequest | None = None
    for piece, depth in data.pieces():
        flat, first = flattener.flatten(piece, depth)
        if wrong is None:
            try:
                parts.append(_decode_flat(flat, first, datatype, name, may_have_booleans=may_have_booleans))
            except BadRequest as error:
                wrong = error
        total = first + len(flat)
    if total != count and not data.has_object:  # reported before a wrong element, as for short requests
        raise BadRequest(f"{_place(name)}: got {total} elements, expected {count} for shape {list(shape)}")
    if wrong is not None:
        raise wrong
    return np.concatenate(parts).reshape(shape)


class _Flattener:
    """Removes the nesting of lists that are given in pieces, with the checks of `_flatten` over all pieces.

    Args:
        name: of the input, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._are_lists: list[bool] = []  # the elements of each level that has been seen, as its first one decides
        self._counts: list[int] = []  # of the elements of each level that have been seen

    def flatten(self, values: list[Any], depth: int) -> tuple[list[Any], int]:
        """Flatten a piece that starts at a depth, as `JsonArray.pieces` counts it.

        Returns:
            The elements, and the index of the first one in the whole tensor.
        """
        level = 0
        while values:
            if level == len(self._counts):
                self._are_lists.append(type(values[0]) is list)
                self._counts.append(0)
            goes_on = level < depth - 1  # the first element has been counted in the piece before
            first = self._counts[level] - goes_on
            self._counts[level] = first + len(values)
            if not self._are_lists[level]:
                return values, first
            _check_types(values, _LIST_TYPES, "a list", self._name, first)
            values = list(chain.from_iterable(values))
            level += 1
        return values, 0 if not self._are_lists or self._are_lists[-1] else self._counts[-1]


class JsonWriter:
    """Writes a JSON document, its long arrays in pieces, so that other threads can run in between."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[str, list[bytes]] = {}  # of the arrays that are written already, by the string for them

    def add_tensor(self, values: Array, datatype: str) -> Any:
        """The value that stands for a tensor's elements in the document; `null` is written for non-finite numbers."""
        flat = values.reshape(-1)
        if flat.size > _PIECE_ELEMENTS:
            starts = range(0, flat.size, _PIECE_ELEMENTS)
            return self.add_list([_write_flat(flat[start : start + _PIECE_ELEMENTS], datatype) for start in starts])
        return flat.tolist() if datatype == BYTES else flat

    def add_list(self, elements: Sequence[bytes]) -> str:
        """The value that stands for a list in the document.

        Args:
            elements: written as JSON; each text is one element, or several separated by commas.
        """
        parts = [b","] * (2 * len(elements) + 1)
        parts[1::2] = elements
        parts[0], parts[-1] = b"[", b"]"
        name = secrets.token_hex(16)  # no string in the document is equal to it
        self._parts[name] = parts
        return name

    def write(self, document: Any) -> tuple[bytes, bool]:
        """Write the document; returns also whether `null` is in it."""
        texts = [orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)]
        if not self._parts:
            return texts[0], b"null" in texts[0]
        for name, parts in self._parts.items():
            before, _, after = texts.pop().partition(b'"%b"' % name.encode())
            texts += (before, *parts, after)
        return b"".join(texts), any(b"null" in text for text in texts)  # joining lets other threads run


def _write_flat(flat: Array, datatype: str) -> bytes:
    """Write elements as JSON, separated by commas."""
    return orjson.dumps(flat.tolist() if datatype == BYTES else flat, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


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
        _check_types(data, _LIST_TYPES, "a list", name, 0)
        data = list(chain.from_iterable(data))
    return data


def _decode_numbers(flat: list[Any], first: int, datatype: str, name: str, *, may_have_booleans: bool) -> Array:
    types = _NUMBER_TYPES if datatype in _FLOATS else _INTEGER_TYPES
    expected = "a number" if datatype in _FLOATS else "an integer"
    if may_have_booleans:  # booleans are integers in Python, but not in JSON
        _check_types(flat, types, expected, name, first)
    try:
        packed = _packer(len(flat), _TYPECODES[datatype])(*flat)
    except struct.error:
        _check_types(flat, types, expected, name, first)
        raise BadRequest(f"{_place(name)}: got a value out of the range of {datatype}") from None
    except OverflowError:  # a number too large for float32
        index = next(index for index, value in enumerate(flat) if not fits_float32(value))
        got = _describe(flat[index])
        raise BadRequest(
            f"{_place(name)}: element {first + index}: got {got}, expected a finite number that fits in {datatype}"
        ) from None
    return np.frombuffer(packed, DTYPES[datatype])


@lru_cache(maxsize=256)
def _packer(count: int, typecode: str) -> Callable[..., bytes]:
    return struct.Struct(f"<{count}{typecode}").pack


def _check_types(values: list[Any], types: frozenset[type], expected: str, name: str, first: int) -> None:
    """Check the types of elements, of which the first one has the index `first`."""
    if not types.issuperset(map(type, values)):
        index = next(index for index, value in enumerate(values) if type(value) not in types)
        got = _describe(values[index])
        raise BadRequest(f"{_place(name)}: element {first + index}: got {got}, expected {expected}")


def _place(name: str) -> str:
    return f"input {name!r}: data"


def _describe(value: object) -> str:
    return f"{value!r}"[:40] if type(value) in _NUMBER_TYPES else name_of(value)
