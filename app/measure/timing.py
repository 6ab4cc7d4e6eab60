"""Timing of several models in turns, so that a disturbance of the machine affects all of them alike.

A measurement is a number of series. Each series opens every session anew: two sessions of the same file can differ by a
third, depending on where their memory lies, and only several sessions show that. A series times every batch size in
rounds; in a round each model runs two blocks, one in a random order of the models and one in the reverse order.

Imports numpy and onnxruntime only.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.inference.datatypes import NAME_BY_ONNX_TYPE, ROW_DTYPES
from app.inference.session import ORT_ERRORS, DeviceUnavailable, error_summary, load_refusal, open_session
from app.measure.bootstrap import Times
from app.models.samples import SamplesError, read_samples
from app.processes import child

SERIES = 8
MIN_SERIES = 3
ROUNDS = 40  # of all series together, for each second of timed runs
MAX_RUNS_PER_BLOCK = 60
WARM_UP_RUNS = 20
WARM_UP_SECONDS = 0.05
OPEN_SECONDS = 4.0  # spent at most on opening sessions again and again

Array = NDArray[np.float32]
Feed = Mapping[str, NDArray[Any]]


class Refused(Exception):  # noqa: N818
    """The models cannot be measured as requested; the message is for the client."""


def run_job(measure: Callable[[Mapping[str, Any]], object]) -> None:
    """Receive the job of a measuring process, and send the result of `measure` or the message of its refusal."""
    job = child.receive()
    try:
        child.send(result=measure(job))
    except Refused as error:
        child.send(refused=str(error))


class TimedModel(Protocol):
    """A model whose runs can be timed: a `TimedSession`, or a model behind a service."""

    name: str
    row_shape: tuple[int, ...]

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch size that the model does not take.

        Raises:
            Refused: naming the batch size that it takes.
        """

    def feed(self, rows: Array, batch_size: int) -> Any:
        """The argument of `run` and `time`: `rows` repeated or cut to the batch size."""

    def run(self, feed: Any) -> list[Any]:
        """Run the model once and return all outputs."""
        ...

    def time(self, feed: Any, runs: int) -> list[int]:
        """Run the model `runs` times and return the nanoseconds of each run."""
        ...


class TimedSession:
    """An onnxruntime session of a model under test.

    Args:
        name: name of the model in messages.
        model: path of the ONNX file, or its bytes.
        device: as for `open_session`.
        threads: intra-op threads of one run.

    Raises:
        Refused: onnxruntime cannot load the model, or the model does not take rows of floats of a fixed shape.
    """

    def __init__(self, name: str, model: str | bytes, *, device: str, threads: int) -> None:
        self.name = name
        try:
            self._session = open_session(model, device=device, threads=threads)
        except DeviceUnavailable as error:
            raise Refused(f"device: got 'cuda': {error}") from None
        except ORT_ERRORS as error:
            raise Refused(f"{name}: {load_refusal(error)}") from None
        inputs = self._session.get_inputs()
        datatype = NAME_BY_ONNX_TYPE.get(inputs[0].type) if len(inputs) == 1 else None
        if datatype is None or datatype not in ROW_DTYPES or len(inputs[0].shape) < 2:
            raise Refused(f"{name}: got {len(inputs)} inputs, expected one float tensor [batch, ...]")
        self._batch, *row_shape = inputs[0].shape
        if not all(isinstance(size, int) and size > 0 for size in row_shape):
            raise Refused(f"{name}: got input shape {inputs[0].shape}, expected rows of a fixed shape")
        self.row_shape: tuple[int, ...] = tuple(row_shape)
        self._input, self._dtype = inputs[0].name, ROW_DTYPES[datatype]
        self.class_labels = self._session.class_labels
        self.outputs: list[str] = [output.name for output in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the graph takes; None where it takes any."""
        return self._batch if isinstance(self._batch, int) and self._batch > 0 else None

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch size that the graph does not take.

        Raises:
            Refused: naming the batch size that it takes.
        """
        if self.fixed_batch not in (None, batch_size):
            raise Refused(f"batch_sizes: got {batch_size}, expected {self._batch}: {self.name} has a fixed batch size")

    def feed(self, rows: Array, batch_size: int) -> dict[str, NDArray[Any]]:
        """The feed of the session: `rows` repeated or cut to the batch size, in the input's datatype."""
        return {self._input: np.resize(rows, (batch_size, *self.row_shape)).astype(self._dtype)}

    def run(self, feed: Feed) -> list[Any]:
        """Run the session once and return all outputs.

        Raises:
            Refused: with the reason that onnxruntime gives.
        """
        try:
            outputs: list[Any] = self._session.run(None, feed)
        except ORT_ERRORS as error:
            raise Refused(f"{self.name}: onnxruntime failed: {error_summary(error)}") from None
        return outputs

    def time(self, feed: Feed, runs: int) -> list[int]:
        """Run the session `runs` times and return the nanoseconds of each run.

        Several runs are preceded by one that is not counted, which brings the model back into the CPU's cache.
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


Opener = Callable[[], TimedModel]


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Numbers of runs at one batch size: rounds of a series, and runs of a block for each model."""

    rounds: int
    runs_per_block: Sequence[int]


def time_models(
    openers: Sequence[Opener],
    rows: "InputRows",
    batch_sizes: Sequence[int],
    *,
    seconds_per_cell: float,
    seed: int,
    series: int = SERIES,
    stage: str = "latency",
    equal_runs: bool = False,
) -> list[list[Times]]:
    """Time several models at several batch sizes, in turns, and send the progress to the parent process.

    Args:
        openers: open one new session of each model.
        rows: the inputs.
        batch_sizes: the batch sizes to time.
        seconds_per_cell: approximate time of timed runs of one model at one batch size.
        seed: seed of the random order of the blocks.
        series: number of series; fewer, but at least `MIN_SERIES`, where opening the sessions is slow.
        stage: name of the measurement in the progress.
        equal_runs: give every model the same number of runs instead of about the same time.

    Returns:
        Nanoseconds (series, rounds, runs) by batch size and model.

    Raises:
        Refused: a model does not take a batch size, fails, or gives outputs that are not finite.
    """
    rng = np.random.default_rng(seed)
    cells: list[list[list[list[list[int]]]]] = [[[] for _ in openers] for _ in batch_sizes]
    counts: dict[int, RunCounts] = {}
    index = 0
    while index < series:
        start = time.perf_counter()
        opened: dict[int, TimedModel] = {}
        for position in rng.permutation(len(openers)).tolist():
            opened[position] = openers[position]()
        models = [opened[position] for position in range(len(openers))]
        if index == 0:
            series = max(MIN_SERIES, min(series, int(OPEN_SECONDS / (time.perf_counter() - start))))
        for batch_size, cell in zip(batch_sizes, cells, strict=True):
            child.send(progress=f"{stage}: series {index + 1} of {series}, batch size {batch_size}")
            feeds = [model.feed(rows.rows_for(model), batch_size) for model in models]
            run_seconds = [_warm_up(model, feed, batch_size) for model, feed in zip(models, feeds, strict=True)]
            if equal_runs:
                run_seconds = [max(run_seconds)] * len(models)
            count = counts.setdefault(batch_size, _run_counts(run_seconds, series, seconds_per_cell))
            for times, new in zip(cell, _time_series(models, feeds, count, rng), strict=True):
                times.append(new)
        index += 1
    return [[np.array(times, dtype=np.int64) for times in cell] for cell in cells]


def _run_counts(run_seconds: Sequence[float], series: int, seconds_per_cell: float) -> RunCounts:
    """Divide the time of a cell into rounds and blocks.

    Args:
        run_seconds: duration of one run of each model.
        series: number of series.
        seconds_per_cell: approximate time of timed runs of one model.
    """
    max_rounds = ROUNDS * max(1.0, seconds_per_cell)  # more time than usual gives more blocks, not longer ones
    rounds = max(1, int(min(max_rounds, seconds_per_cell / (2 * max(run_seconds)))) // series)
    block_seconds = seconds_per_cell / (2 * rounds * series)
    return RunCounts(rounds, [max(1, min(MAX_RUNS_PER_BLOCK, int(block_seconds / each))) for each in run_seconds])


def _time_series(
    models: Sequence[TimedModel], feeds: Sequence[Any], count: RunCounts, rng: "np.random.Generator"
) -> list[list[list[int]]]:
    """Time one series at one batch size; nanoseconds of each run by model and round."""
    times: list[list[list[int]]] = [[[] for _ in range(count.rounds)] for _ in models]
    for index in range(count.rounds):
        order = rng.permutation(len(models)).tolist()
        for position in [*order, *reversed(order)]:
            times[position][index] += models[position].time(feeds[position], count.runs_per_block[position])
    return times


def _warm_up(model: TimedModel, feed: Any, batch_size: int) -> float:
    """Warm a model up at one batch size, check its outputs, and return the seconds of the fastest run.

    Slower runs were disturbed by the machine; the number of timed runs must not depend on that.

    Raises:
        Refused: the model does not take the batch size, or gives outputs that are not finite.
    """
    model.check_batch(batch_size)
    for output in model.run(feed):
        if isinstance(output, np.ndarray) and output.dtype.kind == "f" and not np.isfinite(output).all():
            raise Refused(f"{model.name}: the outputs at batch size {batch_size} are not finite")
    times: list[int] = []
    while len(times) < 2 or (len(times) < WARM_UP_RUNS and sum(times) < WARM_UP_SECONDS * 1e9):
        times += model.time(feed, 1)
    return min(times) / 1e9


class InputRows:
    """Input rows for each row shape, the same for all models that share it.

    They are uploaded rows, or the samples of the first model that has some, or else uniform random numbers.

    Args:
        samples: paths of the models' samples; a file need not exist.
        uploaded: `name` and `path` of uploaded rows.
        largest_batch: number of rows to keep at most.
        seed: seed of the random numbers.
    """

    def __init__(
        self, samples: Sequence[Path], *, uploaded: Mapping[str, str] | None = None, largest_batch: int, seed: int
    ) -> None:
        self._samples = samples
        self._uploaded = uploaded
        self._largest_batch = largest_batch
        self._seed = seed
        self._rows: dict[tuple[int, ...], Array] = {}
        self._sources: list[str] = []

    @property
    def source(self) -> str:
        """Source of the rows, as the report names it."""
        return " and ".join(dict.fromkeys(self._sources))

    def rows_for(self, model: TimedModel) -> Array:
        """Input rows (n, *row_shape) for a model of this row shape.

        Raises:
            Refused: the uploaded rows have another width.
        """
        shape = model.row_shape
        if shape not in self._rows:
            self._rows[shape] = self._read(shape)
        return self._rows[shape]

    def _read(self, shape: tuple[int, ...]) -> Array:
        if self._uploaded is not None:
            self._sources.append(self._uploaded["name"])
            return read_uploaded_rows(self._uploaded["path"], shape)[: self._largest_batch].copy()
        for path in self._samples:
            try:
                samples = read_samples(path, shape)
            except SamplesError:
                continue  # no file, or of another shape; the service logs damaged ones when it loads the model
            if len(samples):
                self._sources.append(f"samples of {path.parent.parent.name}")
                return samples.inputs[: self._largest_batch].copy()
        self._sources.append(f"random numbers (seed {self._seed})")
        return np.random.default_rng(self._seed).random((min(64, self._largest_batch), *shape), np.float32)


def read_uploaded_rows(path: str, shape: tuple[int, ...]) -> Array:
    """Read uploaded rows (n, *shape) from the file that `UploadedInputs.save` wrote, which holds flat rows.

    Raises:
        Refused: the rows have another width.
    """
    with np.load(path, allow_pickle=False) as arrays:
        rows: Array = arrays["inputs"]
    if rows.shape[1] != math.prod(shape):
        expected = " × ".join(map(str, shape))
        raise Refused(f"inputs: got rows of {rows.shape[1]} values, expected {expected}")
    return rows.reshape(len(rows), *shape)
