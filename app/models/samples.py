"""The test inputs beside a model, `samples.npz`. Untrusted: sizes are checked before anything is allocated."""

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLES_BYTES = 64 * 2**20
# What zipfile and numpy raise on what is not theirs: RuntimeError where it is encrypted, zlib's where it is damaged;
# the last four at headers that nobody's numpy has written.
READ_ERRORS: tuple[type[Exception], ...] = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
    LookupError, TypeError, OverflowError, MemoryError,
)  # fmt: skip


class SamplesError(Exception):
    """The file is not what `samples.npz` has to be."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs float32 (n, ...) as the graph takes them; labels (n,): indices of classes or regression targets."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.inputs)


def read_samples(path: Path, row_shape: tuple[int, ...]) -> Samples:
    """Read `inputs` (n, *row_shape) and `labels` (n,).

    Raises:
        SamplesError: not such a file, or one that would take more than `MAX_SAMPLES_BYTES`.
    """
    try:
        if path.stat().st_size > MAX_SAMPLES_BYTES:
            raise SamplesError(f"got {path.stat().st_size} bytes, expected at most {MAX_SAMPLES_BYTES}")
        with zipfile.ZipFile(path) as archive:
            inputs, labels = (read_member(archive, name, MAX_SAMPLES_BYTES) for name in ("inputs.npy", "labels.npy"))
    except READ_ERRORS as error:
        raise SamplesError(f"cannot be read: {error}") from None
    if inputs.dtype != np.float32 or inputs.shape[1:] != row_shape:
        raise SamplesError(f"inputs: got {inputs.dtype} {inputs.shape}, expected float32 {('n', *row_shape)}")
    if labels.shape != (len(inputs),) or labels.dtype.kind not in "iuf":
        raise SamplesError(f"labels: got {labels.dtype} {labels.shape}, expected {len(inputs)} numbers")
    if not (np.isfinite(inputs).all() and np.isfinite(labels).all()):
        raise SamplesError("got values that are not finite")
    return Samples(np.ascontiguousarray(inputs), labels)  # as answers are written


def read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> NDArray[Any]:
    """One array of an archive, by the whole name of its member: `numpy.load` may take another for it.

    Raises:
        SamplesError, READ_ERRORS: as `read_array`.
    """
    member = archive.getinfo(name)
    with archive.open(member) as file:
        return read_array(file, name, member.file_size, max_bytes)


def read_array(file: IO[bytes], name: str, length: int, max_bytes: int) -> NDArray[Any]:
    """The array of a .npy file of `length` bytes.

    Raises:
        SamplesError: its header announces more than `max_bytes`, or than there is.
        READ_ERRORS: it is none.
    """
    _check_header(file, name, length, max_bytes)
    file.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_header(file: IO[bytes], name: str, length: int, max_bytes: int) -> None:
    """A header is believed by numpy when it allocates, so it is read first."""
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
        # numpy takes a header that it cannot parse for one of Python 2; at one nested deeply Python says nothing more.
        raise SamplesError(f"{name}: its header cannot be read: {str(error) or 'it is nested too deeply'}") from None
    size, there = math.prod(shape) * dtype.itemsize, length - file.tell()
    if size > max_bytes:
        raise SamplesError(f"{name}: got {size} bytes, expected at most {max_bytes}")
    if size > there:
        raise SamplesError(f"{name}: got {there} bytes of values, expected {size} by its header")
