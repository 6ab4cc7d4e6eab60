"""The C library's allocator, told what training needs of it."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next tensor of that size instead of giving it back to the system.

    A training step allocates and frees the same tensors over and over. By default those above some hundred kilobytes go
    back to the system each time, and every page comes back as a page fault: up to 40 % of a step. Holds for the whole
    process until it ends; what it has used once it keeps.

    Returns:
        Whether it could be set: only where glibc is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_M_MMAP_THRESHOLD, _BYTES), mallopt(_M_TRIM_THRESHOLD, _BYTES)])
