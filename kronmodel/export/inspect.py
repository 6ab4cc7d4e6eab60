"""Inspection of ONNX files without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from kronmodel.errors import KronmodelError
from kronmodel.export.card import read_card

__all__ = ["describe"]

MAX_FILE_BYTES = 2**31 - 1  # protobuf's limit


def describe(path: Path) -> dict[str, Any]:
    """Describe an ONNX file: its size, inputs, outputs, weights and model card.

    Raises:
        KronmodelError: the file can't be read, is too large, or is not ONNX.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise KronmodelError(f"{path} has {size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise KronmodelError(f"{path} can't be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise KronmodelError(f"{path} is not an ONNX file: {error}") from error
    graph = model.graph
    if not graph.node:
        raise KronmodelError(f"{path} is not an ONNX file: it holds no graph")
    weights = {initializer.name for initializer in graph.initializer}
    return {
        "path": str(path),
        "file_bytes": size,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": [_tensor(value) for value in graph.input if value.name not in weights],
        "outputs": [_tensor(value) for value in graph.output],
        "initializer_elements": sum(int(np.prod(initializer.dims)) for initializer in graph.initializer),
        "card": read_card(model),
    }


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "datatype": onnx.TensorProto.DataType.Name(tensor.elem_type),
        "shape": [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim],
    }
