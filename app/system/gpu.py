"""GPUs and this process's memory on them, by NVML. Imports its bindings only when a function is called."""

import os
from collections.abc import Callable
from typing import Any


def device_bytes() -> int | None:
    """Memory of this process on all GPUs together, CUDA context included.

    Returns:
        None without `pynvml`, or if NVML does not list this process: in a container it may list processes by their
        ids outside of the container.
    """
    return _query(_own_bytes)


def device_count() -> int | None:
    """Number of GPUs: 0 without NVIDIA's driver, None without `pynvml`."""
    return _query(lambda nvml: int(nvml.nvmlDeviceGetCount()), without_driver=0)


def _own_bytes(nvml: Any) -> int | None:
    devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    processes = [process for device in devices for process in nvml.nvmlDeviceGetComputeRunningProcesses(device)]
    own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    known = [size for size in own if size is not None]
    return sum(known) if known else None


def _query(function: Callable[[Any], int | None], without_driver: int | None = None) -> int | None:
    """Call a function with the initialized bindings; None without them, or if NVML fails."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return without_driver
    try:
        return function(pynvml)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
