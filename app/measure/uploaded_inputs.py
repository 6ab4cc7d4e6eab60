"""Uploaded rows and labels, as .npy, .npz or .csv. Untrusted: sizes are checked before anything is allocated."""

import csv
import io
import itertools
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest
from app.models.samples import READ_ERRORS, SamplesError, read_array, read_member

_READ_ERRORS: tuple[type[Exception], ...] = (*READ_ERRORS, SamplesError)
MAX_BYTES = 256 * 2**20  # of the rows in memory
MAX_CSV_BYTES = 4 * 2**20  # parsing text takes many times its length in memory, unlike .npy
MAX_ROWS = 100_000
MAX_LABEL_CHARS = 200
LABEL_COLUMNS = frozenset({"label", "labels", "target", "class"})

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class UploadedInputs:
    """Uploaded rows and their true labels.

    Args:
        name: name of the file.
        rows: float32 (n, features).
        labels: numbers or names (n,), or None.
    """

    name: str
    rows: NDArray[np.float32]
    labels: Array | None

    @classmethod
    def read(cls, inputs: tuple[str, bytes], labels: tuple[str, bytes] | None = None) -> "UploadedInputs":
        """Parse uploaded files of rows and labels.

        Args:
            inputs: name and content of the file of rows, which may hold labels, too.
            labels: name and content of a file of labels, which take precedence.

        Raises:
            BadRequest: saying what was got and what was expected.
        """
        name, content = inputs
        arrays = _read(name, content, "inputs")
        rows = _rows(arrays["inputs"])
        found = arrays.get("labels")
        if labels is not None:
            found = _read(*labels, "labels")["labels"]
        return cls(Path(name).name[:100] or "inputs", rows, None if found is None else _labels(found, len(rows)))

    def save(self, path: Path) -> None:
        """Write an .npz file for the measuring processes."""
        arrays = {"inputs": self.rows} if self.labels is None else {"inputs": self.rows, "labels": self.labels}
        np.savez(path, **arrays)


def _read(name: str, content: bytes, field: str) -> dict[str, Array]:
    """Parse a file; the arrays `inputs` and `labels` that it holds, by name."""
    try:
        if content[:2] == b"PK":
            return _npz(content, field)
        if content[:6] == b"\x93NUMPY":
            return {field: read_array(io.BytesIO(content), field, len(content), MAX_BYTES)}
    except _READ_ERRORS as error:
        raise BadRequest(f"{field}: {name[:100]} cannot be read: {error}") from None
    if name.lower().endswith((".npy", ".npz")):
        raise BadRequest(f"{field}: {name[:100]} is not a {name[-3:].lower()} file")
    return _csv(name, content, field)


def _npz(content: bytes, field: str) -> dict[str, Array]:
    """Parse an .npz file; other arrays than `inputs` and `labels` are ignored."""
    wanted = [field] if field == "labels" else ["inputs", "labels"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [name for name in wanted if f"{name}.npy" in archive.namelist()]
        if field not in members:
            raise SamplesError(f"got the arrays {', '.join(archive.namelist())[:200]}, expected {field}")
        return {name: read_member(archive, f"{name}.npy", MAX_BYTES) for name in members}


def _csv(name: str, content: bytes, field: str) -> dict[str, Array]:
    """Parse a .csv file of numbers, with or without a header; a column named as in `LABEL_COLUMNS` holds the labels."""
    if len(content) > MAX_CSV_BYTES:
        raise BadRequest(f"{field}: {name[:100]}: got {len(content)} bytes of text, expected at most {MAX_CSV_BYTES}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest(f"{field}: {name[:100]}: got bytes that are not text, expected .npy, .npz or .csv") from None
    reader = csv.reader(io.StringIO(text))
    try:
        lines = [line for line in itertools.islice(reader, MAX_ROWS + 2) if line]
    except csv.Error as error:
        raise BadRequest(f"{field}: {name[:100]} line {reader.line_num}: {error}") from None
    if not lines:
        raise BadRequest(f"{field}: {name[:100]} is empty")
    columns = [cell.strip().lower() for cell in lines[0]]
    column = next((index for index, cell in enumerate(columns) if cell in LABEL_COLUMNS), None)
    header = column is not None or (field == "inputs" and not all(map(_is_number, lines[0])))
    body = lines[1:] if header else lines
    ragged = next((index for index, line in enumerate(body) if len(line) != len(columns)), None)
    if ragged is not None:
        got, expected = len(body[ragged]), len(columns)
        raise BadRequest(f"{field}[{ragged}]: {name[:100]}: got {got} columns, expected {expected}")
    if field == "labels":
        index = 0 if column is None else column
        return {"labels": np.array([line[index].strip()[: MAX_LABEL_CHARS + 1] for line in body], dtype=np.str_)}
    found: dict[str, Array] = {}
    if column is not None:
        found["labels"] = np.array([line.pop(column).strip()[: MAX_LABEL_CHARS + 1] for line in body], dtype=np.str_)
    for index, line in enumerate(body):
        wrong = next((cell for cell in line if not _is_number(cell)), None)
        if wrong is not None:
            raise BadRequest(f"inputs[{index}]: {name[:100]}: got {wrong[:50]!r}, expected a number")
    features = len(columns) - (column is not None)
    # One number after the other: numpy would convert all of the text in one step, while no other thread can run.
    numbers = (float(cell) for line in body for cell in line)
    found["inputs"] = np.fromiter(numbers, np.float64, len(body) * features).reshape(len(body), features)
    return found


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rows(array: Array) -> NDArray[np.float32]:
    """Check an array of inputs; float32 (n, features)."""
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise BadRequest(f"inputs: got {array.dtype} {array.shape}, expected rows of numbers (n, ...)")
    if not 1 <= len(array) <= MAX_ROWS:
        raise BadRequest(f"inputs: got {len(array)} rows, expected 1 to {MAX_ROWS}")
    if not math.prod(array.shape[1:]):
        raise BadRequest(f"inputs: got {array.shape}, expected rows that are not empty")
    if 4 * array.size > MAX_BYTES:
        raise BadRequest(f"inputs: got {4 * array.size} bytes in float32, expected at most {MAX_BYTES}")
    with np.errstate(over="ignore"):
        rows = array.reshape(len(array), -1).astype(np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise BadRequest(f"inputs[{int(finite.argmin())}]: got a value that is not finite in float32")
    return rows


def _labels(array: Array, rows: int) -> Array:
    """Check an array of labels of `rows` rows; (n,)."""
    if array.dtype.kind not in "fiubU" or array.shape not in {(rows,), (rows, 1)}:
        raise BadRequest(f"labels: got {array.dtype} {array.shape}, expected {rows} numbers or names")
    array = array.reshape(rows)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest("labels: got a value that is not finite, expected finite numbers")
    if array.dtype.kind == "U" and max(map(len, array.tolist())) > MAX_LABEL_CHARS:
        raise BadRequest(f"labels: got a name of more than {MAX_LABEL_CHARS} characters")
    return array
