"""A loaded model: its onnxruntime session, the shapes of its tensors, and its execution provider."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from onnxruntime import InferenceSession, OrtValue

from app.errors import InputsRefused, ModelError, OutOfMemory
from app.inference import bfloat16
from app.inference.datatypes import BF16, BYTES, DTYPES, NAME_BY_ONNX_TYPE, ROW_DTYPES, Array, Tensor, is_bfloat16
from app.inference.session import (
    INVALID_ARGUMENT,
    ORT_ERRORS,
    DeviceUnavailable,
    Session,
    error_summary,
    is_out_of_memory,
    load_refusal,
    open_session,
    tensor_device,
)

MAX_SHAPES = 16  # combinations of input shapes and outputs that have buffers, per model
MAX_BYTES = {"cpu": 128 * 1024, "cuda": 4 * 2**20}  # of one set of buffers; above, copying costs more than it saves
_FLOATS = frozenset({*ROW_DTYPES, BF16})
_CHECKED_ROWS = 3  # run together and alone, to compare
_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2

log = logging.getLogger(__name__)


class Engine:
    """A loaded model that can run in any thread.

    `batchable` says whether rows of several requests may run as one batch: the first axis of every input and output
    has any size, and the warm-up found the same outputs for rows run together and rows run alone. `unserved` has the
    type of each output that is no tensor, by name: a sequence or a map.

    Args:
        path: the ONNX file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: intra-op threads.

    Raises:
        ModelError: the device is not available, onnxruntime cannot load the file, an input's type has no datatype in
            the protocol, or no output's type has one.
    """

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        try:
            self._session = open_session(str(path), device=device, threads=threads)
        except DeviceUnavailable as error:
            raise ModelError(f"device {device}: {error}: use auto or cpu (KRON_DEVICE, KRON_MODEL_DEVICES)") from None
        except ORT_ERRORS as error:
            error_class = OutOfMemory if is_out_of_memory(error) else ModelError
            raise error_class(load_refusal(error)) from None
        self.threads = threads
        self.provider: str = self._session.get_providers()[0]
        nodes = self._session.get_inputs()
        for node in nodes:
            if node.type not in NAME_BY_ONNX_TYPE:
                raise ModelError(
                    f"input {node.name!r}: got {node.type}, expected one of: {', '.join(NAME_BY_ONNX_TYPE)}: "
                    "export the model with such an input"
                )
        self.inputs = [_tensor(node) for node in nodes]
        results = self._session.get_outputs()
        self.outputs = [_tensor(node) for node in results if node.type in NAME_BY_ONNX_TYPE]
        self.unserved = {node.name: node.type for node in results if node.type not in NAME_BY_ONNX_TYPE}
        if not self.inputs or not self.outputs:
            unserved = "".join(f"; output {name!r} is {kind}" for name, kind in self.unserved.items())
            raise ModelError(
                f"got {len(self.inputs)} inputs and {len(self.outputs)} output tensors, expected at least one of each"
                f"{unserved}"
            )
        has_bfloat16 = any(tensor.datatype == BF16 for tensor in (*self.inputs, *self.outputs))
        if has_bfloat16 and any(tensor.datatype == BYTES for tensor in self.inputs):
            raise ModelError(
                "inputs: got strings beside bfloat16, and onnxruntime's Python API does not take both: export the "
                "model with float32"
            )
        self._run = partial(bfloat16.run, self._session) if has_bfloat16 else self._session.run
        self._output_names = [output.name for output in self.outputs]
        # First axes of different names have different sizes, so they are not one batch axis.
        axes = {node.shape[0] if node.shape else 1 for node in nodes}
        self.batchable = (len(nodes) == 1 or (len(axes) == 1 and None not in axes)) and all(
            tensor.shape[:1] == (-1,) for tensor in (*self.inputs, *self.outputs)
        )
        # Buffers can be bound where all tensors are numbers and the input shapes determine the output shapes.
        tensors = [*self.inputs, *self.outputs]
        bindable = not any(tensor.datatype in {BYTES, BF16} or -1 in tensor.shape[1:] for tensor in tensors)
        self._bindings = Bindings(self._session, *tensor_device(self._session)) if bindable else None

    @property
    def session(self) -> Session:
        """The onnxruntime session, which owns the model's memory; a running request keeps a reference to it."""
        return self._session

    @property
    def class_labels(self) -> Mapping[str, Sequence[str]]:
        """The names of the classes by the name of each output of probabilities that the graph keeps them for."""
        return self._session.class_labels

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model, in bound buffers if the session has some for these shapes.

        Args:
            feeds: arrays of all inputs by name.
            outputs: names of the requested outputs; None for all.

        Raises:
            InputsRefused: onnxruntime refuses the arrays.
            ModelError: onnxruntime failed.
        """
        names = self._output_names if outputs is None else outputs
        if self._bindings is None or not self.batchable:
            return self._run_unbound(feeds, names)
        try:
            values = self._bindings.run(feeds, names)
        except ORT_ERRORS:
            values = None  # the unbound run raises the error with its reason
        if values is None:
            values = self._run_unbound(feeds, names)
            self._bindings.add(feeds, values)
        return values

    def _run_unbound(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        try:
            values = self._run(names, feeds)
        except INVALID_ARGUMENT as error:
            raise InputsRefused(f"inputs: onnxruntime refuses them: {error_summary(error)}") from None
        except ORT_ERRORS as error:
            error_class = OutOfMemory if is_out_of_memory(error) else ModelError
            raise error_class(f"onnxruntime failed: {error_summary(error)}") from None
        return dict(zip(names, values, strict=True))

    def warm_up(self, max_batch: int) -> dict[str, Array]:
        """Run generated inputs of a small and a large batch, so that no request pays for a first run; set `batchable`.

        Where sizes or values had to be guessed, a failure says nothing about the model: it is served, but its requests
        run one by one.

        Args:
            max_batch: most rows of a batch.

        Returns:
            The outputs of the largest batch; empty if guessed inputs failed.

        Raises:
            ModelError: the model fails on floats from 0 to 1 of the shapes that it declares.
        """
        certain = all(tensor.datatype in _FLOATS and -1 not in tensor.shape[1:] for tensor in self.inputs)
        any_batch = any(tensor.shape[:1] == (-1,) for tensor in self.inputs)
        outputs: dict[str, Array] = {}
        try:
            for batch in sorted({1, min(32, max_batch)} if any_batch else {1}):
                outputs = self.run(self._generate_inputs(batch))
            self.batchable = self.batchable and self._rows_are_independent()
        except OutOfMemory:
            raise
        except ModelError as error:
            if certain:
                raise ModelError(str(error)) from None
            log.warning("warm-up with guessed inputs failed, so requests are not batched: %s", error)
            self.batchable = False
            return {}
        return outputs

    def _rows_are_independent(self) -> bool:
        """Whether rows have the same outputs in a batch as alone."""
        feeds = self._generate_inputs(_CHECKED_ROWS)
        batched = self.run(feeds)
        for row in range(_CHECKED_ROWS):
            single = self.run({name: values[row : row + 1] for name, values in feeds.items()})
            for name, values in single.items():
                if len(batched[name]) != _CHECKED_ROWS or not _equal_but_rounding(batched[name][row : row + 1], values):
                    return False
        return True

    def _generate_inputs(self, batch: int) -> dict[str, Array]:
        """Generate floats from 0 to 1, integers 0 as they may be indices, or empty strings; other free axes are 1."""
        feeds: dict[str, Array] = {}
        for tensor in self.inputs:
            first = tuple(batch if size < 0 else size for size in tensor.shape[:1])
            shape = (*first, *(max(size, 1) if size < 0 else size for size in tensor.shape[1:]))
            if tensor.datatype in _FLOATS:
                # As good as random numbers here, without loading numpy.random.
                values = np.arange(1, math.prod(shape) + 1) * _GOLDEN_RATIO % 1
                feeds[tensor.name] = values.reshape(shape).astype(DTYPES[tensor.datatype])
            else:
                feeds[tensor.name] = zeros(tensor, shape)
        return feeds


def zeros(tensor: Tensor, shape: Sequence[int]) -> Array:
    """An array of zeros, or of empty strings, for an input."""
    return np.full(shape, "", object) if tensor.datatype == BYTES else np.zeros(shape, DTYPES[tensor.datatype])


def _equal_but_rounding(a: Array, b: Array) -> bool:
    """Whether arrays are equal but for rounding, which differs between batch sizes."""
    if a.shape != b.shape:
        return False
    if is_bfloat16(a):
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
    return Tensor(node.name, NAME_BY_ONNX_TYPE[node.type], shape)


class _Buffers(Protocol):
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Copy the inputs into the buffers, run, and copy the outputs out."""


class Bindings:
    """Bound buffers of one session, by requested outputs and input shapes.

    Threads may run at the same time: each run takes a set of buffers out and puts it back afterwards.

    Args:
        session: the session to run.
        device: `cpu` or `cuda`, the device that holds the session's tensors.
        device_id: index of the GPU.
    """

    def __init__(self, session: InferenceSession, device: str = "cpu", device_id: int = 0) -> None:
        self._session = session
        self._device = device, device_id
        self._max_bytes = MAX_BYTES[device]
        self._free: dict[tuple[object, ...], list[_Buffers]] = {}

    def __len__(self) -> int:
        return len(self._free)

    def run(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array] | None:
        """Run in bound buffers; None where there are none for these shapes and outputs, or all are in use."""
        free = self._free.get(_binding_key(feeds, names))
        if free is None:
            return None
        try:
            buffers = free.pop()  # atomic: another thread may take the last set first
        except IndexError:
            return None
        values = buffers.run(feeds)
        free.append(buffers)  # not after an error, which may leave them in any state
        return values

    def add(self, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> None:
        """Allocate buffers for the shapes of a finished run; the input shapes must determine the output shapes.

        Args:
            feeds: the run's inputs by name.
            values: its outputs by name.
        """
        if sum(array.nbytes for array in (*feeds.values(), *values.values())) > self._max_bytes:
            return
        try:
            buffers = self._make(feeds, values)
        except ORT_ERRORS:  # for example a full device: runs cost more without buffers, but work
            return
        if len(self._free) >= MAX_SHAPES:
            self._free.clear()
        self._free.setdefault(_binding_key(feeds, list(values)), []).append(buffers)

    def _make(self, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> _Buffers:
        if self._device[0] == "cpu":
            return HostBuffers(self._session, feeds, values)
        return DeviceBuffers(self._session, feeds, values, *self._device)


class HostBuffers:
    """Numpy arrays that a CPU session reads and writes in place.

    Not for GPUs: there the session would copy a bound numpy array once, when it is bound.
    """

    def __init__(self, session: InferenceSession, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> None:
        self._session = session
        self._inputs = {name: np.empty_like(array, order="C") for name, array in feeds.items()}
        self._outputs = {name: np.empty_like(array, order="C") for name, array in values.items()}
        self._binding = session.io_binding()
        for name, buffer in self._inputs.items():
            self._binding.bind_cpu_input(name, buffer)
        for name, buffer in self._outputs.items():
            self._binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Copy the inputs into the buffers, run, and copy the outputs out."""
        for name, buffer in self._inputs.items():
            np.copyto(buffer, feeds[name])
        self._session.run_with_iobinding(self._binding)
        return {name: buffer.copy() for name, buffer in self._outputs.items()}


class DeviceBuffers:
    """Tensors on a session's device that stay bound, while an unbound run allocates its tensors on host and device."""

    def __init__(
        self,
        session: InferenceSession,
        feeds: Mapping[str, Array],
        values: Mapping[str, Array],
        device: str,
        device_id: int,
    ) -> None:
        def tensors(arrays: Mapping[str, Array]) -> dict[str, OrtValue]:
            make = OrtValue.ortvalue_from_shape_and_type
            return {name: make(array.shape, array.dtype, device, device_id) for name, array in arrays.items()}

        self._session = session
        self._inputs = tensors(feeds)
        self._outputs = tensors(values)
        self._binding = session.io_binding()
        for name, tensor in self._inputs.items():
            self._binding.bind_ortvalue_input(name, tensor)
        for name, tensor in self._outputs.items():
            self._binding.bind_ortvalue_output(name, tensor)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Copy the inputs to the device, run, and copy the outputs back."""
        for name, tensor in self._inputs.items():
            tensor.update_inplace(np.ascontiguousarray(feeds[name]))
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        # On a GPU `numpy()` copies already; on the CPU it is a view of the buffer.
        return {name: tensor.numpy().copy() for name, tensor in self._outputs.items()}


def _binding_key(feeds: Mapping[str, Array], names: Sequence[str]) -> tuple[object, ...]:
    # With the dtype, since onnxruntime copies any bytes into a bound tensor, whatever their type.
    return (*names, *[(name, array.dtype, array.shape) for name, array in feeds.items()])
