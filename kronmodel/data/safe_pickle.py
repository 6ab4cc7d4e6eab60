"""Reading plain data out of an untrusted pickle: numbers, strings, lists, dictionaries and byte arrays, nothing else.

Unpickling can call anything. Here the stream is first read without running it, and only opcodes that build plain data
are let through; then the few names that a pickled numpy array needs are answered by inert stand-ins, so that neither a
class of anybody's nor numpy's own reconstruction, which trusts what it is told, is ever called.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import DataError

__all__ = ["read_plain"]

OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
    *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}
MAX_MEMO = 1_000_000
BYTE_TYPES = ("u1", b"u1")


def read_plain(content: bytes, what: str) -> Any:
    """The object in a pickle of protocol 2 or later; strings of Python 2 are given as bytes, arrays as uint8.

    Args:
        content: the pickle; whoever calls this bounds its length.
        what: for messages.

    Raises:
        DataError: it holds anything but plain data and arrays of bytes, or is damaged.
    """
    try:
        _check_opcodes(content, what)
        return _strip(_Unpickler(content, what).load())
    except (
        *(pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError),
        *(OverflowError, MemoryError, RecursionError),
    ) as error:
        raise DataError(f"{what} is not a pickle of plain data: {type(error).__name__}: {error}") from error


def _check_opcodes(content: bytes, what: str) -> None:
    for opcode, argument, place in pickletools.genops(content):
        if opcode.name not in OPCODES:
            raise DataError(f"{what} holds the pickle opcode {opcode.name} at byte {place}, expected plain data only")
        if opcode.name == "LONG_BINPUT" and argument is not None and argument > MAX_MEMO:
            raise DataError(f"{what} numbers an object {argument}, expected at most {MAX_MEMO:,}")


class _Inert:
    """Answers for a name in the pickle. It has no state that a pickle could set."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a name can't be given a state")


class _ArrayType(_Inert):
    """Stands for ``numpy.ndarray``."""

    __slots__ = ()


class _Array:
    """Stands for an array that is being built; the state that it is given is checked, not believed."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: NDArray[np.uint8] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array needs five parts of state")
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("expected an array of bytes")
        if not isinstance(shape, tuple) or not all(type(size) is int and 0 <= size <= len(content) for size in shape):
            raise pickle.UnpicklingError(f"got an array of shape {shape!r} for {len(content)} bytes")
        if math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"got an array of shape {shape} with {len(content)} bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if column_major else "C")


class _Dtype:
    """Stands for ``numpy.dtype("uint8")``; its state, the byte order and the like, means nothing for bytes."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Reconstruct(_Inert):
    """Stands for ``numpy.core.multiarray._reconstruct``: an array that waits for its state."""

    __slots__ = ()

    def __call__(self, kind: object, shape: object, code: object) -> _Array:
        if not isinstance(kind, _ArrayType):
            raise pickle.UnpicklingError("expected numpy.ndarray")
        return _Array()


class _MakeDtype(_Inert):
    """Stands for ``numpy.dtype``."""

    __slots__ = ()

    def __call__(self, code: object, align: object = False, copy: object = False) -> _Dtype:
        if code not in BYTE_TYPES:
            raise pickle.UnpicklingError(f"got an array of type {code!r}, expected bytes (u1)")
        return _Dtype()


class _Encode(_Inert):
    """Stands for ``_codecs.encode``, by which Python 3 writes bytes in protocol 2."""

    __slots__ = ()

    def __call__(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("expected text in latin1")
        return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, what: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._what = what
        self._names = {
            ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
            ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
            ("numpy", "ndarray"): _ArrayType(),
            ("numpy", "dtype"): _MakeDtype(),
            ("_codecs", "encode"): _Encode(),
        }

    def find_class(self, module: str, name: str) -> Any:
        """An inert stand-in for the few names that arrays need."""
        if (module, name) not in self._names:
            raise DataError(f"{self._what} asks for {module}.{name}, expected plain data only; nothing of it was run")
        return self._names[module, name]


def _strip(value: Any) -> Any:
    """The dictionary's arrays in place of their stand-ins. Only the top level holds any in the files we read."""
    if isinstance(value, dict):
        return {key: each.values if isinstance(each, _Array) else each for key, each in value.items()}
    return value
