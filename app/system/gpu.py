"""The GPUs and the memory of this process on them, as NVML tells it. Imports no bindings until it is asked."""

import os
from collections.abc import Callable
from typing import Any


def device_bytes() -> int | None:
    """Of all GPUs together, the CUDA context included; None without pynvml, or where NVML does not know this process.

    In a container NVML may count processes by the numbers that they have outside of it.
    """
    return _ask(_own_bytes)


def device_count() -> int | None:
    """How many GPUs there are; None without pynvml. A machine without NVIDIA's driver has none."""
    return _ask(lambda nvml: int(nvml.nvmlDeviceGetCount()), without_driver=0)


def _own_bytes(nvml: Any) -> int | None:
    devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    processes = [process for device in devices for process in nvml.nvmlDeviceGetComputeRunningProcesses(device)]
    own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    known = [size for size in own if size is not None]
    return sum(known) if known else None


def _ask(question: Callable[[Any], int | None], without_driver: int | None = None) -> int | None:
    """What the bindings, started, answer; None without them, or where NVML fails."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return without_driver
    try:
        return question(pynvml)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
