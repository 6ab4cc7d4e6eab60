"""IO binding: input and output buffers that stay bound to a session, one set for each combination of shapes."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from onnxruntime import InferenceSession, OrtValue

from app.inference.datatypes import Array
from app.inference.session import ORT_ERRORS

MAX_SHAPES = 16  # combinations of input shapes and outputs that have buffers, per model
MAX_BYTES = {"cpu": 128 * 1024, "cuda": 4 * 2**20}  # of one set of buffers; above, copying costs more than it saves


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
            tensor.update_inplace(np.asarray(feeds[name], order="C"))
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        # On a GPU `numpy()` copies already; on the CPU it is a view of the buffer.
        return {name: tensor.numpy().copy() for name, tensor in self._outputs.items()}


def _binding_key(feeds: Mapping[str, Array], names: Sequence[str]) -> tuple[object, ...]:
    # With the dtype, since onnxruntime copies any bytes into a bound tensor, whatever their type.
    return (*names, *[(name, array.dtype, array.shape) for name, array in feeds.items()])
