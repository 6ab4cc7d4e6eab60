"""Blocking work that is not left half-way: whoever has waited for it finds nothing of it going on."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_the_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in a thread; if this is cancelled meanwhile, however often, it is over all the same when this ends."""
    calling = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(calling)
    finally:
        while not calling.done():
            with suppress(asyncio.CancelledError):  # again; the first one goes on from here
                await asyncio.wait([calling])
