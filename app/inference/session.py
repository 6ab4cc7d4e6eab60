"""onnxruntime sessions, opened the same way in the service and in the measuring processes.

Imports onnxruntime only, since the memory of the measuring processes is a result.
"""

import base64
import contextlib
import ctypes
import io
import os
import sys
from functools import cache

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU_ARENA = True
# A graph of one Identity node on float32 [1]: its session shows what any session costs.
EMPTY_MODEL = base64.b64decode(
    "CAg6OwoQCgF4EgF5IghJZGVudGl0eRIFZW1wdHlaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAN"
)

# onnxruntime's exceptions have no common base class.
ORT_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    RuntimeError,
    MemoryError,
    *(
        value
        for value in vars(_state).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == _state.__name__
    ),
)
INVALID_ARGUMENT: type[Exception] = _state.InvalidArgument  # raised for inputs of a wrong type or shape


class DeviceUnavailable(Exception):  # noqa: N818
    """The requested CUDA device is not available."""


def open_session(model: str | bytes, *, device: str, threads: int) -> onnxruntime.InferenceSession:
    """Open a session with every option that affects timing set explicitly.

    Args:
        model: path of an ONNX file, or its bytes.
        device: `auto` for CUDA where it is available and else the CPU, `cpu`, `cuda`, or `cuda:1` for the second GPU.
        threads: intra-op threads, the calling one included.

    Raises:
        DeviceUnavailable: `cuda`, and onnxruntime lacks the provider or could not start it.
        ORT_ERRORS: onnxruntime cannot load the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = CPU_ARENA
    options.log_severity_level = 3
    # Idle sessions must not use CPU time, and two sessions in one process must not slow each other down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    kind, _, device_id = device.partition(":")
    missing = why_no_cuda() if kind != "cpu" else None
    if kind == "cuda" and missing is not None:
        raise DeviceUnavailable(missing)
    providers: list[str | tuple[str, dict[str, str]]] = [CPU]
    load_error = ""
    if kind != "cpu" and missing is None:
        load_error = _load_cuda_libraries()
        # With TF32, rows run in a batch round differently from rows run alone, and from the CPU.
        cuda_options = {"arena_extend_strategy": "kSameAsRequested", "device_id": device_id or "0", "use_tf32": "0"}
        providers.insert(0, (CUDA, cuda_options))

    # onnxruntime's own fallback would print to standard output and hide that CUDA did not start.
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    if kind == "cuda" and session.get_providers()[0] != CUDA:
        raise DeviceUnavailable(f"{CUDA} could not be started{': ' if load_error else ''}{load_error}")
    return session


def tensor_device(session: onnxruntime.InferenceSession) -> tuple[str, int]:
    """The device that holds a session's tensors: `cpu` or `cuda`, and the index of the GPU."""
    if session.get_providers()[0] != CUDA:
        return "cpu", 0
    return "cuda", int(session.get_provider_options()[CUDA].get("device_id", 0))


@cache
def why_no_cuda() -> str | None:
    """The reason why CUDA is not available, found without starting it; None if no reason is found."""
    available = onnxruntime.get_available_providers()
    if CUDA not in available:
        return f"onnxruntime has no {CUDA} here; it has {', '.join(available)}"
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        return f"NVIDIA's driver cannot be loaded: {error}"
    return None


@cache
def _load_cuda_libraries() -> str:
    """Load the CUDA libraries that pip installed, hundreds of megabytes; return the first error, empty for none."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):  # standard output is for reports and JSON
        onnxruntime.preload_dlls()
    return next((line for line in printed.getvalue().splitlines() if line.startswith("Failed to load")), "")


def is_out_of_memory(error: Exception) -> bool:
    """Whether onnxruntime ran out of memory, by the error's text, since there is no exception class for it."""
    return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error) or "bad_alloc" in str(error)


def error_summary(error: Exception) -> str:
    """The first line of an onnxruntime error, with file names instead of paths, which clients must not see."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    words = (os.path.basename(word) if word.startswith(os.sep) else word for word in line.split())  # noqa: PTH119
    return " ".join(words)[:500]
