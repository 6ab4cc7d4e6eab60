"""Work that is not left half-way: whoever has waited for it finds nothing of it going on."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """What it gives; if this is cancelled meanwhile, however often, it is over all the same when this ends."""
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    finally:
        while not working.done():
            with suppress(asyncio.CancelledError):  # again; the first one goes on from here
                await asyncio.wait([working])


async def run_in_thread_to_completion(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in a thread, and be cancelled as `run_to_completion` is."""
    return await run_to_completion(asyncio.to_thread(function, *args, **kwargs))
