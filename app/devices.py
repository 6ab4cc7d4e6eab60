"""What models can be measured on here: devices and threads."""

from functools import cache
from typing import Literal

import onnxruntime

from app.cpus import available_cpus
from app.errors import BadRequest
from app.gpu import device_count
from app.session import CUDA

Device = Literal["cpu", "cuda"]


@cache
def devices() -> tuple[Device, ...]:
    """Those that `device` may name: CUDA where onnxruntime has it, unless NVML knows of no GPU."""
    cuda = CUDA in onnxruntime.get_available_providers() and device_count() != 0
    return ("cpu", "cuda") if cuda else ("cpu",)


def check_device(device: Device | None) -> None:
    """Refuse a device that is not here.

    Raises:
        BadRequest: with what was got and what was expected.
    """
    if device is not None and device not in devices():
        found = ", ".join(onnxruntime.get_available_providers())
        raise BadRequest(
            f"device: got {device!r}, expected a device of one of: {', '.join(devices())} (onnxruntime has {found})"
        )


def check_threads(threads: int) -> None:
    """Refuse more threads than there are CPUs: they would only wait for each other.

    Raises:
        BadRequest: with what was got and what was expected.
    """
    if threads > available_cpus():
        raise BadRequest(f"threads: got {threads}, expected at most {available_cpus()}, the CPUs to be had here")
