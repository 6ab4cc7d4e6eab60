"""Whole numbers for the integer arithmetic of C code: weights of a few bits, scales as fractions, and biases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.native.quantize import Range

__all__ = ["Bias", "Weights", "bytes_text", "pack", "quantize_bias", "quantize_weights", "scale_of", "stored_weights"]

SCALE_BITS = 16  # of a row's scale, without a sign
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
class Bias:
    """Bias as whole numbers, in units of 2^-FRACTION; see ``struct bias``.

    Attributes:
        full: one for each value; or None.
        bits: of each of these.
        full_shift: what they are shifted by.
        line: one for each line; or None.
        column: one for each column; or None.
        shift: what those of lines and columns are shifted by.
    """

    full: NDArray[np.int8] | None = None
    bits: int = 8
    full_shift: int = 0
    line: NDArray[np.int16] | None = None
    column: NDArray[np.int16] | None = None
    shift: int = 0

    def arrays(self, key: str, about: str) -> tuple[dict[str, tuple[NDArray[Any], str]], str]:
        """Make the arrays of the structure, and its text."""
        arrays: dict[str, tuple[NDArray[Any], str]] = {}
        names = {}
        for part in ("full", "line", "column"):
            values = getattr(self, part)
            names[part] = "NULL" if values is None else f"{{name}}_{key}_{part}"
            if values is not None:
                packed = pack(values, self.bits) if part == "full" else values
                kind = f"{about}; {self.bits} bits" if part == "full" else f"of each {part}"
                arrays[f"{key}_{part}"] = (packed, kind)
        text = f"{{{names['full']}, {self.bits}, {self.full_shift}, {names['line']}, {names['column']}, {self.shift}}}"
        return arrays, text

    def values(self) -> NDArray[np.int64]:
        """Return the bias of each value, with the axes of lines and columns last."""
        total = np.zeros((), np.int64)
        if self.full is not None:
            total = self.full.astype(np.int64) << self.full_shift
        if self.line is not None:
            total = total + (self.line.astype(np.int64) << self.shift)[..., None]
        if self.column is not None:
            total = total + (self.column.astype(np.int64) << self.shift)[..., None, :]
        return np.asarray(total)


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
        line, _, shift = _vectors(values, np.zeros(1), fraction)
        return Bias(line=line, shift=shift)
    lines = values.mean(-1)
    columns = values.mean(-2) - values.mean((-2, -1))[..., None]
    rest = values - lines[..., None] - columns[..., None, :]
    if np.abs(rest).max() <= 1e-5 * np.abs(values).max():
        line, column, shift = _vectors(lines, columns, fraction)
        return Bias(line=line if line.any() else None, column=column if column.any() else None, shift=shift)
    largest = 2 ** (bits - 1) - 1
    shift = max(0, math.ceil(math.log2(float(np.abs(values).max()) * 2**fraction / (largest + 0.5))))
    numbers = np.clip(np.rint(values * 2.0 ** (fraction - shift)), -largest, largest)
    return Bias(full=numbers.astype(np.int8), bits=bits, full_shift=shift)


def _vectors(
    lines: NDArray[np.float64], columns: NDArray[np.float64], fraction: int
) -> tuple[NDArray[np.int16], NDArray[np.int16], int]:
    most = max(float(np.abs(lines).max()), float(np.abs(columns).max()), 1e-30)
    shift = max(0, math.ceil(math.log2(most * 2**fraction / 32767)))
    line, column = (np.rint(each * 2.0 ** (fraction - shift)).astype(np.int16) for each in (lines, columns))
    return line, column, shift


def scale_of(to: Range, fraction: int) -> tuple[int, int, int]:
    """Return scale, shift and zero that turn real numbers into bytes."""
    real = 2.0**-fraction / max(to.scale, 2.0**-fraction)
    shift = min(MAX_SHIFT, 14 - math.floor(math.log2(real)))
    return round(real * 2.0**shift), shift, to.zero


def bytes_text(to: Range, fraction: int) -> str:
    """Write ``struct bytes`` of a range."""
    scale, shift, zero = scale_of(to, fraction)
    return f"{{{scale}, {shift}, {zero}}}"
