"""Reader of .npz files with the arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import DataError

__all__ = ["SPLIT", "WHOLE", "check_array", "read_arrays", "read_npz", "read_x"]

WHOLE = ("x", "y")
SPLIT = ("x_train", "y_train", "x_test", "y_test")
KINDS = "biufU"  # booleans, integers, floating-point numbers, text
MAX_BYTES = 4 << 30  # largest size of one array
# Errors that zipfile and numpy raise for a damaged file; numpy raises the last five for a malformed array header.
_UNREADABLE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError,
    tokenize.TokenError, LookupError, TypeError, OverflowError, MemoryError,
)  # fmt: skip


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read features and targets from a .npz file: the arrays named in :data:`SPLIT`, else those in :data:`WHOLE`.

    Other arrays in the file are ignored.

    Raises:
        DataError: the file can't be read or lacks the arrays, or one of them is empty, is too large, holds neither
            numbers nor text, or holds values that are not finite.
    """
    return _read(path, (SPLIT, WHOLE))


def read_x(path: Path) -> NDArray[Any]:
    """Read the features from a .npz file: the array ``x``, or else ``x_test``.

    Raises:
        DataError: as for :func:`read_npz`; or the array is not of numbers.
    """
    (rows,) = _read(path, (("x",), ("x_test",))).values()
    if rows.dtype.kind == "U":
        raise DataError(f"{path}: x is of type {rows.dtype}, expected numbers")
    return rows


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Read those of the named arrays that a .npz file holds.

    Raises:
        DataError: the file can't be read, or one of the arrays is empty, is too large, holds neither numbers nor text,
            or holds values that are not finite.
    """
    with _archive(path) as archive:
        there = _names(archive)
        return {name: _array(archive, name, f"{path}: {name}", scalar=True) for name in names if name in there}


def _read(path: Path, wanted: Sequence[tuple[str, ...]]) -> dict[str, NDArray[Any]]:
    """Read the first of several sets of arrays that a .npz file holds."""
    with _archive(path) as archive:
        there = _names(archive)
        names = next((names for names in wanted if there.issuperset(names)), None)
        if names is None:
            found = ", ".join(sorted(there)[:12]) or "nothing"
            expected = " or ".join(", ".join(names) for names in reversed(wanted))
            raise DataError(f"{path} holds {found}; expected {expected}")
        return {name: _array(archive, name, f"{path}: {name}") for name in names}


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a .npz file for a ``with`` block, in which errors of damaged files become a :class:`DataError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error
    except _UNREADABLE as error:
        raise DataError(f"{path} is not a .npz file of plain arrays: {str(error) or type(error).__name__}") from error


def _names(archive: zipfile.ZipFile) -> set[str]:
    return {name.removesuffix(".npy") for name in archive.namelist()}


def _array(archive: zipfile.ZipFile, name: str, what: str, *, scalar: bool = False) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as member:
        _check_header(member, what)
    with archive.open(f"{name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
    check_array(array.reshape(1) if scalar and array.ndim == 0 else array, what)
    return array


def check_array(array: NDArray[Any], what: str) -> None:
    """Check that an array holds finite numbers or text, and at least one sample.

    Args:
        array: the array to check; its first axis counts the samples.
        what: description of the array, with which error messages begin.

    Raises:
        DataError: the array has another type, is empty, or holds values that are not finite.
    """
    if array.dtype.kind not in KINDS:
        raise DataError(f"{what} is of type {array.dtype}, expected numbers")
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{what} is empty")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = np.argwhere(~np.isfinite(array))[0].tolist()
        raise DataError(f"{what}{index} is {array[tuple(index)]}, expected finite numbers")


def _check_header(member: IO[bytes], what: str) -> None:
    """Check type and size in the header of a .npy file, because numpy allocates whatever size the header declares."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"{what} is of the format {version}, expected 1.0 or 2.0")
    shape, _, dtype = readers[version](member)
    if dtype.kind not in KINDS:
        raise DataError(f"{what} is of type {dtype}, expected numbers")
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise DataError(f"{what} has {size:,} bytes, expected at most {MAX_BYTES:,}")
