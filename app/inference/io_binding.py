"""Runs in buffers that stay where they are: what a run of a small model costs is mostly the making of its tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.inference.session import ORT_ERRORS

Array = NDArray[Any]

MOST = 16  # kinds of runs that have buffers, of one model
MAX_BYTES = {"cpu": 128 * 1024, "cuda": 4 * 2**20}  # of one set of them; beyond, copying costs more than is saved


class _Buffers(Protocol):
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, run, copy out."""


class Bindings:
    """The buffers of one session, by the outputs wanted and the shapes of the inputs.

    Threads may run at the same time: each takes a set of buffers for itself, and lays it back.

    Args:
        session: what is run.
        device: `cpu` or `cuda`, where the session has its tensors.
        device_id: which of several GPUs.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str = "cpu", device_id: int = 0) -> None:
        self._session = session
        self._device = device, device_id
        self._max_bytes = MAX_BYTES[device]
        self._free: dict[tuple[object, ...], list[_Buffers]] = {}

    def __len__(self) -> int:
        return len(self._free)

    def run(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array] | None:
        """The outputs; None where there are no buffers for such a run, or all of them are in use."""
        free = self._free.get(_key(feeds, names))
        if free is None:
            return None
        try:
            buffers = free.pop()  # in one step: another thread may take the last ones
        except IndexError:
            return None
        values = buffers.run(feeds)
        free.append(buffers)  # not after a failure: who knows what is in them
        return values

    def add(self, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> None:
        """Make buffers for runs like one that gave these outputs, whose shapes follow from those of its inputs."""
        if sum(array.nbytes for array in (*feeds.values(), *values.values())) > self._max_bytes:
            return
        try:
            buffers = self._make(feeds, values)
        except ORT_ERRORS:  # the device is full, say: runs cost more, but go on
            return
        if len(self._free) >= MOST:
            self._free.clear()
        self._free.setdefault(_key(feeds, list(values)), []).append(buffers)

    def _make(self, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> _Buffers:
        if self._device[0] == "cpu":
            return HostBuffers(self._session, feeds, values)
        return DeviceBuffers(self._session, feeds, values, *self._device)


class HostBuffers:
    """Arrays of numpy that the session reads and writes in place; for the CPU only.

    Elsewhere inputs that are bound so are copied once and for all.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, feeds: Mapping[str, Array], values: Mapping[str, Array]
    ) -> None:
        self._session = session
        self._inputs = {name: np.empty_like(array, order="C") for name, array in feeds.items()}
        self._outputs = {name: np.empty_like(array, order="C") for name, array in values.items()}
        self._binding = session.io_binding()
        for name, buffer in self._inputs.items():
            self._binding.bind_cpu_input(name, buffer)
        for name, buffer in self._outputs.items():
            self._binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, run, copy out."""
        for name, buffer in self._inputs.items():
            np.copyto(buffer, feeds[name])
        self._session.run_with_iobinding(self._binding)
        return {name: buffer.copy() for name, buffer in self._outputs.items()}


class DeviceBuffers:
    """Tensors on the device of a session, which stay bound: a run is a copy there, the run, and a copy back.

    An ordinary run makes all of its tensors anew, on both sides.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        feeds: Mapping[str, Array],
        values: Mapping[str, Array],
        device: str,
        device_id: int,
    ) -> None:
        def tensors(arrays: Mapping[str, Array]) -> dict[str, onnxruntime.OrtValue]:
            make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
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
        """Copy there, run, copy back."""
        for name, tensor in self._inputs.items():
            tensor.update_inplace(np.ascontiguousarray(feeds[name]))
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        # On a GPU that is a copy already; where device and host are the same it would be the buffer itself.
        return {name: tensor.numpy().copy() for name, tensor in self._outputs.items()}


def _key(feeds: Mapping[str, Array], names: Sequence[str]) -> tuple[object, ...]:
    # The type too: into a tensor that stays, onnxruntime copies as many bytes as it is given.
    return (*names, *[(name, array.dtype, array.shape) for name, array in feeds.items()])
