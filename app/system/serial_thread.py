"""A thread for work that would keep the event loop waiting, one piece of work after the other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.errors import Overloaded, TimedOut

P = ParamSpec("P")
T = TypeVar("T")


class SerialThread:
    """A thread that does the work of requests in the order of their arrival.

    More threads would not be faster, since the work needs the interpreter's lock. They would only need more memory, and
    the event loop would wait longer for the lock.

    Args:
        name: of the thread.
        most: pieces of work that wait or run.
        seconds: longest wait for a result.
    """

    def __init__(self, name: str, *, most: int, seconds: float) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._most = most
        self._seconds = seconds
        self._count = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the thread.

        Raises:
            Overloaded: too much work waits, or the thread is closed.
            TimedOut: the result is not there in time. Work that has begun goes on, work that waits is dropped.
        """
        if self._count >= self._most:
            raise Overloaded(f"got {self._count + 1} long requests at the same time, expected at most {self._most}")
        try:
            future = self._executor.submit(function, *args, **kwargs)
        except RuntimeError:
            raise Overloaded("the service is shutting down") from None
        self._count += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise TimedOut(f"no answer within {self._seconds:g} s (KRON_PREDICT_SECONDS)") from None
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # a coroutine runs in a task
                raise
            raise Overloaded("the service is shutting down") from None
        finally:
            self._count -= 1

    def close(self) -> None:
        """Refuse new and waiting work; work that has begun goes on to its end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
