"""bfloat16, which numpy has not: arrays of ml_dtypes, and runs of models that take or give it.

onnxruntime's own way between arrays and tensors knows neither; its `OrtValue` takes the bits, and gives an address.
"""

import ctypes
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, OrtValue

Array = NDArray[Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
TYPE = "tensor(bfloat16)"  # onnxruntime's name
_ONNX_NUMBER = 16  # of TensorProto.DataType


def run(session: InferenceSession, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """As the session's own `run`, for tensors of which some may be bfloat16."""
    values = session.run_with_ort_values(names, {name: _tensor(array) for name, array in feeds.items()})
    return [_array(value) for value in values]


def _tensor(array: Array) -> OrtValue:
    if array.dtype != BFLOAT16:
        return OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_NUMBER)


def _array(value: OrtValue) -> Array:
    if value.data_type() != TYPE:
        array: Array = value.numpy()
        return array
    shape = value.shape()
    bits = ctypes.string_at(value.data_ptr(), prod(shape) * BFLOAT16.itemsize)  # a copy: the value goes with this call
    return np.frombuffer(bits, BFLOAT16).reshape(shape)
