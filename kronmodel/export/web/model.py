"""Models for the browser: the ONNX file with test samples, after a check that the browser can compute it."""

from __future__ import annotations

import base64
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.export.card import read_card, served_name

__all__ = ["MAX_FILE_BYTES", "OPERATORS", "WebModel", "data_module"]

MAX_FILE_BYTES = 64_000_000  # of one ONNX file; browsers hold it several times
OPERATORS = frozenset({
    "Add", "Cast", "Conv", "DequantizeLinear", "Div", "Flatten", "Gather", "Gelu", "Gemm", "Identity", "MatMul", "Max",
    "MaxPool", "Mul", "Pad", "QuantizeLinear", "Relu", "Reshape", "Softmax", "Sub", "Tanh", "Transpose",
})  # fmt: skip
"""Operators of ``static/js/onnx/operators.js``."""


@dataclass(frozen=True)
class WebModel:
    """Model for the browser, with some of the test samples beside it.

    Attributes:
        name: of the model.
        version: of the model in its repository; ``"1"`` outside of one.
        content: the ONNX file.
        inputs: samples ``(n, features)``, or None.
        labels: of the samples, class indices or values ``(n,)``.
        card: the model card; None if the file has none.
    """

    name: str
    version: str
    content: bytes
    inputs: NDArray[np.float32] | None
    labels: NDArray[Any] | None
    card: dict[str, Any] | None

    @classmethod
    def read(cls, path: Path, samples: int) -> WebModel:
        """Read an ONNX file, and samples from the file ``samples.npz`` beside it, if there is one.

        Args:
            path: of the ONNX file.
            samples: most samples.

        Raises:
            ExportError: a file can't be read, or the browser can't compute the model.
        """
        try:
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                raise ExportError(f"{path} has {size:,} bytes, expected at most {MAX_FILE_BYTES:,} for the browser")
            content = path.read_bytes()
            model = onnx.load_from_string(content)
        except OSError as error:
            raise ExportError(f"{path} can't be read: {error.strerror or error}") from error
        except DecodeError as error:
            raise ExportError(f"{path} is not an ONNX file: {error}") from error
        shape = _check(path, model)
        card = read_card(model)
        folder = path.absolute().parent
        in_repository = path.name == "model.onnx" and folder.name.isdecimal()
        name = served_name(path, card)
        inputs, labels = _samples(folder / "samples.npz", shape, samples)
        return cls(name, folder.name if in_repository else "1", content, inputs, labels, card)


def _check(path: Path, model: onnx.ModelProto) -> tuple[int, ...]:
    """Check that the browser can compute a model; return the shape of a sample."""
    graph = model.graph
    if not graph.node:
        raise ExportError(f"{path} is not an ONNX file: it holds no graph")
    names = {node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}" for node in graph.node}
    if missing := sorted(names - OPERATORS):
        raise ExportError(
            f"{path} can't be computed in the browser: got {', '.join(missing[:10])}, expected only the operators "
            f"{', '.join(sorted(OPERATORS))}"
        )
    weights = {tensor.name for tensor in graph.initializer}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise ExportError(f"{path} keeps weights in other files, expected all of them in this one")
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ExportError(f"{path} takes {len(inputs)} inputs, expected one")
    tensor = inputs[0].type.tensor_type
    batch, *sample = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim] or [0]
    if tensor.elem_type != onnx.TensorProto.FLOAT or batch not in (-1, 1) or not sample or min(sample) < 1:
        raise ExportError(
            f"{path}: got an input of {onnx.TensorProto.DataType.Name(tensor.elem_type)} {[batch, *sample]}, "
            "expected FLOAT [batch, fixed sizes ...]"
        )
    return tuple(sample)


def _samples(path: Path, shape: tuple[int, ...], most: int) -> tuple[NDArray[np.float32] | None, NDArray[Any] | None]:
    """Read the first samples of a file, flat, with their labels; None if there is no such file."""
    if most == 0 or not path.is_file():
        return None, None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, labels = arrays["inputs"][:most], arrays["labels"][:most]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ExportError(f"{path} has no samples: {error}; remove it, or give --samples 0") from error
    if inputs.shape[1:] != shape or len(labels) != len(inputs) or labels.ndim != 1 or labels.dtype.kind not in "iuf":
        raise ExportError(
            f"{path}: got inputs {inputs.shape} and labels {labels.shape}, expected {('n', *shape)} and ('n',)"
        )
    return inputs.astype(np.float32).reshape(len(inputs), -1), labels


def data_module(models: Sequence[WebModel]) -> str:
    """Write the module that takes the place of ``standalone/data.js``."""
    entries = [
        {
            "name": model.name,
            "version": model.version,
            "file": base64.b64encode(model.content).decode(),
            "samples": None if model.inputs is None or model.labels is None else _encode(model.inputs, model.labels),
        }
        for model in models
    ]
    # Neither a closing script tag nor the start of a comment can stand in a string of the page.
    return f"export const MODELS = {json.dumps(entries).replace('<', chr(92) + 'u003c')};\n"


def _encode(inputs: NDArray[np.float32], labels: NDArray[Any]) -> dict[str, Any]:
    """Encode samples as bytes if they are grey levels divided by 255, else as float32."""
    levels = np.rint(inputs * 255)
    exact = levels.min() >= 0 and levels.max() <= 255 and np.array_equal((levels / 255).astype(np.float32), inputs)
    data = levels.astype(np.uint8) if exact else inputs.astype("<f4")
    return {
        "inputs": base64.b64encode(data.tobytes()).decode(),
        "divisor": 255 if exact else 0,
        "labels": labels.tolist(),
    }
