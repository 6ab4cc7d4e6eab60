"""The test inputs beside a model, `samples.npz`. They are untrusted: sizes are checked before arrays are allocated."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLES_BYTES = 64 * 2**20
# Raised by zipfile and numpy for invalid files: zlib's for damaged ones, NotImplementedError for unknown compression,
# RuntimeError for encrypted ones, the last four for array headers that numpy does not write.
READ_ERRORS: tuple[type[Exception], ...] = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
    LookupError, TypeError, OverflowError, MemoryError,
)  # fmt: skip


class SamplesError(Exception):
    """A file of arrays is too large or not valid."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Test inputs and their labels.

    Args:
        inputs: float32, (n, *shape of the graph's rows).
        labels: (n,), indices of classes or regression targets; (n, k) of several targets.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, slots=True)
class ColumnSamples:
    """Test rows of a model that takes the columns of a table, and their labels.

    Args:
        columns: (n, 1) values by the graph's input, float64 or texts; NaN and "" are missing values.
        labels: (n,), indices of classes or regression targets; (n, k) of several targets.
    """

    columns: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


def read_column_samples(path: Path, texts: Mapping[str, bool]) -> ColumnSamples:
    """Read the arrays `column_0`, `column_1`, ... (n, 1) of a graph's inputs and `labels` (n,) from a .npz file.

    Args:
        path: the file.
        texts: whether an input takes texts, by its name, in the order of the graph's inputs.

    Raises:
        SamplesError: the file cannot be read, is larger than `MAX_SAMPLES_BYTES`, or has other arrays.
    """
    *columns, labels = read_arrays(path, [*(f"column_{index}" for index in range(len(texts))), "labels"])
    for (name, text), values in zip(texts.items(), columns, strict=True):
        if values.shape != (len(labels), 1) or (values.dtype.kind != "U" if text else values.dtype != np.float64):
            expected = f"{'texts' if text else 'float64'} {(len(labels), 1)}"
            raise SamplesError(f"{name[:100]!r}: got {values.dtype} {values.shape}, expected {expected}")
        if not text and np.isinf(values).any():
            raise SamplesError(f"{name[:100]!r}: got values that are not finite")
    _check_labels(labels, len(labels) if labels.ndim else 0)
    return ColumnSamples(dict(zip(texts, columns, strict=True)), labels)


def read_samples(path: Path, row_shape: tuple[int, ...]) -> Samples:
    """Read `inputs` (n, *row_shape) and `labels` (n,) or (n, k) from a .npz file.

    Raises:
        SamplesError: the file cannot be read, is larger than `MAX_SAMPLES_BYTES`, or has other arrays.
    """
    inputs, labels = read_arrays(path, ["inputs", "labels"])
    if inputs.dtype != np.float32 or inputs.shape[1:] != row_shape:
        raise SamplesError(f"inputs: got {inputs.dtype} {inputs.shape}, expected float32 {('n', *row_shape)}")
    _check_labels(labels, len(inputs))
    if not np.isfinite(inputs).all():
        raise SamplesError("got values that are not finite")
    return Samples(np.ascontiguousarray(inputs), labels)  # orjson writes only contiguous arrays


def _check_labels(labels: NDArray[Any], rows: int) -> None:
    several = labels.dtype.kind == "f" and labels.ndim == 2 and labels.shape[1] > 0
    if labels.shape[:1] != (rows,) or labels.dtype.kind not in "iuf" or not (labels.ndim == 1 or several):
        raise SamplesError(f"labels: got {labels.dtype} {labels.shape}, expected {rows} numbers")
    if not np.isfinite(labels).all():
        raise SamplesError("got values that are not finite")


def read_arrays(path: Path, names: Sequence[str], max_bytes: int = MAX_SAMPLES_BYTES) -> list[NDArray[Any]]:
    """Read arrays of a .npz file, all of them together at most `max_bytes`.

    Raises:
        SamplesError: the file cannot be read or is larger, or one of the arrays is missing.
    """
    found: list[NDArray[Any]] = []
    try:
        if path.stat().st_size > max_bytes:
            raise SamplesError(f"got {path.stat().st_size} bytes, expected at most {max_bytes}")
        with zipfile.ZipFile(path) as archive:
            for name in names:
                left = max_bytes - sum(array.nbytes for array in found)
                found.append(read_member(archive, f"{name}.npy", left))
    except READ_ERRORS as error:
        raise SamplesError(f"cannot be read: {error}") from None
    return found


def read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> NDArray[Any]:
    """Read one array of a .npz file by the full name of its member, which `numpy.load` may confuse with another.

    Args:
        archive: the file.
        name: of the member, with its suffix `.npy`.
        max_bytes: most bytes of the array.

    Raises:
        SamplesError: the array is too large.
        READ_ERRORS: there is no such member, or it cannot be read.
    """
    member = archive.getinfo(name)
    with archive.open(member) as file:
        return read_array(file, name, member.file_size, max_bytes)


def read_array(file: IO[bytes], name: str, length: int, max_bytes: int) -> NDArray[Any]:
    """Read the array of a .npy file.

    Args:
        file: the file, at its start.
        name: of the array, for messages.
        length: of the file in bytes.
        max_bytes: most bytes of the array.

    Raises:
        SamplesError: its header states more than `max_bytes`, or more than the file has.
        READ_ERRORS: it is not a .npy file.
    """
    _check_header(file, name, length, max_bytes)
    file.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_header(file: IO[bytes], name: str, length: int, max_bytes: int) -> None:
    """Compare the header's sizes with the file's, since numpy allocates the array by its header alone."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise SamplesError(f"{name}: got format {version}, expected 1.0 or 2.0")
    try:
        shape, _, dtype = read_header(file)
    except (tokenize.TokenError, MemoryError) as error:
        # numpy parses an invalid header again as one of Python 2; Python's error for deep nesting has no text.
        raise SamplesError(f"{name}: its header cannot be read: {str(error) or 'it is nested too deeply'}") from None
    size, available = math.prod(shape) * dtype.itemsize, length - file.tell()
    if size > max_bytes:
        raise SamplesError(f"{name}: got {size} bytes, expected at most {max_bytes}")
    if size > available:
        raise SamplesError(f"{name}: got {available} bytes of values, expected {size} by its header")
