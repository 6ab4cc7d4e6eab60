"""Devices and numbers of threads that this machine has, and checks of requested ones."""

from functools import cache
from typing import Literal

from app.errors import BadRequest, StartupError
from app.inference.session import (
    EMPTY_MODEL,
    ORT_ERRORS,
    DeviceUnavailable,
    error_summary,
    open_session,
    why_no_cuda,
)
from app.settings import Settings
from app.system.cpus import available_cpus
from app.system.gpu import device_count

Device = Literal["cpu", "cuda"]
_OPEN_ERRORS: tuple[type[Exception], ...] = (DeviceUnavailable, *ORT_ERRORS)


@cache
def available_devices() -> tuple[Device, ...]:
    """Devices of this machine: CUDA only with onnxruntime's provider, the driver, and a GPU that NVML lists."""
    cuda = why_no_cuda() is None and device_count() != 0
    return ("cpu", "cuda") if cuda else ("cpu",)


def check_device(device: Device | None) -> None:
    """Refuse a device that this machine does not have; None is always accepted.

    Raises:
        BadRequest: the message has the device, the available devices and the reason.
    """
    if device is not None and device not in available_devices():
        reason = why_no_cuda() or "NVML lists no GPU"
        raise BadRequest(f"device: got {device!r}, expected one of: {', '.join(available_devices())} ({reason})")


def check_serving_devices(settings: Settings) -> None:
    """Open an empty session on each GPU that the settings name, so that a missing one stops the start; blocking.

    Raises:
        StartupError: the message has the option, the device and onnxruntime's reason.
    """
    for device in sorted(settings.devices - {"auto", "cpu"}):
        try:
            open_session(EMPTY_MODEL, device=device, threads=1)
        except _OPEN_ERRORS as error:
            option = "--device (KRON_DEVICE)" if device == settings.device else "--model-devices (KRON_MODEL_DEVICES)"
            raise StartupError(f"{option}: got {device}, but {error_summary(error)}; use auto or cpu") from None


def check_threads(threads: int) -> None:
    """Refuse more threads than CPUs, since more threads would only slow each other down.

    Raises:
        BadRequest: the message has the requested number and the number of CPUs.
    """
    if threads > available_cpus():
        raise BadRequest(f"threads: got {threads}, expected at most {available_cpus()}, the CPUs available here")
