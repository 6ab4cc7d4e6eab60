"""Memory that is no longer needed goes back to the system."""

import ctypes
import gc
import sys


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
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim  # glibc only; musl has none
    except AttributeError:
        return
    trim(ctypes.c_size_t(0))
