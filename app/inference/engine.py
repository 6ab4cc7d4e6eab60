"""One loaded model: its session, its shapes, the provider really in use."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from app.errors import InputsRefused, ModelError, OutOfMemory
from app.inference import bfloat16
from app.inference.datatypes import DATATYPES, Tensor
from app.inference.io_binding import Bindings
from app.inference.session import (
    FLOAT_TYPES,
    INVALID_ARGUMENT,
    ORT_ERRORS,
    DeviceUnavailable,
    is_out_of_memory,
    open_session,
    where,
    why,
)

_FLOATS = {DATATYPES[name]: np.dtype(dtype) for name, dtype in FLOAT_TYPES.items()}
_VERIFIED_ROWS = 3
_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2

Array = NDArray[Any]

log = logging.getLogger(__name__)


class Engine:
    """A model that is loaded and can run, from any thread.

    `batchable` says whether rows of several requests may be run together: the first axis of every input and output is
    of any size, and rows that were run together came out as those that were run alone.

    Args:
        path: the ONNX file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: intra-op threads.

    Raises:
        ModelError: `cuda` cannot be had, onnxruntime refuses the file, an input is of a type that requests cannot have,
            or every output is.
    """

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        try:
            self._session = open_session(str(path), device=device, threads=threads)
        except DeviceUnavailable as error:
            raise ModelError(f"device {device}: {error}") from None
        except ORT_ERRORS as error:
            failed = OutOfMemory if is_out_of_memory(error) else ModelError
            raise failed(f"onnxruntime refuses it: {why(error)}") from None
        self.threads = threads
        self.provider: str = self._session.get_providers()[0]
        nodes = self._session.get_inputs()
        for node in nodes:
            if node.type not in DATATYPES:
                raise ModelError(f"input {node.name!r}: got {node.type}, expected one of: {', '.join(DATATYPES)}")
        self.inputs = [_tensor(node) for node in nodes]
        # Maps and sequences, which scikit-learn's classifiers give beside their labels, have no place in a response.
        self.outputs = [_tensor(node) for node in self._session.get_outputs() if node.type in DATATYPES]
        if not self.inputs or not self.outputs:
            raise ModelError(f"got {len(self.inputs)} inputs and {len(self.outputs)} tensors as outputs, expected some")
        ours = any(tensor.datatype == "BF16" for tensor in (*self.inputs, *self.outputs))
        if ours and any(tensor.datatype == "BYTES" for tensor in self.inputs):
            raise ModelError("inputs: got strings beside bfloat16; onnxruntime's Python API does not take both")
        self._run = partial(bfloat16.run, self._session) if ours else self._session.run
        self._output_names = [output.name for output in self.outputs]
        # Axes of different names are of different sizes: batches along them cannot be joined.
        axes = {node.shape[0] if node.shape else 1 for node in nodes}
        self.batchable = (len(nodes) == 1 or (len(axes) == 1 and None not in axes)) and all(
            tensor.shape[:1] == (-1,) for tensor in (*self.inputs, *self.outputs)
        )
        # Numbers in, and numbers out of shapes that follow from those of the inputs, if there is a row for a row.
        tensors = [*self.inputs, *self.outputs]
        bindable = not any(tensor.datatype in {"BYTES", "BF16"} or -1 in tensor.shape[1:] for tensor in tensors)
        self._bindings = Bindings(self._session, *where(self._session)) if bindable else None

    @property
    def session(self) -> InferenceSession:
        """What holds the model's memory, and whoever runs it holds."""
        return self._session

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the arrays of all inputs; all outputs, or those named.

        The making of tensors, on the device too, is paid once for all runs of the same sizes.

        Raises:
            InputsRefused: onnxruntime refuses the arrays.
            ModelError: onnxruntime failed.
        """
        names = self._output_names if outputs is None else outputs
        if self._bindings is None or not self.batchable:
            return self._run_anew(feeds, names)
        try:
            values = self._bindings.run(feeds, names)
        except ORT_ERRORS:
            values = None  # the ordinary way says what is wrong
        if values is None:
            values = self._run_anew(feeds, names)
            self._bindings.add(feeds, values)
        return values

    def _run_anew(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        try:
            values = self._run(names, feeds)
        except INVALID_ARGUMENT as error:
            raise InputsRefused(f"inputs: onnxruntime refuses them: {why(error)}") from None
        except ORT_ERRORS as error:
            failed = OutOfMemory if is_out_of_memory(error) else ModelError
            raise failed(f"onnxruntime failed: {why(error)}") from None
        return dict(zip(names, values, strict=True))

    def warm_up(self, max_batch: int) -> dict[str, Array]:
        """Run every shape class once, so that no request pays for it, and settle whether it is `batchable`.

        Where sizes or values had to be made up, a failure says nothing about the model: it is served, but its requests
        are run one by one.

        Returns:
            the outputs of the largest batch; nothing where it did not run on what was made up.

        Raises:
            ModelError: it does not run on numbers from 0 to 1 of the sizes that it asks for.
        """
        certain = all(_float_type(tensor) is not None and -1 not in tensor.shape[1:] for tensor in self.inputs)
        any_batch = any(tensor.shape[:1] == (-1,) for tensor in self.inputs)
        outputs: dict[str, Array] = {}
        try:
            for batch in sorted({1, min(32, max_batch)} if any_batch else {1}):
                outputs = self.run(self._made_up(batch))
            self.batchable = self.batchable and self._joins_rows()
        except OutOfMemory:
            raise
        except ModelError as error:
            if certain:
                raise ModelError(str(error)) from None
            log.warning("warm-up on made-up inputs failed, so no batching: %s", error)
            self.batchable = False
            return {}
        return outputs

    def _joins_rows(self) -> bool:
        """Whether rows give the same together as alone."""
        feeds = self._made_up(_VERIFIED_ROWS)
        together = self.run(feeds)
        for row in range(_VERIFIED_ROWS):
            alone = self.run({name: values[row : row + 1] for name, values in feeds.items()})
            for name, values in alone.items():
                if len(together[name]) != _VERIFIED_ROWS or not _same(together[name][row : row + 1], values):
                    return False
        return True

    def _made_up(self, batch: int) -> dict[str, Array]:
        """Numbers from 0 to 1, zeros for what may be an index, empty strings; other axes of any size get 1."""
        feeds: dict[str, Array] = {}
        for tensor in self.inputs:
            first = tuple(batch if size < 0 else size for size in tensor.shape[:1])
            shape = (*first, *(max(size, 1) if size < 0 else size for size in tensor.shape[1:]))
            if (float_type := _float_type(tensor)) is not None:
                # As good as random here, and numpy.random need not be loaded.
                values = np.arange(1, math.prod(shape) + 1) * _GOLDEN_RATIO % 1
                feeds[tensor.name] = values.reshape(shape).astype(float_type)
            elif tensor.datatype == "BYTES":
                feeds[tensor.name] = np.full(shape, "", object)
            else:
                feeds[tensor.name] = np.zeros(shape, np.bool_ if tensor.datatype == "BOOL" else tensor.datatype.lower())
        return feeds


def _float_type(tensor: Tensor) -> np.dtype[Any] | None:
    return bfloat16.dtype() if tensor.datatype == "BF16" else _FLOATS.get(tensor.datatype)


def _same(a: Array, b: Array) -> bool:
    """Equal but for rounding, which differs between batch sizes."""
    if a.shape != b.shape:
        return False
    if bfloat16.is_bfloat16(a):
        eps = 2**-7
        a, b = a.astype(np.float32), b.astype(np.float32)
    elif a.dtype.kind == "f":
        eps = float(np.finfo(a.dtype).eps)
    else:
        return bool((a == b).all())
    tolerance = 100 * eps * (1 + float(np.abs(b[np.isfinite(b)]).max(initial=0)))
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def _tensor(node: Any) -> Tensor:  # onnxruntime's NodeArg has no type hints
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return Tensor(node.name, DATATYPES[node.type], shape)
