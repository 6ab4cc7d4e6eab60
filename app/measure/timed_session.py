"""One model under measurement, inside a measuring process. Imports numpy and onnxruntime only."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.datatypes import NAME_BY_ONNX_TYPE, ROW_DTYPES
from app.inference.session import ORT_ERRORS, DeviceUnavailable, error_summary, open_session

Array = NDArray[np.float32]
Feed = Mapping[str, NDArray[Any]]


class Refused(Exception):  # noqa: N818
    """The job cannot be done; the client can be told why."""


class TimedSession:
    """One model under measurement: a file by its path, or what is in it."""

    def __init__(self, name: str, model: str | bytes, *, device: str, threads: int) -> None:
        self.name = name
        try:
            self._session = open_session(model, device=device, threads=threads)
        except DeviceUnavailable as error:
            raise Refused(f"device: got 'cuda': {error}") from None
        except ORT_ERRORS as error:
            raise Refused(f"{name}: onnxruntime refuses it: {error_summary(error)}") from None
        inputs = self._session.get_inputs()
        datatype = NAME_BY_ONNX_TYPE.get(inputs[0].type) if len(inputs) == 1 else None
        if datatype is None or datatype not in ROW_DTYPES or len(inputs[0].shape) < 2:
            raise Refused(f"{name}: got {len(inputs)} inputs, expected one float tensor [batch, ...]")
        self._batch, *row_shape = inputs[0].shape
        if not all(isinstance(size, int) and size > 0 for size in row_shape):
            raise Refused(f"{name}: got input shape {inputs[0].shape}, expected rows of a fixed shape")
        self.row_shape: tuple[int, ...] = tuple(row_shape)
        self._input, self._dtype = inputs[0].name, ROW_DTYPES[datatype]
        self.outputs: list[str] = [output.name for output in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]

    @property
    def fixed_batch(self) -> int | None:
        """The number of rows that the graph takes, where it takes no other."""
        return self._batch if isinstance(self._batch, int) and self._batch > 0 else None

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch size that the graph does not take."""
        if self.fixed_batch not in (None, batch_size):
            raise Refused(f"batch_sizes: got {batch_size}, expected {self._batch}: {self.name} has a fixed batch size")

    def feed(self, rows: Array, batch_size: int) -> dict[str, NDArray[Any]]:
        """The rows, repeated or cut to the batch size, as the session takes them."""
        return {self._input: np.resize(rows, (batch_size, *self.row_shape)).astype(self._dtype)}

    def run(self, feed: Feed) -> list[Any]:
        """One run, all outputs."""
        try:
            outputs: list[Any] = self._session.run(None, feed)
        except ORT_ERRORS as error:
            raise Refused(f"{self.name}: onnxruntime failed: {error_summary(error)}") from None
        return outputs

    def time(self, feed: Feed, runs: int) -> list[int]:
        """Nanoseconds of each of `runs` runs.

        Where there are several, an uncounted one before them brings the model back into the cache.
        """
        run, clock = self._session.run, time.perf_counter_ns
        if runs > 1:
            run(None, feed)
        times = []
        for _ in range(runs):
            start = clock()
            run(None, feed)
            times.append(clock() - start)
        return times
