"""The GPUs and the memory of this process on them, as NVML tells it. Imports nothing until it is asked."""

import os


def device_bytes() -> int | None:
    """Of all GPUs together, the CUDA context included; None without pynvml, or where NVML does not know this process.

    In a container NVML may count processes by the numbers that they have outside of it.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        devices = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        processes = [process for device in devices for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device)]
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    known = [size for size in own if size is not None]
    return sum(known) if known else None


def device_count() -> int | None:
    """How many GPUs there are; None without pynvml. A machine without NVIDIA's driver has none."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
