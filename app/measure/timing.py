"""Timing of several models in turns, so that a disturbance of the machine affects all of them alike.

A measurement is a number of series. Each series opens every session anew: two sessions of the same file can differ by a
third, depending on where their memory lies, and only several sessions show that. A series times every batch size in
rounds; in a round each model runs two blocks, one in a random order of the models and one in the reverse order.

Imports numpy only.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from app.inference.datatypes import is_finite
from app.measure.bootstrap import Times
from app.measure.inputs.arrays import InputArrays
from app.processes import child

SERIES = 8
MIN_SERIES = 3
ROUNDS = 40  # of all series together, for each second of timed runs
MAX_RUNS_PER_BLOCK = 60
WARM_UP_RUNS = 20
WARM_UP_SECONDS = 0.05
OPEN_SECONDS = 4.0  # spent at most on opening sessions again and again


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

    def feed(self, inputs: InputArrays, batch_size: int) -> Any:
        """The argument of `run` and `time`: rows repeated or cut to the batch size."""

    def run(self, feed: Any) -> Mapping[str, Any]:
        """Run the model once and return its outputs by name, as far as they have to be checked."""
        ...

    def time(self, feed: Any, runs: int) -> list[int]:
        """Run the model `runs` times and return the nanoseconds of each run."""
        ...


Opener = Callable[[], TimedModel]


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Numbers of runs at one batch size: rounds of a series, and runs of a block for each model."""

    rounds: int
    runs_per_block: Sequence[int]


def time_models(
    openers: Sequence[Opener],
    inputs: InputArrays,
    batch_sizes: Sequence[int],
    *,
    seconds_per_cell: float,
    seed: int,
    max_seconds: float = math.inf,
    series: int = SERIES,
    stage: str = "latency",
    equal_runs: bool = False,
) -> list[list[Times]]:
    """Time several models at several batch sizes, in turns, and send the progress to the parent process.

    Args:
        openers: open one new session of each model.
        inputs: rows for all models.
        batch_sizes: the batch sizes to time.
        seconds_per_cell: approximate time of timed runs of one model at one batch size.
        seed: seed of the random order of the blocks.
        max_seconds: approximate limit of the whole measurement, which warm-ups of slow models could exceed.
        series: number of series; fewer, but at least `MIN_SERIES`, where opening or running the sessions is slow.
        stage: name of the measurement in the progress.
        equal_runs: give every model the same number of runs instead of about the same time.

    Returns:
        Nanoseconds (series, rounds, runs) by batch size and model.

    Raises:
        Refused: a model fails, or gives outputs that are not finite.
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
            feeds = [model.feed(inputs, batch_size) for model in models]
            run_seconds = [_warm_up(model, feed, batch_size) for model, feed in zip(models, feeds, strict=True)]
            if equal_runs:
                run_seconds = [max(run_seconds)] * len(models)
            count = counts.setdefault(batch_size, _run_counts(run_seconds, series, seconds_per_cell))
            for times, new in zip(cell, _time_series(models, feeds, count, rng), strict=True):
                times.append(new)
        if index == 0:
            series = max(MIN_SERIES, int(min(series, max_seconds / (time.perf_counter() - start))))
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
        Refused: the model fails, or gives outputs that are not finite.
    """
    for output in model.run(feed).values():
        if not is_finite(output):
            raise Refused(f"{model.name}: the outputs at batch size {batch_size} are not finite")
    times: list[int] = []
    while len(times) < 2 or (len(times) < WARM_UP_RUNS and sum(times) < WARM_UP_SECONDS * 1e9):
        times += model.time(feed, 1)
    return min(times) / 1e9
