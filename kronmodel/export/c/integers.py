"""Whole numbers for the integer arithmetic of C code: weights of a few bits, scales as fractions, and biases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.native.quantize import Range

__all__ = [
    "Bias", "Vector", "Weights", "bytes_text", "pack", "quantize_bias", "quantize_weights", "scale_of", "stored_bias",
    "stored_weights",
]  # fmt: skip

SCALE_BITS = 16  # of a row's scale, without a sign
MAX_VECTOR_SHIFT = 22  # keeps products of a number of 8 bits and a scale, rounded, below 2^31
MAX_SHIFT = 45  # keeps products of a sum and a scale below 2^62
ROUNDINGS = np.linspace(0.6, 1.0, 21)  # of the largest weight of a row, tried as the largest number
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Weights as whole numbers.

    Attributes:
        values: ``(*rows, columns)``.
        steps: real value of the number 1 in each row, ``(*rows,)``.
        bits: of each number.
    """

    values: NDArray[np.int8]
    steps: NDArray[np.float64]
    bits: int

    def arrays(self, key: str, unit: float, about: str) -> tuple[dict[str, tuple[NDArray[Any], str]], str]:
        """Make the arrays of ``struct weights``, and its text.

        Args:
            key: name of the weights.
            unit: real value of the number 1 in what is multiplied, times 2^FRACTION.
            about: comment on their axes.
        """
        scales = self.steps * unit
        shift = MAX_SHIFT
        while shift and float(scales.max(initial=0)) * 2**shift > 2**SCALE_BITS - 1:
            shift -= 1
        numbers = np.rint(scales * 2.0**shift)
        if numbers.max(initial=0) > 2**SCALE_BITS - 1:
            raise ExportError("weights are too large for integer arithmetic: export with floats, without --bits")
        arrays: dict[str, tuple[NDArray[Any], str]] = {
            key: (pack(self.values, self.bits), f"{about}; {self.bits} bits"),
            f"{key}_scale": (numbers.astype(np.uint16), "of each row"),
        }
        return arrays, f"{{{{name}}_{key}, {self.bits}, {{name}}_{key}_scale, {shift}}}"


def pack(values: NDArray[np.int8], bits: int) -> NDArray[np.int8] | NDArray[np.uint8]:
    """Pack numbers of 4 or 2 bits into bytes, the first in the low bits; those of 8 bits stay as they are."""
    if bits == 8:
        return values
    each = 8 // bits
    flat = values.ravel().astype(np.int16) & ((1 << bits) - 1)
    flat = np.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
    packed: NDArray[np.uint8] = (flat << np.arange(0, 8, bits)).sum(1).astype(np.uint8)
    return packed


def quantize_weights(values: Floats, bits: int) -> Weights:
    """Round weights to whole multiples of a step for each row, chosen for the least squared error."""
    largest = 2 ** (bits - 1) - 1
    values = values.astype(np.float64)
    most = np.maximum(np.abs(values).max(-1, initial=0), 1e-30)
    best = np.full(most.shape, np.inf)
    steps = most / largest
    for part in ROUNDINGS if bits < 8 else ROUNDINGS[-1:]:
        step = most * part / largest
        numbers = np.clip(np.rint(values / step[..., None]), -largest, largest)
        error = ((numbers * step[..., None] - values) ** 2).sum(-1)
        better = error < best
        best, steps = np.where(better, error, best), np.where(better, step, steps)
    numbers = np.clip(np.rint(values / steps[..., None]), -largest, largest)
    return Weights(values=numbers.astype(np.int8), steps=steps, bits=bits)


def stored_weights(values: Floats, steps: Floats, bits: Floats) -> Weights | None:
    """Return weights whose integers a file stores, each with the same step along its row; None for others.

    Args:
        values: real values, ``(*rows, columns)``.
        steps: real value of the number 1 for each; 0 for floats.
        bits: of each.
    """
    if steps.shape != values.shape or not steps.size or not steps.min() > 0 or not (steps == steps[..., :1]).all():
        return None
    numbers = np.rint(values.astype(np.float64) / steps)
    return Weights(
        values=numbers.astype(np.int8), steps=steps[..., 0].astype(np.float64), bits=int(bits.max(initial=0))
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Vector:
    """Numbers of a bias, in units of 2^-FRACTION; see ``struct vector``.

    Attributes:
        values: ``(..., n)``, with the branches first.
        bits: of each: 16, 8, 4 or 2.
        scale: of each branch, uint16; or None.
        shift: of the scales to the right; without scales, of the values to the left.
    """

    values: NDArray[np.int8] | NDArray[np.int16]
    bits: int
    scale: NDArray[np.uint16] | None
    shift: int

    def numbers(self) -> NDArray[np.int64]:
        """Return the numbers ``(..., n)``."""
        values = self.values.astype(np.int64)
        if self.scale is None:
            return values << self.shift
        scale = self.scale.astype(np.int64).reshape(-1, *[1] * (values.ndim - 1))
        return values * scale + (1 << self.shift >> 1) >> self.shift


@dataclass(frozen=True, kw_only=True, eq=False)
class Bias:
    """Bias as whole numbers, in units of 2^-FRACTION; see ``struct bias``.

    Attributes:
        full: one for each value; or None.
        line: one for each line; or None.
        column: one for each column; or None.
    """

    full: Vector | None = None
    line: Vector | None = None
    column: Vector | None = None

    def arrays(self, key: str, about: str) -> tuple[dict[str, tuple[NDArray[Any], str]], str]:
        """Make the arrays of the structure, and its text."""
        arrays: dict[str, tuple[NDArray[Any], str]] = {}
        texts = []
        for part, vector in (("full", self.full), ("line", self.line), ("column", self.column)):
            if vector is None:
                texts.append("{.values = NULL}")
                continue
            name, scale, bits = f"{key}_{part}", "", vector.bits
            values = vector.values if bits == 16 else pack(vector.values.astype(np.int8), bits)
            arrays[name] = values, f"{about}; {bits} bits" if part == "full" else f"of each {part}"
            if vector.scale is not None:
                arrays[f"{name}_scale"] = vector.scale, "of each branch"
                scale = f".scale = {{name}}_{name}_scale, "
            texts.append(f"{{.values = {{name}}_{name}, {scale}.bits = {bits}, .shift = {vector.shift}}}")
        return arrays, f"{{{', '.join(texts)}}}"

    def values(self) -> NDArray[np.int64]:
        """Return the bias of each value, with the axes of lines and columns last."""
        total = np.zeros((), np.int64)
        if self.full is not None:
            total = self.full.numbers()
        if self.line is not None:
            total = total + self.line.numbers()[..., None]
        if self.column is not None:
            total = total + self.column.numbers()[..., None, :]
        return np.asarray(total)


def stored_bias(given: Floats | None, parts: Sequence[tuple[Floats, Floats]], fraction: int) -> Bias | None:
    """Return a bias whose integers a file stores: a number a line, one a column, or one a value, with a step a branch.

    Args:
        given: as for :func:`quantize_bias`.
        parts: integers of the file, and the real value of the number 1, both in the shape of the bias; zeros where
            the file has none.
        fraction: FRACTION.

    Returns:
        the bias; None if it is no sum of such numbers.
    """
    if given is None or not parts:
        return None
    lines = given[:, None] if given.ndim == 1 else given
    total = np.zeros(lines.shape)
    found: dict[str, Vector] = {}
    for levels, steps in ((each.reshape(lines.shape).astype(np.float64) for each in part) for part in parts):
        step = steps[..., :1, :1]
        if not step.any():
            continue
        lines_of, columns_of = levels[..., :1], levels[..., :1, :]
        if "line" not in found and (levels == lines_of).all():
            along, numbers = "line", lines_of[..., 0]
        elif "column" not in found and (levels == columns_of).all():
            along, numbers = "column", columns_of[..., 0, :]
        elif "full" not in found:
            along, numbers = "full", levels
        else:
            return None
        vector = _scaled(numbers, step[..., 0, 0], fraction)
        if vector is None or not (steps == step).all():
            return None
        found[along] = vector
        total += levels * steps
    same = np.abs(total - lines).max(initial=0) <= 1e-5 * np.abs(lines).max(initial=0)
    return Bias(**found) if found and same else None


def _scaled(numbers: Floats, steps: Floats, fraction: int) -> Vector | None:
    """Return integers of 8 bits with a scale for each step; None if they don't fit."""
    if (numbers != np.rint(numbers)).any() or (np.abs(numbers + 0.5) > 128).any():
        return None
    real = np.ravel(steps) * 2.0**fraction
    shift = MAX_VECTOR_SHIFT
    while shift and float(real.max()) * 2**shift > 2**SCALE_BITS - 1:
        shift -= 1
    scale = np.rint(real * 2.0**shift)
    if scale.max() > 2**SCALE_BITS - 1:
        return None
    return Vector(values=numbers.astype(np.int8), bits=8, scale=scale.astype(np.uint16), shift=shift)


def quantize_bias(given: Floats | None, fraction: int, bits: int) -> Bias:
    """Round a bias; one whose values are sums of a number a line and a number a column is kept as these.

    Args:
        given: ``(..., lines, columns)``, or ``(lines,)`` for one number a line; None for none.
        fraction: FRACTION.
        bits: of each number, if each value has its own.
    """
    if given is None or not given.any():
        return Bias()
    values: NDArray[np.float64] = given.astype(np.float64)
    if values.ndim == 1:
        return Bias(line=_vectors(fraction, values)[0])
    lines = values.mean(-1)
    columns = values.mean(-2) - values.mean((-2, -1))[..., None]
    rest = values - lines[..., None] - columns[..., None, :]
    if np.abs(rest).max() <= 1e-5 * np.abs(values).max():
        line, column = _vectors(fraction, lines, columns)
        return Bias(line=line if line.values.any() else None, column=column if column.values.any() else None)
    largest = 2 ** (bits - 1) - 1
    shift = max(0, math.ceil(math.log2(float(np.abs(values).max()) * 2**fraction / (largest + 0.5))))
    numbers = np.clip(np.rint(values * 2.0 ** (fraction - shift)), -largest, largest)
    return Bias(full=Vector(values=numbers.astype(np.int8), bits=bits, scale=None, shift=shift))


def _vectors(fraction: int, *parts: NDArray[np.float64]) -> list[Vector]:
    """Round numbers to 16 bits, with the same shift."""
    most = max(*(float(np.abs(each).max()) for each in parts), 1e-30)
    shift = max(0, math.ceil(math.log2(most * 2**fraction / 32767)))
    rounded = (np.rint(each * 2.0 ** (fraction - shift)).astype(np.int16) for each in parts)
    return [Vector(values=each, bits=16, scale=None, shift=shift) for each in rounded]


def scale_of(to: Range, fraction: int) -> tuple[int, int, int]:
    """Return scale, shift and zero that turn real numbers into bytes."""
    real = 2.0**-fraction / max(to.scale, 2.0**-fraction)
    shift = min(MAX_SHIFT, 14 - math.floor(math.log2(real)))
    return round(real * 2.0**shift), shift, to.zero


def bytes_text(to: Range, fraction: int) -> str:
    """Write ``struct bytes`` of a range."""
    scale, shift, zero = scale_of(to, fraction)
    return f"{{{scale}, {shift}, {zero}}}"
