"""An onnxruntime session of a model under test.

Imports numpy and onnxruntime only, because the memory of the measuring processes is a result.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from app.inference import bfloat16
from app.inference.datatypes import BF16, BYTES, DTYPES
from app.inference.session import ORT_ERRORS, DeviceUnavailable, error_summary, load_refusal, open_session
from app.measure.inputs.arrays import InputArrays
from app.measure.inputs.interface import Interface
from app.measure.timing import Refused

Feed = Mapping[str, NDArray[Any]]
Call = Callable[[Sequence[str], Feed], list[Any]]  # runs a session: names of outputs, arrays by name of the input


class TimedSession:
    """An onnxruntime session of a model under test.

    Args:
        name: name of the model in messages.
        model: path of the ONNX file, or its bytes.
        device: as for `open_session`.
        threads: intra-op threads of one run.
        profile: as for `open_session`.

    Raises:
        Refused: onnxruntime cannot load the model, or it takes inputs that are no tensors.
    """

    def __init__(self, name: str, model: str | bytes, *, device: str, threads: int, profile: str | None = None) -> None:
        self.name = name
        try:
            self._session = open_session(model, device=device, threads=threads, profile=profile)
        except DeviceUnavailable as error:
            raise Refused(f"device: got 'cuda': {error}") from None
        except ORT_ERRORS as error:
            raise Refused(f"{name}: {load_refusal(error)}") from None
        self.interface = Interface.of(self._session)
        wrong = next((tensor for tensor in self.interface.inputs if not tensor.is_tensor), None)
        if wrong is not None:
            raise Refused(f"{name}: got the input {wrong.name!r} of type {wrong.datatype}, expected tensors")
        self.class_labels = self._session.class_labels
        self.provider: str = self._session.get_providers()[0]
        self._names = [tensor.name for tensor in self.interface.outputs]
        tensors = (*self.interface.inputs, *self.interface.outputs)
        has_bfloat16 = any(tensor.datatype == BF16 for tensor in tensors)
        self._call: Call = partial(bfloat16.run, self._session) if has_bfloat16 else self._session.run

    def feed(self, inputs: InputArrays, batch_size: int, start: int = 0) -> dict[str, NDArray[Any]]:
        """The feed of the session: the rows from `start` on, repeated or cut, in the datatypes of its inputs."""
        arrays = inputs.batch(batch_size, start)
        return {
            tensor.name: arrays[tensor.name].astype(object if tensor.datatype == BYTES else DTYPES[tensor.datatype])
            for tensor in self.interface.inputs
        }

    def run(self, feed: Feed) -> dict[str, Any]:
        """Run the session once and return all outputs by name.

        Raises:
            Refused: with the reason that onnxruntime gives.
        """
        try:
            outputs = self._call(self._names, feed)
        except ORT_ERRORS as error:
            raise Refused(f"{self.name}: onnxruntime failed: {error_summary(error)}") from None
        return dict(zip(self._names, outputs, strict=True))

    def end_profiling(self) -> str:
        """Write the profile of all runs; returns the path of its file."""
        return str(self._session.end_profiling())

    def time(self, feed: Feed, runs: int) -> list[int]:
        """Run the session `runs` times and return the nanoseconds of each run.

        Several runs are preceded by one that is not counted, which brings the model back into the CPU's cache.
        """
        run, clock, names = self._call, time.perf_counter_ns, self._names
        if runs > 1:
            run(names, feed)
        times = []
        for _ in range(runs):
            start = clock()
            run(names, feed)
            times.append(clock() - start)
        return times
