"""Where a model runs, on the event loop or in a thread: decided by measuring both ways from end to end."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from app.errors import ModelError
from app.inference.engine import Array, Engine

ROUNDS = 8
AT_ONCE = 4  # requests at the same time: a little more than one, so that what threads gain by batching counts
SIZES = (1, 2, 4, 8, 16, 32)
LONGEST_RUN_NS = 500_000  # the event loop must not be away for longer, whatever is faster
_NUMPY = {
    "FP16": "float16", "BF16": "bfloat16", "FP32": "float32", "FP64": "float64", "BOOL": "bool", "BYTES": "object",
}  # fmt: skip

# Runs feeds by way of a thread, as requests do; the ns of the run itself.
Threaded: TypeAlias = Callable[[Mapping[str, Array], list[str]], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Placement:
    """What warm-up found for one row, in µs a request; and the most rows that run on the event loop, 0 for none.

    `threaded_us` is what a request takes through a thread, hand-over, waiting and batching included.
    """

    run_us: float
    threaded_us: float
    inline_rows: int


async def measure(engine: Engine, threaded: Threaded) -> Placement:
    """Take both ways in turns with more and more rows, until a run is slow or a thread is as fast.

    Sizes that were not measured are not guessed: no larger ones, and no free axes but the first.
    """
    names = [output.name for output in engine.outputs]
    first: tuple[float, float] | None = None
    inline_rows = 0
    bounded = all(size > 0 for tensor in engine.inputs for size in tensor.shape[engine.batchable :])
    for rows in SIZES if engine.batchable else SIZES[:1]:
        feeds = _zeros(engine, rows)
        try:
            run_ns, threaded_ns = await _both_ways(engine, feeds, names, threaded)
        except ModelError:  # zeros are nothing that it takes
            break
        first = first or (run_ns, threaded_ns)
        if not bounded or run_ns > min(threaded_ns, LONGEST_RUN_NS):
            break
        inline_rows = rows
    run_ns, threaded_ns = first or (0, 0)
    return Placement(round(run_ns / 1000, 1), round(threaded_ns / 1000, 1), inline_rows)


async def _both_ways(
    engine: Engine, feeds: Mapping[str, Array], names: list[str], threaded: Threaded
) -> tuple[float, float]:
    """Medians of a run on the event loop, and of a request through a thread, in ns."""
    inline: list[float] = []
    through: list[float] = []
    run_ns = min([await threaded(feeds, names) for _ in range(3)])
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        await asyncio.gather(*[threaded(feeds, names) for _ in range(AT_ONCE)])
        through.append((time.perf_counter_ns() - start) / AT_ONCE)
        if run_ns > LONGEST_RUN_NS:  # seen from a thread: it must not even be tried on the event loop
            return run_ns, statistics.median(through)
        start = time.perf_counter_ns()
        for _ in range(AT_ONCE):
            engine.run(feeds, names)
        inline.append((time.perf_counter_ns() - start) / AT_ONCE)
    return statistics.median(inline), statistics.median(through)


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
