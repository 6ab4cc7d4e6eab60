"""Runs in buffers that stay where they are: what a run of a small model costs is mostly the making of its tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]

MOST = 16  # sets of buffers of one model
MAX_BYTES = 128 * 1024  # of one of them


class _Buffers(NamedTuple):
    binding: onnxruntime.IOBinding
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


class Bindings:
    """The buffers of one session, for one thread; by the outputs wanted and the shapes of the inputs.

    Args:
        session: on the CPU, for elsewhere inputs are copied once and for all when they are bound.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._found: dict[tuple[object, ...], _Buffers] = {}

    def __len__(self) -> int:
        return len(self._found)

    def run(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array] | None:
        """The outputs; None where there are no buffers for such a run."""
        found = self._found.get(_key(feeds, names))
        if found is None:
            return None
        for name, buffer in found.inputs.items():
            np.copyto(buffer, feeds[name])
        self._session.run_with_iobinding(found.binding)
        return {name: buffer.copy() for name, buffer in found.outputs.items()}

    def add(self, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> None:
        """Make buffers for runs like one that gave these outputs, whose shapes follow from those of its inputs."""
        if sum(array.nbytes for array in (*feeds.values(), *values.values())) > MAX_BYTES:
            return
        inputs = {name: np.empty_like(array, order="C") for name, array in feeds.items()}
        outputs = {name: np.empty_like(array, order="C") for name, array in values.items()}
        binding = self._session.io_binding()
        for name, buffer in inputs.items():
            binding.bind_cpu_input(name, buffer)
        for name, buffer in outputs.items():
            binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
        if len(self._found) >= MOST:
            self._found.clear()
        self._found[_key(feeds, list(values))] = _Buffers(binding, inputs, outputs)


def _key(feeds: Mapping[str, Array], names: Sequence[str]) -> tuple[object, ...]:
    return (*names, *[(name, array.shape) for name, array in feeds.items()])
