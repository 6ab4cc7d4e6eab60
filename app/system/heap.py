"""Return freed memory to the system: glibc keeps it in the heap until it is asked to trim it.

The measuring processes use it, so that asyncio, whose memory would be part of a result, is imported where it is used.
"""

import ctypes
import gc
import sys
import time
from typing import NoReturn

M_ARENA_MAX = -8  # of malloc.h
PAUSE_SECONDS = 5.0
IDLE_CPU_FRACTION = 0.02  # an idle service uses less of a CPU than this
POLL_SECONDS = 0.01
COLLECT_SECONDS = 1.0  # after this time, only a reference cycle may still hold an object
WORK_SECONDS = 0.2  # CPU time; less work than this does not grow the heap noticeably


class HeldObject:
    """Reference to a large object, kept so that this module decides when and in which thread it is freed."""

    __slots__ = ("_object",)

    def __init__(self, obj: object) -> None:
        self._object = obj

    @property
    def is_only_reference(self) -> bool:
        """Whether nothing else references the object."""
        return sys.getrefcount(self._object) <= 2  # the argument of the call is the second one


async def free_when_unreferenced(held: list[HeldObject]) -> None:
    """Wait until nothing else references the objects, then free them and trim the heap, in a thread."""
    import asyncio

    started, collected = time.monotonic(), False
    while not all(each.is_only_reference for each in held):
        await asyncio.sleep(POLL_SECONDS)
        if not collected and time.monotonic() - started > COLLECT_SECONDS:
            await asyncio.to_thread(gc.collect)
            collected = True
    await asyncio.to_thread(_free, held)


def _free(held: list[HeldObject]) -> None:
    held.clear()
    trim_heap()


def trim_heap() -> None:
    """Collect reference cycles and have glibc return the heap's free pages to the system; blocks."""
    gc.collect()
    _call_glibc("malloc_trim", 0)


async def trim_heap_when_idle(pause_seconds: float = PAUSE_SECONDS) -> NoReturn:
    """Trim the heap whenever this process becomes idle after work, so that no request has to wait for it.

    Args:
        pause_seconds: the process is idle once it has used almost no CPU for so long.
    """
    import asyncio

    trimmed = before = time.process_time()
    while True:
        await asyncio.sleep(pause_seconds)
        now = time.process_time()
        if now - before < IDLE_CPU_FRACTION * pause_seconds and before - trimmed > WORK_SECONDS:
            await asyncio.to_thread(trim_heap)
            trimmed = now = time.process_time()
        before = now


def share_one_heap() -> None:
    """Have glibc allocate from one heap for all threads: `malloc_trim` cuts the free end off that one only."""
    _call_glibc("mallopt", M_ARENA_MAX, 1)


def _call_glibc(function: str, *arguments: int) -> None:
    """Call a function of glibc; does nothing with musl, on macOS and on Windows, which do not have it."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), function):
        getattr(libc, function)(*arguments)
