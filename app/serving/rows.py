"""Conversion of a JSON request's rows to a float32 array, with errors that name the row."""

import math
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest
from app.json_arrays import JsonArray
from app.parsing import fits_float32, name_of

NUMBERS = {int, float}


def to_array(
    rows: object, shapes: Sequence[tuple[int, ...]], *, max_rows: int, booleans: bool = True
) -> NDArray[np.float32]:
    """Convert the rows of a request from JSON to a float32 array, and validate them.

    Args:
        rows: parsed JSON; of a long request a `JsonArray`.
        shapes: accepted shapes of a row, all with the same number of values; the first one is flat.
        max_rows: most rows.
        booleans: whether the JSON may hold `true` or `false`. Then the type of each value is checked, which takes as
            long as parsing the JSON.

    Returns:
        read-only float32 array of shape ``(n_rows, n_features)``.

    Raises:
        BadRequest: the rows are of another shape or not numbers; the message starts with the place, as `inputs[3]`.
    """
    features = math.prod(shapes[0])
    if type(rows) is list:
        _check_count(len(rows), max_rows)
        packed = _pack(rows, shapes, features, 0, booleans=booleans)
    elif type(rows) is JsonArray:
        packed = _pack_pieces(rows, shapes, features, max_rows, booleans=booleans)
    else:
        raise BadRequest(f"inputs: got {name_of(rows)}, expected a list of rows")
    return np.frombuffer(packed[0] if len(packed) == 1 else b"".join(packed), "<f4").reshape(len(packed), features)


def _pack_pieces(
    rows: JsonArray, shapes: Sequence[tuple[int, ...]], features: int, max_rows: int, *, booleans: bool
) -> list[bytes]:
    """Convert the rows of a long request as `_pack` does, piece by piece."""
    counted = rows.rows if rows.lists > 1 else rows.values
    if counted > 2 * max_rows:  # too many to parse them only to say so
        _check_count(counted, max_rows)
    packed: list[bytes] = []
    total = 0
    wrong: BadRequest | None = None
    for piece in rows.row_pieces(features, "inputs"):
        if wrong is None and total + len(piece) <= max_rows:
            try:
                packed += _pack(piece, shapes, features, total, booleans=booleans)
            except BadRequest as error:
                wrong = error
        total += len(piece)
    if rows.has_object:  # the rest of its row and all later rows are not known
        raise BadRequest(f"inputs[{total - 1}]: got an object, expected numbers")
    _check_count(total, max_rows)  # a wrong number of rows is reported before a wrong row, as for short requests
    if wrong is not None:
        raise wrong
    return packed


def _check_count(rows: int, max_rows: int) -> None:
    if not 1 <= rows <= max_rows:
        raise BadRequest(f"inputs: got {rows} rows, expected 1 to {max_rows}")


def _pack(
    rows: list[Any], shapes: Sequence[tuple[int, ...]], features: int, first: int, *, booleans: bool
) -> list[bytes]:
    """Convert each row to the bytes of its values as float32; `first` is the index of the first row in the request."""
    # struct is many times faster than numpy here, and unlike numpy it refuses texts and infinities.
    pack = _packer(features)
    packed = []
    for index, row in enumerate(rows, first):
        flat = row
        if booleans or type(row) is not list or len(row) != features or type(row[0]) not in NUMBERS:
            flat = _flatten(row, _shape_like(row, shapes, index), f"inputs[{index}]")
        try:
            packed.append(pack(*flat))
        except (struct.error, OverflowError):
            # Check value by value to find the wrong one.
            flat = _flatten(row, _shape_like(row, shapes, index), f"inputs[{index}]")
            column = next(column for column, value in enumerate(flat) if not fits_float32(value))
            raise BadRequest(
                f"inputs[{index}]: value {column}: got {flat[column]!r}, expected a finite number that fits in float32"
            ) from None
    return packed


@cache
def _packer(features: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{features}f").pack


def _shape_like(row: object, shapes: Sequence[tuple[int, ...]], index: int) -> tuple[int, ...]:
    """Find the accepted shape that is nested as deep as `row`."""
    depth, inner = 0, row
    while type(inner) is list and depth < 9:
        depth, inner = depth + 1, inner[0] if inner else None
    for shape in shapes:
        if len(shape) == depth:
            return shape
    expected = " or ".join("×".join(map(str, shape)) + " numbers" for shape in shapes)
    got = name_of(row) if depth == 0 else f"lists nested {depth} deep"
    raise BadRequest(f"inputs[{index}]: got {got}, expected {expected}")


def _flatten(part: object, shape: tuple[int, ...], place: str) -> list[float]:
    if type(part) is not list:
        raise BadRequest(f"{place}: got {name_of(part)}, expected a list of {shape[0]}")
    if len(part) != shape[0]:
        raise BadRequest(f"{place}: got {len(part)} values, expected {shape[0]}")
    if len(shape) > 1:
        return [value for index, inner in enumerate(part) for value in _flatten(inner, shape[1:], f"{place}[{index}]")]
    for index, value in enumerate(part):
        if type(value) not in NUMBERS:
            raise BadRequest(f"{place}: value {index}: got {name_of(value)}, expected a number")
    return part
