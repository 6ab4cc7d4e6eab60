"""bfloat16, which numpy has not: arrays of ml_dtypes, and runs of models that take or give it.

onnxruntime's own way between arrays and tensors knows neither; its `OrtValue` takes the bits, and gives an address.
"""

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, OrtValue

Array = NDArray[Any]

TYPE = "tensor(bfloat16)"  # onnxruntime's name
_BYTES = 2
_ONNX_NUMBER = 16  # of TensorProto.DataType


@cache
def dtype() -> np.dtype[Any]:
    """Numpy's type of such arrays. Services of models without bfloat16 need not have it in memory."""
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def is_bfloat16(array: Array) -> bool:
    """Whether an array is one: no other here is of numpy's kind V."""
    return array.dtype.kind == "V"


def run(session: InferenceSession, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """As the session's own `run`, for tensors of which some may be bfloat16."""
    values = session.run_with_ort_values(names, {name: _tensor(array) for name, array in feeds.items()})
    return [_array(value) for value in values]


def _tensor(array: Array) -> OrtValue:
    if not is_bfloat16(array):
        return OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_NUMBER)


def _array(value: OrtValue) -> Array:
    if value.data_type() != TYPE:
        array: Array = value.numpy()
        return array
    shape = value.shape()
    bits = ctypes.string_at(value.data_ptr(), prod(shape) * _BYTES)  # a copy: the value goes with this call
    return np.frombuffer(bits, dtype()).reshape(shape)
