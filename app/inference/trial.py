"""Trial of a model on made-up inputs: whether it runs, how many rows fit in a run, and whether rows keep apart."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from app.errors import ModelError, OutOfMemory
from app.inference.datatypes import Array, Tensor, is_bfloat16
from app.inference.made_up import FLOATS, POISON, MadeUp, ways

BATCH = 32  # rows of the largest run that is tried
WARM_UP_SECONDS = 1.0  # longest run in the service that only warms a model up
_ROWS = 5  # that differ, run together and alone
_COMPARISON_ROWS = 20  # rows of all runs of the comparison together
_TIME_FRACTION = 0.4  # of the time that is left, for one step of the trial


class Runnable(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """The inputs."""

    @property
    def has_batch_axis(self) -> bool:
        """Whether the first axis of every input and output is the batch."""

    def try_run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on inputs that it may refuse."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of a trial.

    Args:
        outputs: of one row, by name; empty if the model failed.
        failure: why it failed on every kind of made-up inputs; None if it ran.
        run_seconds: of one row.
        way: how the inputs were made up.
    """

    outputs: Mapping[str, Array]
    failure: str | None
    run_seconds: float
    way: MadeUp


def run_one_row(model: Runnable) -> Trial:
    """Run one row, made up in one way after the other until the model runs.

    Raises:
        OutOfMemory: a run takes too much memory.
    """
    failure = None
    kinds = list(ways(model.inputs, has_batch_axis=model.has_batch_axis))
    for way in kinds:
        try:
            outputs, seconds = _timed_run(model, way)
            if seconds > WARM_UP_SECONDS:
                return Trial(outputs, None, seconds, way)
            enlarged = _enlarge(model, way)
            outputs, seconds = _timed_run(model, enlarged)  # the first run takes longer than others
            return Trial(outputs, None, seconds, enlarged)
        except OutOfMemory:
            if way.free_size <= kinds[0].free_size:
                raise
        except ModelError as error:
            failure = failure or str(error)
    return Trial({}, failure, 0.0, kinds[0])


def largest_batch(model: Runnable, trial: Trial, max_rows: int, seconds_left: Callable[[], float]) -> tuple[int, str]:
    """Find how many rows a run takes, from `BATCH` down by halves.

    Args:
        model: the model.
        trial: of one row.
        max_rows: most rows of a run.
        seconds_left: time left for the trial.

    Returns:
        The rows, and why more did not work; empty if no more were wanted.
    """
    rows = min(BATCH, max_rows)
    reason = ""
    if 2 * trial.run_seconds > _TIME_FRACTION * seconds_left():
        return 1, f"a run of one row takes {trial.run_seconds:.1f} s, too long to try several rows together"
    while rows > 1:
        needed = rows * trial.run_seconds
        if needed > _TIME_FRACTION * seconds_left():
            reason = reason or f"{rows} rows together would take about {needed:.0f} s"
        else:
            try:
                _run(model, trial.way, range(rows))
                return rows, reason
            except ModelError as error:
                reason = reason or f"{rows} rows together fail: {error}"
        rows //= 2
    return 1, reason


def find_disagreement(model: Runnable, trial: Trial, max_rows: int, seconds_left: Callable[[], float]) -> str | None:
    """Compare rows that run together with the same rows that run alone.

    Args:
        model: the model.
        trial: of one row.
        max_rows: most rows that a run takes.
        seconds_left: time left for the trial.

    Returns:
        Why rows must not run together; None if they agree.
    """
    rows = min(max_rows, BATCH)
    affordable = seconds_left() * _TIME_FRACTION * 2 / max(trial.run_seconds, 1e-9) - _COMPARISON_ROWS
    while rows > max(2, affordable):
        rows //= 2
    if rows > affordable:
        return f"a run of one row takes {trial.run_seconds:.1f} s, too long to compare rows together and alone"
    alone: dict[int, Mapping[str, Array]] = {}
    for row in (*range(_ROWS), POISON):
        try:
            alone[row] = _run(model, trial.way, [row])
        except OutOfMemory:
            raise
        except ModelError:
            continue  # such as large numbers that become indices
    usual = [row for row in alone if row != POISON]
    if len(usual) < 2:
        return "the model runs on one kind of made-up rows only, so that rows cannot be compared"
    batches = [usual[:2], usual[-2:], [usual[-1], POISON, usual[0]], usual, (usual * rows)[:rows]]
    fitting = [batch for batch in batches if len(batch) <= max_rows and set(batch) <= alone.keys()]
    reasons = (_disagreement_of(model, trial, batch, alone) for batch in fitting)
    return next((reason for reason in reasons if reason is not None), None)


def _disagreement_of(
    model: Runnable, trial: Trial, batch: Sequence[int], alone: Mapping[int, Mapping[str, Array]]
) -> str | None:
    """Why the rows of one batch do not agree with the same rows alone; None if they do."""
    try:
        together = _run(model, trial.way, batch)
    except OutOfMemory:
        raise
    except ModelError as error:
        return f"{len(batch)} rows together fail: {error}"
    for place, row in enumerate(batch):
        for name, values in alone[row].items():
            if together[name].shape[:1] != (len(batch),):
                return f"output {name[:100]!r} has shape {list(together[name].shape)} for {len(batch)} rows"
            if not equal_but_rounding(together[name][place : place + 1], values):
                return f"made-up rows have another output {name[:100]!r} together than alone"
    return None


def _enlarge(model: Runnable, way: MadeUp) -> MadeUp:
    """Raise the integers of one input after the other, such as of token ids beside types that are 0 or 1."""
    for tensor in model.inputs:
        for larger in way.with_larger(model.inputs, tensor.name) if tensor.datatype not in FLOATS else ():
            try:
                _run(model, larger, [0])
            except ModelError:
                continue
            way = larger
            break
    return way


def _timed_run(model: Runnable, way: MadeUp) -> tuple[Mapping[str, Array], float]:
    """Run one row; return the outputs and the seconds."""
    started = time.perf_counter()
    outputs = _run(model, way, [0])
    return outputs, time.perf_counter() - started


def _run(model: Runnable, way: MadeUp, rows: Sequence[int]) -> dict[str, Array]:
    return model.try_run(way.inputs(model.inputs, rows, has_batch_axis=model.has_batch_axis))


def warm_up_batch(model: Runnable, trial: Trial, max_rows: int) -> Mapping[str, Array]:
    """Run a large batch, so that no request pays for its first run; return the outputs.

    Args:
        model: the model.
        trial: of one row.
        max_rows: most rows of a run.
    """
    rows = min(BATCH, max_rows)
    while rows > 1 and rows * trial.run_seconds > WARM_UP_SECONDS:
        rows //= 2
    return trial.outputs if rows < 2 else _run(model, trial.way, range(rows))


def equal_but_rounding(a: Array, b: Array) -> bool:
    """Whether arrays are equal but for rounding, which differs between batch sizes."""
    if a.shape != b.shape:
        return False
    if is_bfloat16(a):
        eps = 2**-7
        a, b = a.astype(np.float32), b.astype(np.float32)
    elif a.dtype.kind == "f":
        eps = float(np.finfo(a.dtype).eps)
    else:
        return bool((a == b).all())
    tolerance = 100 * eps * (1 + float(np.abs(b[np.isfinite(b)]).max(initial=0)))
    return bool(np.allclose(a, b, rtol=100 * eps, atol=tolerance, equal_nan=True))
