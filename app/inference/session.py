"""How this project opens an onnxruntime session, in the service and in the measuring processes alike.

Imports onnxruntime only: what is measured must not carry the service's memory.
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
ARENA = True
# A graph of one Identity node on float32 [1]: what any session costs.
EMPTY_MODEL = base64.b64decode(
    "CAg6OwoQCgF4EgF5IghJZGVudGl0eRIFZW1wdHlaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAN"
)
# The inputs that models may have here, and numpy's names of them.
FLOAT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}

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
INVALID_ARGUMENT: type[Exception] = _state.InvalidArgument  # what it says of inputs that do not fit


class DeviceUnavailable(Exception):  # noqa: N818
    """CUDA was asked for and cannot be had."""


def open_session(model: str | bytes, *, device: str, threads: int) -> onnxruntime.InferenceSession:
    """A session with everything that matters for timing set explicitly.

    Args:
        model: path of a file, or its bytes.
        device: `auto` takes CUDA where onnxruntime can, `cpu`, or `cuda` and nothing else; `cuda:1` is the second GPU.
        threads: threads of one run, the calling one included.

    Raises:
        DeviceUnavailable: `cuda`, and onnxruntime has no such provider, or could not start it.
        ORT_ERRORS: the model is not one that onnxruntime runs.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = ARENA
    options.log_severity_level = 3
    # Idle sessions must not burn CPU, and two sessions in one process must not slow each other down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    kind, _, device_id = device.partition(":")
    missing = cuda_missing() if kind != "cpu" else None
    if kind == "cuda" and missing is not None:
        raise DeviceUnavailable(missing)
    providers: list[str | tuple[str, dict[str, str]]] = [CPU]
    failed = ""
    if kind != "cpu" and missing is None:
        failed = _load_libraries()
        # Without TF32, which rounds so that rows give other than alone when they are run together, and than on the CPU.
        own = {"arena_extend_strategy": "kSameAsRequested", "device_id": device_id or "0", "use_tf32": "0"}
        providers.insert(0, (CUDA, own))

    # Without fallback: onnxruntime's own one prints to standard output and hides what happened.
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    if kind == "cuda" and session.get_providers()[0] != CUDA:
        raise DeviceUnavailable(f"{CUDA} could not be started{': ' if failed else ''}{failed}")
    return session


def where(session: onnxruntime.InferenceSession) -> tuple[str, int]:
    """The device that a session has its tensors on, `cpu` or `cuda`, and which of several."""
    if session.get_providers()[0] != CUDA:
        return "cpu", 0
    return "cuda", int(session.get_provider_options()[CUDA].get("device_id", 0))


@cache
def cuda_missing() -> str | None:
    """Why there is no CUDA here, as far as can be told without starting it; None where there may be."""
    available = onnxruntime.get_available_providers()
    if CUDA not in available:
        return f"onnxruntime has no {CUDA} here; it has {', '.join(available)}"
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        return f"NVIDIA's driver is not to be had: {error}"
    return None


@cache
def _load_libraries() -> str:
    """Load CUDA's libraries, hundreds of megabytes, where pip installed them; the first that cannot be had, if any."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # standard output is for reports and JSON
        onnxruntime.preload_dlls()
    return next((line for line in said.getvalue().splitlines() if line.startswith("Failed to load")), "")


def is_out_of_memory(error: Exception) -> bool:
    """Whether that is what an error of onnxruntime says; there is no class of its own for it."""
    return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error) or "bad_alloc" in str(error)


def why(error: Exception) -> str:
    """The first line of an onnxruntime error without the path of the file, which is nobody's business outside."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    words = (os.path.basename(word) if word.startswith(os.sep) else word for word in line.split())  # noqa: PTH119
    return " ".join(words)[:500]
