"""Placement of a model's runs on the event loop or in a thread, chosen by measuring both end to end."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from app.errors import ModelError
from app.inference.datatypes import Array
from app.inference.engine import Engine, zeros

ROUNDS = 8
CONCURRENT_REQUESTS = 4  # more than one, so that the measurement includes what threads gain by batching
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
LONG_RUN_NS = 100_000_000  # of which one is enough
MAX_INLINE_RUN_NS = 500_000  # a longer run would block the event loop, even where it is faster than a thread

# Runs feeds in a thread, as requests do, for the named outputs; returns the nanoseconds of the run alone.
RunInThread: TypeAlias = Callable[[Mapping[str, Array], list[str]], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs, as measured by its warm-up.

    Args:
        run_us: a request of one row that runs on the event loop.
        threaded_us: a request of one row that runs in a thread, with hand-over, waiting and batching.
        max_inline_rows: most rows of a request that runs on the event loop; 0 for none.
    """

    run_us: float
    threaded_us: float
    max_inline_rows: int

    def to_dict(self) -> dict[str, float]:
        """The fields as the API names them."""
        return {"run_us": self.run_us, "threaded_us": self.threaded_us, "inline_rows": self.max_inline_rows}


async def measure(engine: Engine, run_in_thread: RunInThread) -> Placement:
    """Time a model on the event loop and in a thread with growing batches, until a run is too long or a thread as fast.

    Only measured sizes run on the event loop: no larger batches, and no models with free axes beside the batch.
    """
    names = [output.name for output in engine.outputs]
    one_row: tuple[float, float] | None = None
    max_inline_rows = 0
    bounded = all(size > 0 for tensor in engine.inputs for size in tensor.shape[engine.has_batch_axis :])
    sizes = BATCH_SIZES if engine.has_batch_axis else BATCH_SIZES[:1]
    for rows in [size for size in sizes if size <= engine.max_run_rows or not engine.batchable]:
        feeds = _zero_inputs(engine, rows)
        try:
            inline_ns, threaded_ns = await _measure_both(engine, feeds, names, run_in_thread)
        except ModelError:  # the model does not accept zeros
            break
        one_row = one_row or (inline_ns, threaded_ns)
        if not bounded or inline_ns > min(threaded_ns, MAX_INLINE_RUN_NS):
            break
        max_inline_rows = rows
    inline_ns, threaded_ns = one_row or (0, 0)
    return Placement(round(inline_ns / 1000, 1), round(threaded_ns / 1000, 1), max_inline_rows)


async def _measure_both(
    engine: Engine, feeds: Mapping[str, Array], names: list[str], run_in_thread: RunInThread
) -> tuple[float, float]:
    """Median nanoseconds of a request on the event loop and of one in a thread."""
    inline: list[float] = []
    threaded: list[float] = []
    run_ns = await run_in_thread(feeds, names)
    if run_ns > LONG_RUN_NS:  # what a thread costs besides is nothing compared with the run
        return run_ns, run_ns
    run_ns = min([run_ns, await run_in_thread(feeds, names), await run_in_thread(feeds, names)])
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        await asyncio.gather(*[run_in_thread(feeds, names) for _ in range(CONCURRENT_REQUESTS)])
        threaded.append((time.perf_counter_ns() - start) / CONCURRENT_REQUESTS)
        if run_ns > MAX_INLINE_RUN_NS:  # too long to be tried on the event loop even once
            return run_ns, statistics.median(threaded)
        start = time.perf_counter_ns()
        for _ in range(CONCURRENT_REQUESTS):
            engine.run(feeds, names)
        inline.append((time.perf_counter_ns() - start) / CONCURRENT_REQUESTS)
    return statistics.median(inline), statistics.median(threaded)


def _zero_inputs(engine: Engine, rows: int) -> Mapping[str, Array]:
    """Inputs of `rows` rows of zeros; other free axes have size 1."""
    feeds = {}
    for tensor in engine.inputs:
        shape = [max(1, size) for size in tensor.shape]
        if engine.has_batch_axis:
            shape[0] = rows
        feeds[tensor.name] = zeros(tensor, shape)
    return feeds
