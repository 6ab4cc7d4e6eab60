"""Training device, number of CPU threads, random seeds, and settings of the C library's allocator."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kronmodel.errors import KronmodelError

__all__ = ["check_device", "cpu_threads", "keep_freed_memory", "seeded"]


def check_device(device: str) -> None:
    """Check that a training device is available on this machine.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        KronmodelError: the device is not available.
        ValueError: the name is invalid.
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


@contextmanager
def cpu_threads(threads: int | None) -> Iterator[None]:
    """Set the number of torch's CPU threads for a ``with`` block, and restore the former number afterwards.

    Args:
        threads: at least 1; None keeps torch's default, one for each core that this process may use.

    Raises:
        ValueError: the number is out of range.
    """
    limit = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= limit:
        raise ValueError(f"threads must be between 1 and {limit}, got {threads}")
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed torch's global random generators for a ``with`` block, and restore their former states afterwards.

    Args:
        seed: seed of the generators of the CPU and of CUDA devices.
        device: the CUDA device whose generator is restored too, if it is one.
    """
    kind = torch.device(device)
    devices = [] if kind.type != "cuda" else [torch.cuda.current_device() if kind.index is None else kind.index]
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Configure glibc's malloc to keep freed memory for reuse instead of returning it to the operating system.

    Every training step allocates and frees tensors of the same sizes. By default glibc returns those above some hundred
    kilobytes to the system each time, and page faults on the next allocation take up to 40 % of a step. The setting
    lasts until the process ends, and the process keeps its peak memory.

    Returns:
        Whether the setting was applied; False without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_M_MMAP_THRESHOLD, _BYTES), mallopt(_M_TRIM_THRESHOLD, _BYTES)])
