"""BYTES tensors on the wire: for each element its length as uint32, little-endian, then its bytes."""

import struct

import numpy as np

from app.errors import BadRequest
from app.inference.datatypes import Array

_LENGTH = struct.Struct("<I")


def decode(data: memoryview, count: int, name: str) -> Array:
    """The elements as an array of str (count,); ONNX has no other strings than UTF-8.

    Raises:
        BadRequest: a length that leads out of the data, fewer or more than `count` elements, or not UTF-8.
    """
    # Before anything of that length is allocated: every element takes four bytes at least.
    if count * _LENGTH.size > len(data):
        raise BadRequest(f"input {name!r}: got {len(data)} bytes, expected {count} elements with their lengths")
    values = np.empty(count, object)
    offset, end = 0, len(data)
    for index in range(count):
        if end - offset < _LENGTH.size:
            raise BadRequest(f"input {name!r}: the data ends before element {index}, expected {count} elements")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        if length > end - offset:
            raise BadRequest(f"input {name!r}: element {index}: got {end - offset} bytes, expected {length}")
        values[index] = text(data[offset : offset + length], index, name)
        offset += length
    if offset < end:
        raise BadRequest(f"input {name!r}: got {end - offset} bytes after the last of {count} elements, expected none")
    return values


def text(data: memoryview, index: int, name: str) -> str:
    """One element.

    Raises:
        BadRequest: not UTF-8.
    """
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"input {name!r}: element {index} is not UTF-8, and ONNX has no other strings") from None


def encode(values: Array) -> bytes:
    """The elements, str or bytes, of an array of any shape, row-major."""
    parts: list[bytes] = []
    for value in values.ravel().tolist():
        element = value.encode() if isinstance(value, str) else value
        parts += (_LENGTH.pack(len(element)), element)
    return b"".join(parts)
