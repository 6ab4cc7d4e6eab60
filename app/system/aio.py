"""asyncio helpers: work that runs to completion although its caller is cancelled, and signals in an event loop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine until it has ended, however often the caller is cancelled meanwhile.

    Returns:
        The coroutine's result.

    Raises:
        asyncio.CancelledError: the caller was cancelled; raised only after the coroutine has ended.
    """
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    finally:
        while not working.done():
            with suppress(asyncio.CancelledError):  # further cancellations; the first one is already propagating
                await asyncio.wait([working])


async def run_in_thread_to_completion(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in a thread and await its end, as `run_to_completion` does."""
    return await run_to_completion(asyncio.to_thread(function, *args, **kwargs))


def handle_signal(sig: signal.Signals, callback: Callable[[], object]) -> Callable[[], None]:
    """Call a function in the running event loop whenever this process gets a signal; in the main thread only.

    Returns:
        A function that restores the handler that the signal had before.
    """
    loop = asyncio.get_running_loop()
    before = signal.getsignal(sig) or signal.SIG_DFL  # None: a handler from C, which Python cannot restore
    loop.add_signal_handler(sig, callback)

    def restore() -> None:
        loop.remove_signal_handler(sig)
        signal.signal(sig, before)

    return restore
