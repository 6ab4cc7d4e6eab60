"""Rows of a JSON request as a float32 array, with errors that name the row."""

import math
import struct
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest

NUMBERS = {int, float}
_JSON_NAMES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "a list",
}


def to_array(
    rows: object, shapes: Sequence[tuple[int, ...]], *, max_rows: int, booleans: bool = True
) -> NDArray[np.float32]:
    """The rows as float32 (n, features), read-only.

    Args:
        rows: parsed JSON.
        shapes: the shapes that a row may have, all of the same number of values; the first is the flat one.
        max_rows: most rows.
        booleans: whether the JSON may hold any; the look at the type of each value costs as much as parsing it.

    Raises:
        BadRequest: with what was got and what was expected; its message starts with the place, as `inputs[3]`.
    """
    if type(rows) is not list:
        raise BadRequest(f"inputs: got {name_of(rows)}, expected a list of rows")
    if not 1 <= len(rows) <= max_rows:
        raise BadRequest(f"inputs: got {len(rows)} rows, expected 1 to {max_rows}")
    features = math.prod(shapes[0])
    # struct is many times faster than numpy here, and unlike numpy it does not take text for numbers.
    pack = _packer(features)
    packed = []
    for index, row in enumerate(rows):
        if type(row) is list and len(row) == features and not booleans:
            try:
                packed.append(pack(*row))
                continue
            except struct.error:
                pass  # what is wrong is found out below
        rows[index] = _flatten(row, _shape_like(row, shapes, index), f"inputs[{index}]")
        packed.append(pack(*rows[index]))
    array = np.frombuffer(b"".join(packed), np.float32).reshape(len(rows), features)
    finite = np.isfinite(array)
    if not finite.all():  # JSON has no infinity: it did not fit in float32
        row, column = np.argwhere(~finite)[0].tolist()
        raise BadRequest(
            f"inputs[{row}]: value {column}: got {rows[row][column]!r}, expected a finite number that fits in float32"
        )
    return array


@cache
def _packer(features: int) -> Callable[..., bytes]:
    return struct.Struct(f"{features}f").pack


def _shape_like(row: object, shapes: Sequence[tuple[int, ...]], index: int) -> tuple[int, ...]:
    """The accepted shape that is nested as deep as `row`."""
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


def name_of(value: object) -> str:
    """What JSON calls a parsed value."""
    return "null" if value is None else _JSON_NAMES[type(value)]
