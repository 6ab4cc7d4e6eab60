"""Batching: inference tasks of several requests joined into one run, whose outputs are split again."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from app.errors import KronError
from app.inference.datatypes import Array
from app.inference.engine import Engine

Feeds: TypeAlias = Mapping[str, Array]
Outputs: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """The outputs and times of one inference task.

    Args:
        outputs: arrays by name, with the task's rows only.
        queue_ns: from the arrival of the request to the start of the run.
        compute_ns: duration of the run.
        batch_size: rows of the run, those of other requests included.
    """

    outputs: Outputs
    queue_ns: int
    compute_ns: int
    batch_size: int


@dataclass(slots=True, eq=False)
class InferenceTask:
    """The inputs of one request to one model, and its requested outputs.

    Args:
        engine: the model.
        feeds: arrays of all inputs by name.
        outputs: names of the requested outputs.
        rows: size of the batch; 1 where the model has no batch axis.
        arrived_ns: when the request arrived, by `time.perf_counter_ns`.
    """

    engine: Engine
    feeds: Feeds
    outputs: Sequence[str]
    rows: int
    arrived_ns: int

    @classmethod
    def create(cls, engine: Engine, feeds: Feeds, outputs: Sequence[str]) -> "InferenceTask":
        """Create a task with the present time as its arrival, and the number of rows of its inputs."""
        rows = max([array.shape[0] if array.ndim else 1 for array in feeds.values()]) if engine.has_batch_axis else 1
        return cls(engine, feeds, outputs, rows, time.perf_counter_ns())

    def batch_key(self) -> object:
        """A key that is equal for tasks that can share a run; None for a task that must run alone."""
        return batch_key(self.feeds, self.outputs) if self.engine.batchable else None


def batch_key(feeds: Feeds, outputs: Sequence[str]) -> object:
    """Requested outputs, and dtype and row shape of each input; None if the inputs have different numbers of rows."""
    if len({array.shape[:1] or None for array in feeds.values()}) != 1:
        return None
    return (tuple(outputs), *sorted((name, array.dtype.str, array.shape[1:]) for name, array in feeds.items()))


@dataclass(slots=True)
class BatchResult:
    """Results of the tasks of a batch, and the runs of the model that they took.

    Args:
        results: for each task its result or its error.
        runs: rows and nanoseconds of each run of the model.
    """

    results: Sequence[InferenceResult | Exception]
    runs: Sequence[tuple[int, int]]


def run_batch(batch: Sequence[InferenceTask], run: Callable[[Feeds, Sequence[str]], Outputs]) -> BatchResult:
    """Run tasks of equal `batch_key` in one run, or one by one where that fails.

    Args:
        batch: the tasks.
        run: runs the model on arrays by name, for the named outputs.
    """
    runs: list[tuple[int, int]] = []
    results = _run_joined(batch, run, runs) if len(batch) > 1 else None
    if results is None:  # one bad request must not fail the others
        results = [_run_single(task, run, runs) for task in batch]
    return BatchResult(results, runs)


def _run_joined(
    batch: Sequence[InferenceTask], run: Callable[[Feeds, Sequence[str]], Outputs], runs: list[tuple[int, int]]
) -> Sequence[InferenceResult | Exception] | None:
    """Run the rows of all tasks at once; None if the model fails or has other than one output row per input row."""
    started = time.perf_counter_ns()
    rows = sum(task.rows for task in batch)
    try:
        feeds = {name: np.concatenate([task.feeds[name] for task in batch]) for name in batch[0].feeds}
        run_started = time.perf_counter_ns()
        values = run(feeds, batch[0].outputs)
        compute_ns = time.perf_counter_ns() - run_started
        runs.append((rows, compute_ns))
    except Exception:  # the single runs find which task it is
        return None
    if any(getattr(value, "shape", ())[:1] != (rows,) for value in values.values()):
        return None
    results: list[InferenceResult | Exception] = []
    first = 0
    for task in batch:
        part = slice(first, first + task.rows)
        first += task.rows
        outputs = {name: value[part] for name, value in values.items()}
        results.append(InferenceResult(outputs, started - task.arrived_ns, compute_ns, rows))
    return results


def _run_single(
    task: InferenceTask, run: Callable[[Feeds, Sequence[str]], Outputs], runs: list[tuple[int, int]]
) -> InferenceResult | Exception:
    started = time.perf_counter_ns()
    try:
        values = run(task.feeds, task.outputs)
    except KronError as error:
        # The message says everything, and the frames of a traceback would keep the model in memory until the garbage
        # collector runs.
        error.__context__ = None
        return error.with_traceback(None)
    except Exception as error:  # the request that caused it reports it
        return error
    compute_ns = time.perf_counter_ns() - started
    runs.append((task.rows, compute_ns))
    return InferenceResult(values, started - task.arrived_ns, compute_ns, task.rows)
