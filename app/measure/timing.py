"""Timing several models in turns, so that whatever disturbs one disturbs all. Imports numpy and onnxruntime only.

The measurement is a number of series. Each opens its sessions anew, for two sessions of the very same file can differ
by a third through where their memory happens to lie; only several of them show it. A series times every batch size in
rounds; in a round every model has two blocks of runs, in a random order and then in its reverse.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from app.measure.bootstrap import Times
from app.measure.timed_session import Array, Refused
from app.models.samples import SamplesError, read_samples
from app.processes import child

SERIES = 8
MIN_SERIES = 3
ROUNDS = 40  # of all series together, in a second
MAX_RUNS_PER_BLOCK = 60
WARM_UP_RUNS = 20
WARM_UP_SECONDS = 0.05
LOAD_SECONDS = 4.0  # for opening sessions again and again


class Timed(Protocol):
    """What can be timed: `TimedSession`, or a model behind a service."""

    name: str
    row_shape: tuple[int, ...]

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch size that it does not take."""

    def feed(self, rows: Array, batch_size: int) -> Any:
        """The rows, repeated or cut to the batch size, as it takes them."""

    def run(self, feed: Any) -> list[Any]:
        """One run, all outputs."""
        ...

    def time(self, feed: Any, runs: int) -> list[int]:
        """Nanoseconds of each of `runs` runs."""
        ...


Opener = Callable[[], Timed]


@dataclass(frozen=True, slots=True)
class Plan:
    """How one batch size is timed: rounds of a series, and runs of a block by model."""

    rounds: int
    runs: Sequence[int]


def measure(
    openers: Sequence[Opener],
    rows: "Inputs",
    batch_sizes: Sequence[int],
    *,
    seconds_per_cell: float,
    seed: int,
    series: int = SERIES,
    stage: str = "latency",
    alike: bool = False,
) -> list[list[Times]]:
    """Times (series, rounds, runs) by batch size and model.

    Args:
        openers: open one new session of each model.
        rows: the inputs.
        batch_sizes: the batch sizes to time.
        seconds_per_cell: about how long one model is timed at one batch size.
        seed: of the order of the blocks.
        series: at most so many; fewer, but at least `MIN_SERIES`, where opening takes long.
        stage: what progress is called.
        alike: give every model the same number of runs, not about the same time.

    Raises:
        Refused: a model does not take a batch size, fails, or gives outputs that are not finite.
    """
    rng = np.random.default_rng(seed)
    cells: list[list[list[list[list[int]]]]] = [[[] for _ in openers] for _ in batch_sizes]
    plans: dict[int, Plan] = {}
    index = 0
    while index < series:
        start = time.perf_counter()
        subjects: dict[int, Timed] = {}
        for position in rng.permutation(len(openers)).tolist():
            subjects[position] = openers[position]()
        if index == 0:
            series = max(MIN_SERIES, min(series, int(LOAD_SECONDS / (time.perf_counter() - start))))
        for batch_size, cell in zip(batch_sizes, cells, strict=True):
            child.send(progress=f"{stage}: series {index + 1} of {series}, batch size {batch_size}", of=series)
            feeds = [subjects[i].feed(rows.of(subjects[i]), batch_size) for i in range(len(openers))]
            per_run = [_warm_up(subjects[i], feeds[i], batch_size) for i in range(len(openers))]
            plan = plans.setdefault(
                batch_size, _plan([max(per_run)] * len(per_run) if alike else per_run, series, seconds_per_cell)
            )
            for times, new in zip(cell, _series(subjects, feeds, plan, rng), strict=True):
                times.append(new)
        index += 1
    return [[np.array(times, dtype=np.int64) for times in cell] for cell in cells]


def _plan(per_run: Sequence[float], series: int, seconds_per_cell: float) -> Plan:
    slowest = max(per_run)
    most = ROUNDS * max(1.0, seconds_per_cell)  # more time than usual goes into more blocks, not into longer ones
    rounds = max(1, int(min(most, seconds_per_cell / (2 * slowest))) // series)
    block_seconds = seconds_per_cell / (2 * rounds * series)
    return Plan(rounds, [max(1, min(MAX_RUNS_PER_BLOCK, int(block_seconds / seconds))) for seconds in per_run])


def _series(
    subjects: Mapping[int, Timed], feeds: Sequence[Any], plan: Plan, rng: "np.random.Generator"
) -> list[list[list[int]]]:
    """Nanoseconds of each run by model and round."""
    times: list[list[list[int]]] = [[[] for _ in range(plan.rounds)] for _ in subjects]
    for index in range(plan.rounds):
        order = rng.permutation(len(subjects)).tolist()
        for position in [*order, *reversed(order)]:
            times[position][index] += subjects[position].time(feeds[position], plan.runs[position])
    return times


def _warm_up(subject: Timed, feed: Any, batch_size: int) -> float:
    """Run this shape until it is warm, and check what comes out; the seconds of one run."""
    subject.check_batch(batch_size)
    for output in subject.run(feed):
        if isinstance(output, np.ndarray) and output.dtype.kind == "f" and not np.isfinite(output).all():
            raise Refused(f"{subject.name}: the outputs at batch size {batch_size} are not finite")
    times: list[int] = []
    while len(times) < 2 or (len(times) < WARM_UP_RUNS and sum(times) < WARM_UP_SECONDS * 1e9):
        times += subject.time(feed, 1)
    return min(times) / 1e9  # what made the others longer is not the model's, and would spoil the plan


class Inputs:
    """Rows for each row shape, the same for all models that share it.

    They are somebody's own, or the samples of the first model that has some, else uniform random numbers.

    Args:
        samples: where the models' samples may be.
        own: `name` and `path` of somebody's own rows.
        largest_batch: so many rows are kept at most.
        seed: of the random numbers.
    """

    def __init__(
        self, samples: Sequence[Path], *, own: Mapping[str, str] | None = None, largest_batch: int, seed: int
    ) -> None:
        self._samples = samples
        self._own = own
        self._largest_batch = largest_batch
        self._seed = seed
        self._rows: dict[tuple[int, ...], Array] = {}
        self._sources: list[str] = []

    @property
    def source(self) -> str:
        """Where they come from."""
        return " and ".join(dict.fromkeys(self._sources))

    def of(self, subject: Timed) -> Array:
        """The rows (n, *row_shape) for a model."""
        shape = subject.row_shape
        if shape not in self._rows:
            self._rows[shape] = self._read(shape)
        return self._rows[shape]

    def _read(self, shape: tuple[int, ...]) -> Array:
        if self._own is not None:
            self._sources.append(self._own["name"])
            return own_rows(self._own["path"], shape)[: self._largest_batch].copy()
        for path in self._samples:
            try:
                samples = read_samples(path, shape)
            except SamplesError:
                continue  # none, or not for this shape; what is wrong with a file, the service's log says
            if len(samples):
                self._sources.append(f"samples of {path.parent.parent.name}")
                return samples.inputs[: self._largest_batch].copy()
        self._sources.append(f"random numbers (seed {self._seed})")
        return np.random.default_rng(self._seed).random((min(64, self._largest_batch), *shape), np.float32)


def own_rows(path: str, shape: tuple[int, ...]) -> Array:
    """Somebody's own rows (n, *shape); the file has them flat.

    Raises:
        Refused: they are of another width.
    """
    with np.load(path, allow_pickle=False) as arrays:
        rows: Array = arrays["inputs"]
    if rows.shape[1] != math.prod(shape):
        expected = " × ".join(map(str, shape))
        raise Refused(f"inputs: got rows of {rows.shape[1]} values, expected {expected}")
    return rows.reshape(len(rows), *shape)
