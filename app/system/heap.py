"""Memory that is no longer needed goes back to the system."""

import asyncio
import ctypes
import gc
import sys
import time
from typing import NoReturn

M_ARENA_MAX = -8  # malloc.h
PAUSE_SECONDS = 5.0
PAUSE_SHARE = 0.02  # of a CPU: what a service with nothing to do takes is less
HELD_POLL_SECONDS = 0.01
COLLECT_SECONDS = 1.0  # after so long it may be that only what refers to itself still holds it
WORK_SECONDS = 0.2  # of CPU: less work than this leaves nothing worth a look


class Held:
    """Something large, held until nobody else holds it, so that it is known when and where it is freed."""

    __slots__ = ("_thing",)

    def __init__(self, thing: object) -> None:
        self._thing = thing

    @property
    def alone(self) -> bool:
        """Whether nobody else holds it; the call itself counts as one."""
        return sys.getrefcount(self._thing) <= 2


async def free(held: list[Held]) -> None:
    """Wait until nobody else holds what is held, and give its memory back."""
    started, collected = time.monotonic(), False
    while not all(each.alone for each in held):
        await asyncio.sleep(HELD_POLL_SECONDS)
        if not collected and time.monotonic() - started > COLLECT_SECONDS:
            await asyncio.to_thread(gc.collect)
            collected = True
    await asyncio.to_thread(trim_heap, held)


def trim_heap(held: list[Held]) -> None:
    """Free what is held, collect what only refers to itself, and have glibc return its free pages; blocking."""
    held.clear()
    gc.collect()
    _glibc("malloc_trim", 0)


async def trim_heap_when_idle(pause_seconds: float = PAUSE_SECONDS) -> NoReturn:
    """Give back what work has left, each time that this process has nothing to do after it: nobody has to wait for it.

    Args:
        pause_seconds: how long a pause is.
    """
    given_back = before = time.process_time()
    while True:
        await asyncio.sleep(pause_seconds)
        now = time.process_time()
        if now - before < PAUSE_SHARE * pause_seconds and before - given_back > WORK_SECONDS:
            await asyncio.to_thread(trim_heap, [])
            given_back = now = time.process_time()
        before = now


def share_one_heap() -> None:
    """Have glibc put what all threads allocate into one heap: `malloc_trim` cuts off the end of that one only."""
    _glibc("mallopt", M_ARENA_MAX, 1)


def _glibc(function: str, *arguments: int) -> None:
    """Call it where there is such a thing; musl, macOS and Windows have none."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), function):
        getattr(libc, function)(*arguments)
