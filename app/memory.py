"""Memory that is no longer needed goes back to the system."""

import ctypes
import gc
import sys


def give_back() -> None:
    """Collect what only refers to itself, and have glibc return its free pages; blocking."""
    gc.collect()
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim  # glibc only; musl has none
    except AttributeError:
        return
    trim(ctypes.c_size_t(0))
