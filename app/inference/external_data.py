"""External data: weights that an ONNX file keeps in other files of its folder. Locations are untrusted input.

The weights are read into memory before onnxruntime sees them. By itself it would map the files for as long as it serves
the model: overwriting a file would change answers, and truncating it would end the process by SIGBUS.
"""

import os
import re
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from io import FileIO
from math import prod
from pathlib import Path

import numpy as np
from onnxruntime import OrtValue

from app.inference.onnx_file import ExternalTensor

# Bits of an element by the number of its datatype in ONNX. Strings cannot be kept in other files, and onnxruntime has
# no complex numbers.
ELEMENT_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 17: 8, 18: 8, 19: 8,
    20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
MAX_FILES = 10_000  # of one model
_CONTAINERS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_NAME = re.compile(
    r'(?!\.{1,2}$)[^\x00-\x1f\x7f\\/:*?"<>|]+'
)  # valid everywhere, and no address in onnxruntime's memory
_MAX_NAME = 200


class ExternalDataError(ValueError):
    """A tensor's external data cannot be used; the message names the tensor and the file."""


def find_file(folder: Path, tensor: ExternalTensor) -> Path:
    """Find the file that holds a tensor's data, with symbolic links resolved.

    Args:
        folder: of the ONNX file, without symbolic links.
        tensor: whose `location` is looked up.

    Raises:
        ExternalDataError: the location is no plain relative path, is missing, leaves the folder, or is no regular file.
    """
    place = f"tensor {tensor.name[:100]!r} is kept in {tensor.location[:_MAX_NAME]!r}"
    parts = tensor.location.split("/")
    if len(tensor.location) > _MAX_NAME or not all(map(_NAME.fullmatch, parts)):
        raise ExternalDataError(f"{place}, expected a plain name: put the file into the model's folder, and name it so")
    try:
        path = folder.joinpath(*parts).resolve(strict=True)
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ExternalDataError(f"{place}, which is missing: copy it to the folder of the model") from None
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a loop of links"
        raise ExternalDataError(f"{place}, which cannot be read ({reason}): put the file there") from None
    if not path.is_relative_to(folder):
        raise ExternalDataError(
            f"{place}, a link to a file outside of the folder of the model: put the file itself there"
        )
    if not stat.S_ISREG(mode):
        raise ExternalDataError(f"{place}, which is not a regular file: put the file there")
    return path


def count_bytes(tensor: ExternalTensor) -> int:
    """Number of bytes of a tensor by its shape and datatype.

    Raises:
        ExternalDataError: the datatype cannot be kept in another file, or a size is negative.
    """
    bits = ELEMENT_BITS.get(tensor.data_type)
    if bits is None or min(tensor.dims, default=0) < 0:
        raise ExternalDataError(
            f"tensor {tensor.name[:100]!r} is kept in another file: got datatype {tensor.data_type} and shape "
            f"{list(tensor.dims)[:10]}, expected numbers: export the model as one file"
        )
    return -(-prod(tensor.dims) * bits // 8)


def check_range(tensor: ExternalTensor, file_bytes: int) -> None:
    """Check that a tensor has the length of its shape, and lies within its file.

    Raises:
        ExternalDataError: the message has the expected and the actual sizes.
    """
    size = count_bytes(tensor)
    name, location = tensor.name[:100], tensor.location[:_MAX_NAME]
    if tensor.length not in (None, size):
        raise ExternalDataError(
            f"tensor {name!r} in {location!r}: got {tensor.length} bytes, expected {size}: export it again"
        )
    if not 0 <= tensor.offset <= file_bytes - size:
        raise ExternalDataError(
            f"tensor {name!r} is truncated: {location!r} has {file_bytes} bytes, expected {size} from byte "
            f"{tensor.offset} on: copy the file again"
        )


def read_tensors(folder: Path, tensors: Sequence[ExternalTensor]) -> list[OrtValue]:
    """Read tensors from their files into memory.

    Args:
        folder: of the ONNX file.
        tensors: to read.

    Raises:
        ExternalDataError: a file is not one that `find_file` accepts, or too short.
    """
    folder = folder.resolve()
    values = []
    with ExitStack() as stack:
        files: dict[Path, FileIO] = {}
        for tensor in tensors:
            path = find_file(folder, tensor)
            if path not in files:
                files[path] = stack.enter_context(_open(path, tensor))
            values.append(_read_tensor(files[path], tensor))
    return values


def _open(path: Path, tensor: ExternalTensor) -> FileIO:
    """Open a file that `find_file` has found; one that was replaced since then by a link or a pipe is refused."""
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ExternalDataError(f"{tensor.location[:_MAX_NAME]!r} cannot be read: {error.strerror}") from None
    file = os.fdopen(number, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        file.close()
        raise ExternalDataError(f"{tensor.location[:_MAX_NAME]!r} is not a regular file")
    return file


def _read_tensor(file: FileIO, tensor: ExternalTensor) -> OrtValue:
    size = count_bytes(tensor)
    check_range(tensor, os.fstat(file.fileno()).st_size)
    # Elements of less than a byte are packed into the first bytes of an array that has a byte for each.
    array = np.empty(tensor.dims, _CONTAINERS[max(8, ELEMENT_BITS[tensor.data_type])])
    unread = memoryview(array.reshape(-1).view(np.uint8).data)[:size]
    file.seek(tensor.offset)
    while unread:
        count = file.readinto(unread)
        if not count:
            raise ExternalDataError(f"tensor {tensor.name[:100]!r} is truncated: its file was changed")
        unread = unread[count:]
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array, tensor.data_type)
