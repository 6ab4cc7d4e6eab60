"""Uploaded arrays of inputs and labels, as .npy, .npz or .csv. Untrusted: sizes are checked before arrays are read."""

import csv
import io
import itertools
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest
from app.models.samples import READ_ERRORS, SamplesError, read_array, read_member

_READ_ERRORS: tuple[type[Exception], ...] = (*READ_ERRORS, SamplesError)
MAX_BYTES = 256 * 2**20  # of all arrays in memory
MAX_ARRAYS = 64  # of an .npz file
MAX_CSV_BYTES = 4 * 2**20  # parsing text takes many times its length in memory, unlike .npy
MAX_ROWS = 100_000
MAX_LABEL_CHARS = 200
INPUTS = "inputs"  # the name of rows for a model's single input, whatever its name
LABELS = "labels"
PREFIX = "array"  # of names in the file that `save` writes
LABEL_COLUMNS = frozenset({"label", "labels", "target", "class"})

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class UploadedInputs:
    """Uploaded arrays of inputs and the true labels of their rows.

    Args:
        name: name of the file.
        arrays: by name of the input, or only `inputs`: rows (n, ...) for a model's single input. Floats are float32.
        labels: numbers or names (n,), or None.
    """

    name: str
    arrays: Mapping[str, Array]
    labels: Array | None

    @classmethod
    def read(cls, inputs: tuple[str, bytes], labels: tuple[str, bytes] | None = None) -> "UploadedInputs":
        """Parse uploaded files of inputs and labels.

        Args:
            inputs: name and content of the file of inputs, which may hold labels, too.
            labels: name and content of a file of labels, which take precedence.

        Raises:
            BadRequest: saying what was got and what was expected.
        """
        name, content = inputs
        arrays = _read(name, content, INPUTS)
        found = arrays.pop(LABELS, None)
        if labels is not None:
            found = _read(*labels, LABELS)[LABELS]
        checked = {key: _rows(array) if key == INPUTS else _array(key, array) for key, array in arrays.items()}
        rows = len(checked[INPUTS]) if INPUTS in checked else None
        return cls(Path(name).name[:100] or INPUTS, checked, None if found is None else _labels(found, rows))

    def save(self, path: Path) -> None:
        """Write an .npz file for the process that selects the inputs."""
        arrays = {f"{PREFIX}{index}": array for index, array in enumerate(self.arrays.values())}
        if self.labels is not None:
            arrays[LABELS] = self.labels
        np.savez(path, allow_pickle=False, names=np.array(list(self.arrays)), **arrays)


def load_uploaded(path: Path) -> tuple[dict[str, Array], Array | None]:
    """The arrays by name, and the labels, of a file that `UploadedInputs.save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[f"{PREFIX}{index}"] for index, name in enumerate(file["names"].tolist())}
        return arrays, file.get(LABELS)


def _read(name: str, content: bytes, field: str) -> dict[str, Array]:
    """Parse a file; the arrays that it holds, by name."""
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
    """Parse an .npz file: `labels` alone, or all arrays; beside `inputs`, arrays that cannot be read are left out."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if field not in names if field == LABELS else not set(names) - {LABELS}:
            raise SamplesError(f"got the arrays {', '.join(archive.namelist())[:200] or 'none'}, expected {field}")
        if len(names) > MAX_ARRAYS:
            raise SamplesError(f"got {len(names)} arrays, expected at most {MAX_ARRAYS}")
        found: dict[str, Array] = {}
        for name in [LABELS] if field == LABELS else names:
            try:
                left = MAX_BYTES - sum(array.nbytes for array in found.values())
                found[name] = read_member(archive, f"{name}.npy", left)
            except _READ_ERRORS:
                if INPUTS not in names or name in (INPUTS, LABELS):
                    raise
        return found


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


def _rows(array: Array) -> Array:
    """Check an array of rows (n, ...) for a model's single input."""
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise BadRequest(f"inputs: got {array.dtype} {array.shape}, expected rows of numbers (n, ...)")
    if not 1 <= len(array) <= MAX_ROWS:
        raise BadRequest(f"inputs: got {len(array)} rows, expected 1 to {MAX_ROWS}")
    if not math.prod(array.shape[1:]):
        raise BadRequest(f"inputs: got {array.shape}, expected rows that are not empty")
    if 4 * array.size > MAX_BYTES:
        raise BadRequest(f"inputs: got {4 * array.size} bytes in float32, expected at most {MAX_BYTES}")
    return _finite(INPUTS, array)


def _array(name: str, array: Array) -> Array:
    """Check an array for the input of its name."""
    if array.dtype.kind not in "fiubUS":
        raise BadRequest(f"inputs: {name[:100]}: got {array.dtype}, expected numbers, booleans or text")
    if not array.size:
        raise BadRequest(f"inputs: {name[:100]}: got the shape {array.shape}, expected an array that is not empty")
    if array.dtype.kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise BadRequest(f"inputs: {name[:100]}: got bytes that are not UTF-8, expected text") from None
    return _finite(f"inputs: {name[:100]}", array)


def _finite(name: str, array: Array) -> Array:
    """Convert floats to float32, and check that they are finite; other arrays unchanged."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32, copy=False)
    finite = np.isfinite(converted).reshape(len(converted) if converted.ndim else 1, -1).all(axis=1)
    if not finite.all():
        raise BadRequest(f"{name}[{int(finite.argmin())}]: got a value that is not finite in float32")
    return converted


def _labels(array: Array, rows: int | None) -> Array:
    """Check an array of labels of `rows` rows, or of any number; (n,)."""
    count = len(array) if rows is None and array.ndim else rows
    if array.dtype.kind not in "fiubU" or array.shape not in {(count,), (count, 1)}:
        raise BadRequest(f"labels: got {array.dtype} {array.shape}, expected {rows or 'an array of'} numbers or names")
    array = array.reshape(-1)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest("labels: got a value that is not finite, expected finite numbers")
    if array.dtype.kind == "U" and max(map(len, array.tolist())) > MAX_LABEL_CHARS:
        raise BadRequest(f"labels: got a name of more than {MAX_LABEL_CHARS} characters")
    return array
