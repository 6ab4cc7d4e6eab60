"""Inspection of ONNX files without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from kronmodel.errors import KronmodelError
from kronmodel.export.card import read_card

__all__ = ["MAX_FILE_BYTES", "describe", "read_model"]

MAX_FILE_BYTES = 2**31 - 1  # protobuf's limit


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file without the weights that other files hold.

    Raises:
        KronmodelError: the file can't be read, is too large, or is not ONNX.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise KronmodelError(f"{path} has {size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
        return onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise KronmodelError(f"{path} can't be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise KronmodelError(f"{path} is not an ONNX file: {error}") from error


def describe(path: Path) -> dict[str, Any]:
    """Describe an ONNX file: its size with that of its data files, inputs, outputs, weights and model card.

    Raises:
        KronmodelError: the file can't be read, is too large, or is not ONNX, or a file of its weights is missing.
    """
    model = read_model(path)
    graph = model.graph
    if not graph.node:
        raise KronmodelError(f"{path} is not an ONNX file: it holds no graph")
    weights = {initializer.name for initializer in graph.initializer}
    data_files = _find_data_files(path, graph)
    return {
        "path": str(path),
        "file_bytes": path.stat().st_size + sum(data_files.values()),
        "data_files": list(data_files),
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": [_tensor(value) for value in graph.input if value.name not in weights],
        "outputs": [_tensor(value) for value in graph.output],
        "initializer_elements": sum(int(np.prod(initializer.dims)) for initializer in graph.initializer),
        "card": read_card(model),
    }


def _find_data_files(path: Path, graph: onnx.GraphProto) -> dict[str, int]:
    """Find the files that hold weights of the graph: their sizes by name, which is relative to the graph's folder.

    Raises:
        KronmodelError: one is missing.
    """
    locations = {
        entry.value
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    sizes = {}
    for name in sorted(locations):
        try:
            sizes[name] = (path.parent / name).stat().st_size
        except (OSError, ValueError) as error:  # ValueError for a name with a null byte
            raise KronmodelError(f"{path} keeps weights in {name!r}, which can't be read: copy it beside") from error
    return sizes


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "datatype": onnx.TensorProto.DataType.Name(tensor.elem_type),
        "shape": [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim],
    }
