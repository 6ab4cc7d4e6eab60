"""Training device, number of CPU threads, and the settings of the C library's allocator."""

from __future__ import annotations

import ctypes
import os
import platform

import torch

from kronmodel.errors import KronmodelError

__all__ = ["keep_freed_memory", "use_device"]


def use_device(device: str, threads: int | None) -> None:
    """Check that a device is there and works, and set the number of CPU threads.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        threads: at least 1; None leaves torch's choice, one for each core that this process may use.

    Raises:
        KronmodelError: the device is not there.
        ValueError: the name or number is not possible.
    """
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device!r}") from None
    if kind.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device!r}")
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise KronmodelError(
            f"device {device} is not there: torch {torch.__version__} sees {torch.cuda.device_count()}"
        )
    if threads is not None:
        limit = os.cpu_count() or 1
        if not 1 <= threads <= limit:
            raise ValueError(f"threads must be between 1 and {limit}, got {threads}")
        torch.set_num_threads(threads)


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
