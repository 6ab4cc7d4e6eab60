"""The protocol's datatypes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference import bfloat16

Array = NDArray[Any]

BYTES = "BYTES"  # elements of any length; numpy arrays of objects, here str
BINARY_ONLY = frozenset({"FP16", "BF16"})  # have no JSON form
BOOL = "BOOL"


class _Dtypes(dict[str, np.dtype[Any]]):
    """By name; bfloat16's comes when it is asked for, for numpy has none, and what brings it takes memory."""

    def __missing__(self, name: str) -> np.dtype[Any]:
        if name != "BF16":
            raise KeyError(name)
        self[name] = bfloat16.dtype()
        return self[name]


# As they are on the wire: little-endian.
DTYPES = _Dtypes(
    {
        BOOL: np.dtype("?"),
        "UINT8": np.dtype("u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)

# Triton's names of them in a model's configuration.
CONFIG_NAMES: Mapping[str, str] = {name: f"TYPE_{name}" for name in (*DTYPES, "BF16")} | {BYTES: "TYPE_STRING"}


DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    bfloat16.TYPE: "BF16",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph; a dimension of any size is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]
