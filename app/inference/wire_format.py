"""Protobuf's wire format: the fields of a serialized message, read without the classes that protobuf generates."""

import mmap
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | mmap.mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # kinds of fields
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_MAX_SHIFT = 63


class MalformedMessage(ValueError):  # noqa: N818
    """Bytes are not a serialized message."""


class Field(NamedTuple):
    """Field of a serialized message, by its positions in the buffer.

    Args:
        number: of the field in the message's definition.
        kind: `VARINT`, `BYTES`, `FIXED32` or `FIXED64`.
        begin: of the field, with its tag.
        start: of the value.
        stop: end of the value, and of the field.
        value: of a varint; 0 for other kinds.
    """

    number: int
    kind: int
    begin: int
    start: int
    stop: int
    value: int


def read_fields(data: Buffer, start: int, stop: int) -> Iterator[Field]:
    """Iterate over the fields of the message in `data[start:stop]`.

    Raises:
        MalformedMessage: the bytes are no message, or it ends in the middle of a field.
    """
    position = start
    while position < stop:
        begin = position
        tag, position = _read_varint(data, position, stop)
        number, kind = tag >> 3, tag & 7
        first, value = position, 0
        if kind == VARINT:
            value, position = _read_varint(data, position, stop)
        elif kind == BYTES:
            length, first = _read_varint(data, position, stop)
            position = first + length
        elif kind in _FIXED_SIZES:
            position += _FIXED_SIZES[kind]
        else:
            raise MalformedMessage(f"got a field of kind {kind}")
        if position > stop:
            raise MalformedMessage("got a message that is cut off")
        yield Field(number, kind, begin, first, position, value)


def read_integers(data: Buffer, field: Field) -> Iterator[int]:
    """Iterate over the signed 64-bit integers of one field of a repeated one, packed or not."""
    if field.kind == VARINT:
        yield _signed(field.value)
        return
    position = field.start
    while position < field.stop:
        value, position = _read_varint(data, position, field.stop)
        yield _signed(value)


def write_field(number: int, value: int | bytes) -> bytes:
    """Serialize a field: a non-negative integer as a varint, or bytes."""
    if isinstance(value, int):
        return write_varint(number << 3 | VARINT) + write_varint(value)
    return write_varint(number << 3 | BYTES) + write_varint(len(value)) + value


def write_varint(value: int) -> bytes:
    """Serialize a non-negative integer."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _read_varint(data: Buffer, position: int, stop: int) -> tuple[int, int]:
    """Read a varint; return its value and the position after it."""
    value = shift = 0
    while position < stop and shift <= _MAX_SHIFT:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise MalformedMessage("got an integer that is cut off or too long")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
