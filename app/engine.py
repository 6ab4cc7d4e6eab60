"""One loaded model: its session, its shapes, the provider really in use."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import ModelError, StartupError
from app.session import FLOAT_TYPES, ORT_ERRORS, DeviceUnavailable, open_session, why

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
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph; a dimension of any size is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Engine:
    """A model that is loaded and can run, from any thread.

    Args:
        path: the ONNX file.
        device: `auto`, `cpu` or `cuda`.
        threads: intra-op threads.

    Raises:
        StartupError: `cuda` cannot be had.
        ModelError: onnxruntime refuses the file, or it does not take one float tensor with rows of a fixed shape.
    """

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        try:
            self._session = open_session(str(path), device=device, threads=threads)
        except DeviceUnavailable as error:
            raise StartupError(f"--device cuda (KRON_DEVICE): {error}; use --device auto or cpu") from None
        except ORT_ERRORS as error:
            raise ModelError(f"onnxruntime refuses it: {why(error)}") from None
        self.threads = threads
        self.provider: str = self._session.get_providers()[0]
        nodes = self._session.get_inputs()
        self.inputs = [_tensor(node) for node in nodes]
        self.outputs = [_tensor(node) for node in self._session.get_outputs()]
        self._output_names = [output.name for output in self.outputs]
        if len(self.inputs) != 1:
            raise ModelError(f"got {len(self.inputs)} inputs, expected 1")
        spec = self.inputs[0]
        if nodes[0].type not in FLOAT_TYPES:
            raise ModelError(f"input {spec.name!r}: got {nodes[0].type}, expected one of {', '.join(FLOAT_TYPES)}")
        self._dtype = np.dtype(FLOAT_TYPES[nodes[0].type])
        if len(spec.shape) < 2 or min(spec.shape[1:]) < 1:
            raise ModelError(f"input {spec.name!r}: got shape {list(spec.shape)}, expected [batch, fixed sizes ...]")
        self.row_shape = spec.shape[1:]
        self.features = math.prod(self.row_shape)
        # A graph exported without a dynamic batch axis takes exactly so many rows.
        self.fixed_batch = spec.shape[0] if spec.shape[0] > 0 else None

    @property
    def batchable(self) -> bool:
        """Whether rows of several requests may be one run: the first axis of every input and output is free."""
        return all(tensor.shape[:1] == (-1,) for tensor in (*self.inputs, *self.outputs))

    def feeds(self, rows: Array) -> dict[str, Array]:
        """Rows (n, *row_shape) or (n, features) as the graph's one input."""
        shaped = rows.astype(self._dtype, copy=False).reshape(len(rows), *self.row_shape)
        return {self.inputs[0].name: shaped}

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run inputs by name; all outputs, or those named.

        Raises:
            ModelError: onnxruntime failed.
        """
        names = self._output_names if outputs is None else outputs
        try:
            values = self._session.run(names, dict(feeds))
        except ORT_ERRORS as error:
            raise ModelError(f"onnxruntime failed: {why(error)}") from None
        return dict(zip(names, values, strict=True))

    def warm_up(self, max_batch: int) -> Mapping[str, Array]:
        """Run every shape class once, so that no request pays for it; the outputs of the larger batch.

        Raises:
            ModelError: it does not run, or gives other than one output row per input row.
        """
        outputs: Mapping[str, Array] = {}
        for batch in [self.fixed_batch] if self.fixed_batch else sorted({1, min(32, max_batch)}):
            outputs = self.run(self.feeds(np.zeros((batch, self.features), np.float32)))
            tensors = {name: value for name, value in outputs.items() if isinstance(value, np.ndarray)}
            wrong = {name: value.shape for name, value in tensors.items() if value.shape[:1] != (batch,)}
            if wrong or not tensors:
                raise ModelError(f"got outputs of shapes {wrong}, expected {batch} rows for {batch} input rows")
        return outputs


def _tensor(node: Any) -> Tensor:  # onnxruntime's NodeArg has no type hints
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return Tensor(node.name, DATATYPES.get(node.type, node.type), shape)
