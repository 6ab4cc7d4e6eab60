"""Requests that become one run, and what each of them gets from it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from app.errors import KronError
from app.inference.engine import Array, Engine

Feeds: TypeAlias = Mapping[str, Array]
Outputs: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Inference:
    """What one request got from its run; `batch_size` counts the rows of the whole run, other requests' included."""

    outputs: Outputs
    queue_ns: int
    compute_ns: int
    batch_size: int


@dataclass(slots=True, eq=False)
class InferenceTask:
    """What a request wants a model to be run on.

    Args:
        engine: the model.
        feeds: its inputs by name.
        outputs: the names wanted.
        rows: of its batch, 1 where the model has no batch axis.
        arrived_ns: when it came.
    """

    engine: Engine
    feeds: Feeds
    outputs: Sequence[str]
    rows: int
    arrived_ns: int

    @classmethod
    def of(cls, engine: Engine, feeds: Feeds, outputs: Sequence[str]) -> "InferenceTask":
        """With the rows that its inputs have, now."""
        rows = max([array.shape[0] if array.ndim else 1 for array in feeds.values()]) if engine.batchable else 1
        return cls(engine, feeds, outputs, rows, time.perf_counter_ns())

    def kind(self) -> object:
        """Requests of equal kind can be one run; None runs by itself."""
        return kind_of(self.feeds, self.outputs) if self.engine.batchable else None


def kind_of(feeds: Feeds, outputs: Sequence[str]) -> object:
    """The outputs wanted, and of each input its type and the shape of a row; None if inputs differ in their rows."""
    if len({array.shape[:1] or None for array in feeds.values()}) != 1:
        return None
    return (tuple(outputs), *sorted((name, array.dtype.str, array.shape[1:]) for name, array in feeds.items()))


@dataclass(slots=True)
class BatchResult:
    """What came of a batch: for each request its answer or its error, and of each run rows and nanoseconds."""

    answers: Sequence[Inference | Exception]
    runs: Sequence[tuple[int, int]]


def run_batch(batch: Sequence[InferenceTask], run: Callable[[Feeds, Sequence[str]], Outputs]) -> BatchResult:
    """Run requests of one kind together; where that cannot be, or fails, each by itself.

    Args:
        batch: the requests.
        run: the model.
    """
    runs: list[tuple[int, int]] = []
    answers = _together(batch, run, runs) if len(batch) > 1 else None
    if answers is None:  # one bad request must not cost the others their answers
        answers = [_alone(ask, run, runs) for ask in batch]
    return BatchResult(answers, runs)


def _together(
    batch: Sequence[InferenceTask], run: Callable[[Feeds, Sequence[str]], Outputs], runs: list[tuple[int, int]]
) -> Sequence[Inference | Exception] | None:
    """Each request's rows of one run; None where the model failed or gives other than a row for a row."""
    started = time.perf_counter_ns()
    rows = sum(ask.rows for ask in batch)
    try:
        feeds = {name: np.concatenate([ask.feeds[name] for ask in batch]) for name in batch[0].feeds}
        before = time.perf_counter_ns()
        values = run(feeds, batch[0].outputs)
        compute_ns = time.perf_counter_ns() - before
        runs.append((rows, compute_ns))
    except Exception:  # each by itself will tell
        return None
    if any(getattr(value, "shape", ())[:1] != (rows,) for value in values.values()):
        return None
    answers: list[Inference | Exception] = []
    first = 0
    for ask in batch:
        part = slice(first, first + ask.rows)
        first += ask.rows
        outputs = {name: value[part] for name, value in values.items()}
        answers.append(Inference(outputs, started - ask.arrived_ns, compute_ns, rows))
    return answers


def _alone(
    ask: InferenceTask, run: Callable[[Feeds, Sequence[str]], Outputs], runs: list[tuple[int, int]]
) -> Inference | Exception:
    started = time.perf_counter_ns()
    try:
        values = run(ask.feeds, ask.outputs)
    except KronError as error:
        # It says all that there is to say; the frames that it came through would hold the model until the collector
        # comes, for they hold it, too.
        error.__context__ = None
        return error.with_traceback(None)
    except Exception as error:  # whatever it is, it belongs to the request
        return error
    compute_ns = time.perf_counter_ns() - started
    runs.append((ask.rows, compute_ns))
    return Inference(values, started - ask.arrived_ns, compute_ns, ask.rows)
