"""Memory that is no longer needed goes back to the system."""

import ctypes
import gc
import sys

M_ARENA_MAX = -8  # malloc.h


class Held:
    """Something large, held until nobody else holds it, so that it is known when and where it is freed."""

    __slots__ = ("_thing",)

    def __init__(self, thing: object) -> None:
        self._thing = thing

    @property
    def alone(self) -> bool:
        """Whether nobody else holds it; the call itself counts as one."""
        return sys.getrefcount(self._thing) <= 2


def give_back(held: list[Held]) -> None:
    """Free what is held, collect what only refers to itself, and have glibc return its free pages; blocking."""
    held.clear()
    gc.collect()
    _glibc("malloc_trim", 0)


def share_one_heap() -> None:
    """Have glibc put what all threads allocate into one heap: `malloc_trim` cuts off the end of that one only."""
    _glibc("mallopt", M_ARENA_MAX, 1)


def _glibc(function: str, *arguments: int) -> None:
    """Call it where there is such a thing; musl, macOS and Windows have none."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), function):
        getattr(libc, function)(*arguments)
