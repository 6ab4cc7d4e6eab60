"""The binary part of a request: the bytes of its tensors, one after the other."""

from math import prod

import numpy as np

from app.errors import BadRequest
from app.inference.datatypes import BOOL, BYTES, DTYPES, Array
from app.oip import bytes_data


class BinarySection:
    """The binary part of the body, cut off input by input."""

    def __init__(self, body: bytes, start: int) -> None:
        self._data = memoryview(body)[start:]
        self._offset = 0

    def take(self, size: object, name: str) -> memoryview:
        """The next `size` bytes."""
        left = len(self._data) - self._offset
        if type(size) is not int or size < 0:
            raise BadRequest(f"input {name!r}: binary_data_size: got {size!r:.40}, expected a number of bytes")
        if size > left:
            raise BadRequest(f"input {name!r}: got {left} bytes of binary data, expected {size}")
        self._offset += size
        return self._data[self._offset - size : self._offset]

    def check_used(self) -> None:
        """Nothing may be left."""
        if left := len(self._data) - self._offset:
            raise BadRequest(f"body: got {left} bytes after the last input's binary data, expected none")


def read_blob(data: memoryview, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The array of an input's binary data.

    Raises:
        BadRequest: its size is not that of the shape, or it is not of the datatype.
    """
    count = prod(shape)
    if datatype == BYTES:
        return bytes_data.decode(data, count, name).reshape(shape)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise BadRequest(
            f"input {name!r}: got {len(data)} bytes of binary data, expected {count * dtype.itemsize} "
            f"for {datatype} {list(shape)}"
        )
    values = np.frombuffer(data, dtype).reshape(shape)
    if datatype == BOOL and (values.view(np.uint8) > 1).any():
        raise BadRequest(f"input {name!r}: got a byte other than 0 and 1, expected booleans")
    # The blob begins where the JSON ends, which is anywhere.
    return values if values.flags.aligned else values.copy()
