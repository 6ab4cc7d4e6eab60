"""The binary data extension: tensors as bytes after the JSON of a request or response, one after the other.

Numbers and booleans are little-endian and row-major. A BYTES element is its length as uint32, then its bytes.
"""

import struct
from math import prod

import numpy as np

from app.errors import BadRequest
from app.inference.datatypes import BOOL, BYTES, DTYPES, Array

_PIECE_BYTES = 2**20  # of an output, that are copied at once
_LENGTH = struct.Struct("<I")


class BinarySection:
    """The part of a request's body after its JSON, read one input after the other.

    Args:
        body: the whole body.
        start: length of its JSON in bytes.
    """

    def __init__(self, body: bytes, start: int) -> None:
        self._data = memoryview(body)[start:]
        self._offset = 0

    def take(self, size: object, name: str) -> memoryview:
        """Read an input's data: the next `size` bytes.

        Args:
            size: the input's `binary_data_size`, not checked yet.
            name: of the input, for messages.

        Raises:
            BadRequest: the size is not a number of bytes, or larger than the rest of the body.
        """
        left = len(self._data) - self._offset
        if type(size) is not int or size < 0:
            raise BadRequest(f"input {name!r}: binary_data_size: got {size!r:.40}, expected a number of bytes")
        if size > left:
            raise BadRequest(f"input {name!r}: got {left} bytes of binary data, expected {size}")
        self._offset += size
        return self._data[self._offset - size : self._offset]

    def check_all_read(self) -> None:
        """Refuse bytes after the last input's data.

        Raises:
            BadRequest: with their number.
        """
        if left := len(self._data) - self._offset:
            raise BadRequest(f"body: got {left} bytes after the last input's binary data, expected none")


def decode_binary_tensor(data: memoryview, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """Decode an input's binary data to an array.

    Args:
        data: the input's bytes, at any alignment.
        datatype: any of the protocol's.
        shape: of the array.
        name: of the input, for messages.

    Raises:
        BadRequest: the number of bytes does not fit the shape, or a value is not of the datatype.
    """
    count = prod(shape)
    if datatype == BYTES:
        return decode_bytes_elements(data, count, name).reshape(shape)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise BadRequest(
            f"input {name!r}: got {len(data)} bytes of binary data, expected {count * dtype.itemsize} "
            f"for {datatype} {list(shape)}"
        )
    values = np.frombuffer(data, dtype).reshape(shape)
    if datatype == BOOL and (values.view(np.uint8) > 1).any():
        raise BadRequest(f"input {name!r}: got a byte other than 0 and 1, expected booleans")
    # The data starts where the JSON ends, which may be at any address.
    return values if values.flags.aligned else values.copy()


def encode_binary_tensor(values: Array, datatype: str) -> bytes:
    """Encode an output as binary data."""
    if datatype == BYTES:
        return encode_bytes_elements(values)
    dtype = DTYPES[datatype]
    if values.nbytes <= _PIECE_BYTES:
        return (values if values.dtype == dtype else values.astype(dtype)).tobytes()
    flat = values.reshape(-1)  # copied in pieces, so that other threads can run in between
    step = _PIECE_BYTES // flat.itemsize
    return b"".join([flat[start : start + step].astype(dtype).tobytes() for start in range(0, flat.size, step)])


def decode_bytes_elements(data: memoryview, count: int, name: str) -> Array:
    """Decode the elements of a BYTES input to an array of str of shape (count,).

    Raises:
        BadRequest: a length beyond the end of the data, more or fewer than `count` elements, or one that is not UTF-8.
    """
    # Checked before an array of that size is allocated: every element has at least its length.
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
        values[index] = decode_utf8(data[offset : offset + length], index, name)
        offset += length
    if offset < end:
        raise BadRequest(f"input {name!r}: got {end - offset} bytes after the last of {count} elements, expected none")
    return values


def encode_bytes_elements(values: Array) -> bytes:
    """Encode the elements, str or bytes, of an array of any shape as BYTES data, row-major."""
    parts: list[bytes] = []
    for value in values.ravel().tolist():
        element = value.encode() if isinstance(value, str) else value
        parts += (_LENGTH.pack(len(element)), element)
    return b"".join(parts)


def decode_utf8(data: memoryview, index: int, name: str) -> str:
    """Decode one BYTES element; ONNX strings are UTF-8.

    Raises:
        BadRequest: it is not UTF-8; with the `index` of the element and the `name` of the input.
    """
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"input {name!r}: element {index} is not UTF-8, the only encoding of ONNX strings") from None
