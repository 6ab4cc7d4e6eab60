"""The test inputs beside a model, `samples.npz`. Untrusted: sizes are checked before anything is allocated."""

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLES_BYTES = 64 * 2**20
# What zipfile and numpy raise on what is not theirs: RuntimeError where it is encrypted, zlib's where it is damaged.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
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
            for name in ("inputs.npy", "labels.npy"):
                with archive.open(name) as member:
                    check_header(member, name, MAX_SAMPLES_BYTES)
        with np.load(path, allow_pickle=False) as arrays:
            inputs, labels = arrays["inputs"], arrays["labels"]
    except UNREADABLE as error:
        raise SamplesError(f"cannot be read: {error}") from None
    if inputs.dtype != np.float32 or inputs.shape[1:] != row_shape:
        raise SamplesError(f"inputs: got {inputs.dtype} {inputs.shape}, expected float32 {('n', *row_shape)}")
    if labels.shape != (len(inputs),) or labels.dtype.kind not in "iuf":
        raise SamplesError(f"labels: got {labels.dtype} {labels.shape}, expected {len(inputs)} numbers")
    if not (np.isfinite(inputs).all() and np.isfinite(labels).all()):
        raise SamplesError("got values that are not finite")
    return Samples(inputs, labels)


def check_header(member: IO[bytes], name: str, max_bytes: int) -> None:
    """An array's header is believed by numpy when it allocates, so it is read first.

    Raises:
        SamplesError: it announces more than `max_bytes`, or is of a format that is not known here.
    """
    version = np.lib.format.read_magic(member)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise SamplesError(f"{name}: got format {version}, expected 1.0 or 2.0")
    try:
        shape, _, dtype = read_header(member)
    except tokenize.TokenError as error:  # numpy takes a header that it cannot parse for one of Python 2
        raise SamplesError(f"{name}: its header cannot be read: {error}") from None
    size = math.prod(shape) * dtype.itemsize
    if size > max_bytes:
        raise SamplesError(f"{name}: got {size} bytes, expected at most {max_bytes}")
