"""Timing several models in turns, so that whatever disturbs one disturbs all. Imports numpy and onnxruntime only.

The measurement is a number of series. Each opens its sessions anew, for two sessions of the very same file can differ
by a third through where their memory happens to lie; only several of them show it. A series times every batch size in
rounds; in a round every model has two blocks of runs, in a random order and then in its reverse.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app import child
from app.samples import SamplesError, read_samples
from app.stats import Times
from app.subject import Array, Feed, Refused, Subject

SERIES = 8
MIN_SERIES = 3
ROUNDS = 40  # of all series together
MAX_RUNS_PER_BLOCK = 60
WARM_UP_RUNS = 20
WARM_UP_SECONDS = 0.05
LOAD_SECONDS = 4.0  # for opening sessions again and again

Opener = Callable[[], Subject]


@dataclass(frozen=True, slots=True)
class Plan:
    """How one batch size is timed: rounds of a series, and runs of a block by model."""

    rounds: int
    runs: Sequence[int]


def measure(
    openers: Sequence[Opener], rows: "Inputs", batch_sizes: Sequence[int], *, seconds_per_cell: float, seed: int
) -> list[list[Times]]:
    """Times (series, rounds, runs) by batch size and model.

    Args:
        openers: open one new session of each model.
        rows: the inputs.
        batch_sizes: the batch sizes to time.
        seconds_per_cell: about how long one model is timed at one batch size.
        seed: of the order of the blocks.

    Raises:
        Refused: a model does not take a batch size, fails, or gives outputs that are not finite.
    """
    rng = np.random.default_rng(seed)
    cells: list[list[list[list[list[int]]]]] = [[[] for _ in openers] for _ in batch_sizes]
    plans: dict[int, Plan] = {}
    series, index = SERIES, 0
    while index < series:
        start = time.perf_counter()
        subjects: dict[int, Subject] = {}
        for position in rng.permutation(len(openers)).tolist():
            subjects[position] = openers[position]()
        if index == 0:
            series = max(MIN_SERIES, min(SERIES, int(LOAD_SECONDS / (time.perf_counter() - start))))
        for batch_size, cell in zip(batch_sizes, cells, strict=True):
            child.send(progress=f"latency: series {index + 1} of {series}, batch size {batch_size}", of=series)
            feeds = [subjects[i].feed(rows.of(subjects[i]), batch_size) for i in range(len(openers))]
            per_run = [_warm_up(subjects[i], feeds[i], batch_size) for i in range(len(openers))]
            plan = plans.setdefault(batch_size, _plan(per_run, series, seconds_per_cell))
            for times, new in zip(cell, _series(subjects, feeds, plan, rng), strict=True):
                times.append(new)
        index += 1
    return [[np.array(times, dtype=np.int64) for times in cell] for cell in cells]


def _plan(per_run: Sequence[float], series: int, seconds_per_cell: float) -> Plan:
    slowest = max(per_run)
    rounds = max(1, min(ROUNDS, int(seconds_per_cell / (2 * slowest))) // series)
    block_seconds = seconds_per_cell / (2 * rounds * series)
    return Plan(rounds, [max(1, min(MAX_RUNS_PER_BLOCK, int(block_seconds / seconds))) for seconds in per_run])


def _series(
    subjects: Mapping[int, Subject], feeds: Sequence[Feed], plan: Plan, rng: "np.random.Generator"
) -> list[list[list[int]]]:
    """Nanoseconds of each run by model and round."""
    times: list[list[list[int]]] = [[[] for _ in range(plan.rounds)] for _ in subjects]
    for index in range(plan.rounds):
        order = rng.permutation(len(subjects)).tolist()
        for position in [*order, *reversed(order)]:
            times[position][index] += subjects[position].time(feeds[position], plan.runs[position])
    return times


def _warm_up(subject: Subject, feed: Feed, batch_size: int) -> float:
    """Run this shape until it is warm, and check what comes out; the seconds of one run."""
    subject.check_batch(batch_size)
    for output in subject.run(feed):
        if isinstance(output, np.ndarray) and output.dtype.kind == "f" and not np.isfinite(output).all():
            raise Refused(f"{subject.name}: the outputs at batch size {batch_size} are not finite")
    times: list[int] = []
    while len(times) < 2 or (len(times) < WARM_UP_RUNS and sum(times) < WARM_UP_SECONDS * 1e9):
        times += subject.time(feed, 1)
    return float(np.median(times)) / 1e9


class Inputs:
    """Rows for each row shape, the same for all models that share it.

    They are the samples of the first model that has some, else uniform random numbers.
    """

    def __init__(self, samples: Sequence[Path], *, largest_batch: int, seed: int) -> None:
        self._samples = samples
        self._largest_batch = largest_batch
        self._seed = seed
        self._rows: dict[tuple[int, ...], Array] = {}
        self._sources: list[str] = []

    @property
    def source(self) -> str:
        """Where they come from."""
        return " and ".join(dict.fromkeys(self._sources))

    def of(self, subject: Subject) -> Array:
        """The rows (n, *row_shape) for a model."""
        shape = subject.row_shape
        if shape not in self._rows:
            self._rows[shape] = self._read(shape)
        return self._rows[shape]

    def _read(self, shape: tuple[int, ...]) -> Array:
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
