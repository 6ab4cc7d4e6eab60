"""Structures that the C sources take, filled from numpy arrays; the fields of the headers beside this file."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.native.network import KroneckerArrays, Layer
from kronmodel.native.quantize import QuantizedLayer

__all__ = [
    "aligned_memory", "as_kronecker", "float_fields", "int8_fields", "pack_floats", "pack_int8", "structures",
]  # fmt: skip

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2, "tanh": 3}
ALIGNMENT = 64
Field = int | float | NDArray[Any] | None


def structures(rows: Sequence[Sequence[Field]]) -> tuple[NDArray[np.int64], list[Any]]:
    """Build an array of C structures whose fields have 8 bytes each: integers, doubles, and pointers to arrays.

    Returns:
        the structures, and the objects that must live as long as these.
    """
    words = np.zeros((len(rows), len(rows[0])), np.int64)
    kept = []
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if isinstance(value, float):
                words[i, j : j + 1].view(np.float64)[0] = value
            elif isinstance(value, np.ndarray):
                kept.append(np.ascontiguousarray(value))
                words[i, j] = kept[-1].ctypes.data
            elif value is not None:
                words[i, j] = value
    return words, kept


def aligned_memory(size: int) -> NDArray[np.uint8]:
    """Allocate bytes that begin at a multiple of 64, as the C sources expect."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def as_kronecker(layer: Layer) -> KroneckerArrays:
    """Write a dense layer as a Kronecker layer with the first factor 1, whose branch has the order "right"."""
    if isinstance(layer, KroneckerArrays):
        return layer
    return KroneckerArrays(
        first=np.ones((1, 1, 1), np.float32),
        second=layer.weight[None],
        right=np.array([True]),
        left_bias=None,
        right_bias=layer.bias[None, None],
        bias=np.zeros(layer.out_features, np.float32),
        inner=layer.activation,
    )


def float_fields(layer: KroneckerArrays) -> tuple[Field, ...]:
    """List the fields of a layer's ``kron_layer``."""
    (rank, m1, n1), (_, m2, n2) = layer.first.shape, layer.second.shape
    return (n1, n2, m1, m2, rank, ACTIVATIONS[layer.inner], ACTIVATIONS[layer.activation],
            layer.right.astype(np.uint8), layer.first, layer.second, layer.left_bias, layer.right_bias,
            layer.bias)  # fmt: skip


def int8_fields(layer: QuantizedLayer) -> tuple[Field, ...]:
    """List the fields of a layer's ``kron_int8_layer``."""
    return (*layer.shape, ACTIVATIONS[layer.inner], ACTIVATIONS[layer.activation], layer.first, layer.second,
            layer.first_scale, layer.left_scale, layer.second_scale, layer.right_scale, layer.left_bias,
            layer.right_bias, layer.bias, layer.hidden_inverse, layer.hidden_zero, float(layer.output_inverse),
            float(layer.output_zero))  # fmt: skip


def pack_floats(library: ctypes.CDLL, layers: Sequence[KroneckerArrays]) -> NDArray[np.uint8]:
    """Pack layers, each of which takes the matrix that the one before gives, as a ``kron_network``."""
    rows = [float_fields(layer) for layer in layers]
    words, kept = structures(rows)
    size, pack = library.kron_packed_size, library.kron_pack
    size.argtypes, size.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t
    pack.argtypes, pack.restype = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p], ctypes.c_void_p
    memory = aligned_memory(size(words.ctypes.data, len(layers)))
    pack(words.ctypes.data, len(layers), memory.ctypes.data)
    del kept  # the packed network has copies
    return memory


def pack_int8(library: ctypes.CDLL, layers: Sequence[QuantizedLayer], inverse: float, zero: float) -> NDArray[np.uint8]:
    """Pack quantized layers as a ``kron_int8_network``, whose input is quantized by ``x * inverse + zero``."""
    rows = [int8_fields(layer) for layer in layers]
    words, kept = structures(rows)
    size, pack = library.kron_int8_packed_size, library.kron_int8_pack
    size.argtypes, size.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_size_t
    pack.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_double, ctypes.c_void_p]
    pack.restype = ctypes.c_void_p
    memory = aligned_memory(size(words.ctypes.data, len(layers)))
    pack(words.ctypes.data, len(layers), inverse, zero, memory.ctypes.data)
    del kept
    return memory
