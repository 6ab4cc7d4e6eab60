"""Runs of models with bfloat16 inputs or outputs, as arrays of ml_dtypes.

`InferenceSession.run` supports no bfloat16 arrays. `OrtValue` does, by their bits and the address of its buffer.
"""

import ctypes
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from onnxruntime import InferenceSession, OrtValue, RunOptions

from app.inference.datatypes import BF16, DATATYPES, DTYPES, Array, is_bfloat16

_TYPE = DATATYPES[BF16]
_ONNX_NUMBER = 16  # of bfloat16 in TensorProto.DataType


def run(
    session: InferenceSession, names: Sequence[str], feeds: Mapping[str, Array], options: RunOptions | None = None
) -> list[Array]:
    """Run a session on tensors of which some may be bfloat16, with the arguments and result of its own `run`."""
    values = session.run_with_ort_values(names, {name: _to_value(array) for name, array in feeds.items()}, options)
    return [_to_array(value) for value in values]


def _to_value(array: Array) -> OrtValue:
    if not is_bfloat16(array):
        return OrtValue.ortvalue_from_numpy(array)
    bits = np.asarray(array, order="C").view(np.uint16)  # unlike `ascontiguousarray`, this keeps rank 0
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_NUMBER)


def _to_array(value: OrtValue) -> Array:
    if value.data_type() != _TYPE.onnx_type:
        array: Array = value.numpy()
        return array
    shape = value.shape()
    bits = ctypes.string_at(value.data_ptr(), prod(shape) * _TYPE.item_bytes)  # a copy: the value is freed on return
    return np.frombuffer(bits, DTYPES[BF16]).reshape(shape)
