"""Where predictions are run: one request, one run, in a thread of the pool."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.engine import Array, Engine
from app.errors import TimedOut
from app.pool import Pool


@dataclass(frozen=True, slots=True)
class Inference:
    """The answer to one request, and what it took; `batch_size` is the rows of the run that it was part of."""

    outputs: Mapping[str, Array]
    queue_ns: int
    compute_ns: int
    batch_size: int


class Scheduler:
    """Runs requests through the pool.

    Args:
        pool: the threads.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def infer(
        self, engine: Engine, feeds: Mapping[str, Array], outputs: Sequence[str], *, timeout: float | None = None
    ) -> Inference:
        """Run `feeds` and give the named outputs.

        Args:
            engine: the model.
            feeds: its inputs.
            outputs: names of outputs.
            timeout: seconds after which the answer is no longer wanted.

        Raises:
            ModelError: onnxruntime failed, or refuses the arrays.
            Overloaded: too much is waiting.
            TimedOut: it was not started in time.
        """
        submitted = time.perf_counter_ns()

        def run() -> Inference:
            start = time.perf_counter_ns()
            if timeout is not None and start - submitted > timeout * 1e9:
                raise TimedOut(f"timeout: not started within {timeout * 1e6:.0f} µs")
            values = engine.run(feeds, outputs)
            rows = len(next(iter(feeds.values()))) if engine.batchable else 1
            return Inference(values, start - submitted, time.perf_counter_ns() - start, rows)

        inference, _ = await self._pool.run(run)
        return inference
