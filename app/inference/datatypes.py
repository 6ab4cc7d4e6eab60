"""The datatypes of tensors: one table of their names, sizes and numpy types.

Imports numpy only, so that the protocol's codec does not load onnxruntime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Datatype:
    """Datatype of tensors, with its names in the protocol, ONNX and Triton.

    Args:
        name: in the Open Inference Protocol.
        onnx_type: onnxruntime's type string of such a tensor.
        numpy_type: numpy's type string, little-endian as in binary data; `bfloat16` is known once ml_dtypes is loaded.
        item_bytes: size of an element; 0 for strings, which have any.
        has_json: the protocol has a JSON form of its values.
        config_name: Triton's name in a model's configuration.
    """

    name: str
    onnx_type: str
    numpy_type: str
    item_bytes: int
    has_json: bool
    config_name: str


BOOL = "BOOL"
BYTES = "BYTES"  # arrays of objects: str in requests, str or bytes in responses
BF16 = "BF16"

_TABLE = (
    Datatype("FP32", "tensor(float)", "<f4", 4, True, "TYPE_FP32"),
    Datatype("FP16", "tensor(float16)", "<f2", 2, False, "TYPE_FP16"),
    Datatype("FP64", "tensor(double)", "<f8", 8, True, "TYPE_FP64"),
    Datatype("INT8", "tensor(int8)", "i1", 1, True, "TYPE_INT8"),
    Datatype("INT16", "tensor(int16)", "<i2", 2, True, "TYPE_INT16"),
    Datatype("INT32", "tensor(int32)", "<i4", 4, True, "TYPE_INT32"),
    Datatype("INT64", "tensor(int64)", "<i8", 8, True, "TYPE_INT64"),
    Datatype("UINT8", "tensor(uint8)", "u1", 1, True, "TYPE_UINT8"),
    Datatype("UINT16", "tensor(uint16)", "<u2", 2, True, "TYPE_UINT16"),
    Datatype("UINT32", "tensor(uint32)", "<u4", 4, True, "TYPE_UINT32"),
    Datatype("UINT64", "tensor(uint64)", "<u8", 8, True, "TYPE_UINT64"),
    Datatype(BF16, "tensor(bfloat16)", "bfloat16", 2, False, "TYPE_BF16"),
    Datatype(BOOL, "tensor(bool)", "?", 1, True, "TYPE_BOOL"),
    Datatype(BYTES, "tensor(string)", "O", 0, True, "TYPE_STRING"),
)
DATATYPES: Mapping[str, Datatype] = {datatype.name: datatype for datatype in _TABLE}
NAME_BY_ONNX_TYPE: Mapping[str, str] = {datatype.onnx_type: datatype.name for datatype in _TABLE}
BINARY_ONLY = frozenset(datatype.name for datatype in _TABLE if not datatype.has_json)


class _Dtypes(dict[str, np.dtype[Any]]):
    """Numpy types by datatype; the type of BF16 is added at its first use, since loading ml_dtypes takes memory."""

    def __missing__(self, name: str) -> np.dtype[Any]:
        if name != BF16:
            raise KeyError(name)
        import ml_dtypes

        self[name] = np.dtype(ml_dtypes.bfloat16)
        return self[name]


# Without BYTES, whose elements have no fixed size.
DTYPES = _Dtypes({name: np.dtype(each.numpy_type) for name, each in DATATYPES.items() if name not in {BF16, BYTES}})
# The types of rows at `/api/predict` and in comparisons.
ROW_DTYPES: Mapping[str, np.dtype[Any]] = {name: DTYPES[name] for name in ("FP32", "FP16", "FP64")}


def is_bfloat16(array: Array) -> bool:
    """Whether an array is of ml_dtypes' bfloat16, the only type in use here of numpy's kind V."""
    return array.dtype.kind == "V"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph.

    Args:
        name: in the graph.
        datatype: in the protocol.
        shape: -1 is a dimension of any size.
        any_rank: the number of dimensions is left open, too; the shape is (-1,) then.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    any_rank: bool = False
