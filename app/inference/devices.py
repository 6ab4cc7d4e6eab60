"""What models can be measured on here: devices and threads."""

from functools import cache
from typing import Literal

from app.errors import BadRequest, StartupError
from app.inference.session import EMPTY_MODEL, ORT_ERRORS, DeviceUnavailable, cuda_missing, open_session, why
from app.settings import Settings
from app.system.cpus import available_cpus
from app.system.gpu import device_count

Device = Literal["cpu", "cuda"]
_REFUSALS: tuple[type[Exception], ...] = (DeviceUnavailable, *ORT_ERRORS)


@cache
def devices() -> tuple[Device, ...]:
    """Those that `device` may name: CUDA where onnxruntime and the driver are there, unless NVML knows of no GPU."""
    cuda = cuda_missing() is None and device_count() != 0
    return ("cpu", "cuda") if cuda else ("cpu",)


def check_device(device: Device | None) -> None:
    """Refuse a device that is not here.

    Raises:
        BadRequest: with what was got and what was expected.
    """
    if device is not None and device not in devices():
        why_not = cuda_missing() or "NVML knows of no GPU"
        raise BadRequest(f"device: got {device!r}, expected one of: {', '.join(devices())} ({why_not})")


def check_serving(settings: Settings) -> None:
    """Refuse to start where models are told to run on what cannot be had; blocking.

    Raises:
        StartupError: with the device and what onnxruntime says of it.
    """
    for device in sorted(settings.devices - {"auto", "cpu"}):
        try:
            open_session(EMPTY_MODEL, device=device, threads=1)
        except _REFUSALS as error:
            where = "--device (KRON_DEVICE)" if device == settings.device else "--model-devices (KRON_MODEL_DEVICES)"
            raise StartupError(f"{where}: got {device}, but {why(error)}; use auto or cpu") from None


def check_threads(threads: int) -> None:
    """Refuse more threads than there are CPUs: they would only wait for each other.

    Raises:
        BadRequest: with what was got and what was expected.
    """
    if threads > available_cpus():
        raise BadRequest(f"threads: got {threads}, expected at most {available_cpus()}, the CPUs to be had here")
