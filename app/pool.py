"""The threads that run models: a fixed number, with a bounded queue before them."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.errors import Overloaded

T = TypeVar("T")


class Pool:
    """Runs blocking functions so that the event loop never waits for one.

    Args:
        workers: how many run at the same time.
        queue: how many more may wait.
        queue_seconds: how long one may wait.
    """

    def __init__(self, *, workers: int, queue: int, queue_seconds: float) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="inference")
        self._places = threading.Semaphore(workers + queue)
        self._queue_seconds = queue_seconds

    async def run(self, function: Callable[[], T]) -> tuple[T, float]:
        """The function's result, and the microseconds that it waited for a thread.

        Raises:
            Overloaded: too many wait already, or no thread was free in time.
        """
        if not self._places.acquire(blocking=False):
            raise Overloaded("too many predictions are running or waiting; try again later")
        submitted = time.perf_counter_ns()

        def job() -> tuple[T, float]:
            queue_us = (time.perf_counter_ns() - submitted) / 1000
            return function(), queue_us

        future = self._executor.submit(job)
        # A request that is given up still occupies its thread: the place is free when the job ends, not the waiting.
        future.add_done_callback(lambda _: self._places.release())
        waiter = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait({waiter}, timeout=self._queue_seconds)
            if not done and future.cancel():
                raise Overloaded(f"no thread was free for {self._queue_seconds:g} s; try again later")
            return await waiter
        finally:
            waiter.cancel()

    def close(self) -> None:
        """Drop what waits; what runs ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)
