"""Where a model runs, on the event loop or in a thread: decided by measuring both."""

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from app.engine import Array, Engine
from app.errors import ModelError
from app.threads import Threads

REPEATS = 25
LARGER_BATCH = 8
SLOW_NS = 2_000_000  # one run of this length, and nothing more needs to be measured
_NUMPY = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool", "BYTES": "object"}


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What warm-up found: medians in µs, and the most rows that are run on the event loop; 0 means none."""

    run_us: float
    handover_us: float
    inline_rows: int


async def measure(engine: Engine, threads: Threads) -> Dispatch:
    """Compare a run of one row with a hand-over to a thread and back.

    A run that takes no longer than the hand-over keeps the event loop no longer than that would, and answers sooner.
    Sizes that were not measured are not guessed: no more than `LARGER_BATCH` rows, and no free axes but the first.
    """
    handover = await _handover(threads)
    run = await _in_thread(threads, engine, 1)
    if run is None:
        return Dispatch(run_us=0, handover_us=handover / 1000, inline_rows=0)
    rows = 0
    if run <= handover and all(size > 0 for tensor in engine.inputs for size in tensor.shape[engine.batchable :]):
        rows = 1
        larger = await _in_thread(threads, engine, LARGER_BATCH) if engine.batchable else None
        if larger is not None:
            each = max(1.0, (larger - run) / (LARGER_BATCH - 1))
            rows = min(LARGER_BATCH, 1 + int((handover - run) / each))
    return Dispatch(run_us=round(run / 1000, 1), handover_us=round(handover / 1000, 1), inline_rows=rows)


async def _handover(threads: Threads) -> float:
    """Median of the time until a thread's answer is back, in ns; the first ones wake everything up."""
    loop = asyncio.get_running_loop()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        back = loop.create_future()
        threads.submit(partial(loop.call_soon_threadsafe, back.set_result, None))
        await back
        taken.append(time.perf_counter_ns() - start)
    return statistics.median(taken[5:])


async def _in_thread(threads: Threads, engine: Engine, rows: int) -> float | None:
    """Median time of a run in ns, or None where zeros are nothing that the model takes."""
    loop = asyncio.get_running_loop()
    back: asyncio.Future[float | None] = loop.create_future()

    def job() -> None:
        try:
            taken = _time_runs(engine, rows)
        except ModelError:
            taken = None
        loop.call_soon_threadsafe(back.set_result, taken)

    threads.submit(job)
    return await back


def _time_runs(engine: Engine, rows: int) -> float:
    feeds = _zeros(engine, rows)
    names = [output.name for output in engine.outputs]
    taken = []
    for repeat in range(REPEATS):
        start = time.perf_counter_ns()
        engine.run(feeds, names)
        taken.append(time.perf_counter_ns() - start)
        if repeat and taken[-1] > SLOW_NS:
            break
    return statistics.median(taken[len(taken) // 5 :])


def _zeros(engine: Engine, rows: int) -> Mapping[str, Array]:
    """Inputs of that many rows; a free axis other than the first has size 1."""
    feeds = {}
    for tensor in engine.inputs:
        shape = [max(1, size) for size in tensor.shape]
        if engine.batchable:
            shape[0] = rows
        dtype = np.dtype(_NUMPY.get(tensor.datatype, tensor.datatype.lower()))
        feeds[tensor.name] = np.full(shape, "", dtype) if dtype.kind == "O" else np.zeros(shape, dtype)
    return feeds
