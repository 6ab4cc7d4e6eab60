"""onnxruntime sessions, opened the same way in the service and in the measuring processes.

Imports onnxruntime only, since the memory of the measuring processes is a result.
"""

import base64
import contextlib
import ctypes
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from app.inference.external_data import ExternalDataError, count_bytes, read_tensors
from app.inference.onnx_file import OnnxFile
from app.system.heap import trim_heap

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU_ARENA = True
_MAX_LINE = 4000
# `file.cc:12 function `, or with the function's full signature.
_SOURCE_PLACE = re.compile(r"\S+\.(?:cc|h):\d+ (?:[^()]*::~?\w+\((?:[^()]|\([^()]*\))*\)(?: const)? |\w+ )")
KEPT_BYTES = 2**20  # of freed memory, which costs more to return to the system than to keep
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


class Session(onnxruntime.InferenceSession):  # type: ignore[misc]  # onnxruntime has no types
    """Session of onnxruntime.

    Attributes:
        class_labels: names of the classes by the name of each output of probabilities that the graph keeps them for.
    """

    class_labels: Mapping[str, Sequence[str]]


def open_session(model: str | bytes, *, device: str, threads: int, profile: str | None = None) -> Session:
    """Open a session with every option that affects timing set explicitly.

    Weights that the file keeps in other files are read into memory, and a classifier that ends in ZipMap has the
    probabilities as its output, a tensor instead of a sequence of maps.

    Args:
        model: path of an ONNX file, or its bytes.
        device: `auto` for CUDA where it is available and else the CPU, `cpu`, `cuda`, or `cuda:1` for the second GPU.
        threads: intra-op threads, the calling one included.
        profile: start of the path of a file that `end_profiling` writes; None: runs are not profiled.

    Raises:
        DeviceUnavailable: `cuda`, and onnxruntime lacks the provider or could not start it.
        ORT_ERRORS: onnxruntime cannot load the model, or its weights in other files cannot be read.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = CPU_ARENA
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
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

    if isinstance(model, str):
        session = _open_file(Path(model), options, providers)
    else:
        session = _create(model, options, providers)
    if kind == "cuda" and session.get_providers()[0] != CUDA:
        raise DeviceUnavailable(f"{CUDA} could not be started{': ' if load_error else ''}{load_error}")
    return session


def _open_file(path: Path, options: onnxruntime.SessionOptions, providers: Sequence[object]) -> Session:
    """Open a session of a file, with its weights in other files and without its last ZipMap.

    Raises:
        ORT_ERRORS: a file cannot be read, or onnxruntime cannot load the model.
    """
    try:
        file = OnnxFile.read(path)
        content = file.content
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if file.folded_weights:  # onnxruntime would else dequantise the weights in every run
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    tensors = [tensor for tensor in file.external if tensor.name not in file.unused]
    if not tensors:
        return _create(content, options, providers, file.class_labels)
    weights = read_tensors(path.parent, tensors)  # must exist until the session is open, which has copies then
    options.add_external_initializers([tensor.name for tensor in tensors], weights)
    session = _create(content, options, providers, file.class_labels)
    weights.clear()
    if sum(map(count_bytes, tensors)) > KEPT_BYTES:
        trim_heap()
    return session


def _create(
    content: str | bytes,
    options: onnxruntime.SessionOptions,
    providers: Sequence[object],
    class_labels: Mapping[str, Sequence[str]] | None = None,
) -> Session:
    # onnxruntime's own fallback would print to standard output and hide that CUDA did not start.
    session = Session(content, options, providers=providers, enable_fallback=0)
    session.class_labels = class_labels or {}
    if isinstance(content, bytes):
        session._model_bytes = b""  # onnxruntime would keep the whole file for its own fallback, which is off
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


def load_refusal(error: Exception) -> str:
    """The reason why a model cannot be loaded, and what to do about it."""
    summary = error_summary(error)
    if isinstance(error, ExternalDataError):
        return summary
    reason = f"onnxruntime refuses it: {summary.rstrip('. ')}"
    if is_out_of_memory(error):
        return reason
    if any(text in summary for text in ("Unsupported model IR version", "under development")):
        return f"{reason}: export the model for an older opset, or update onnxruntime, {onnxruntime.__version__} here"
    return f"{reason}: export the model again"


def is_out_of_memory(error: Exception) -> bool:
    """Whether onnxruntime ran out of memory, by the error's text, since there is no exception class for it."""
    return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error) or "bad_alloc" in str(error)


def error_summary(error: Exception) -> str:
    """The first line of an onnxruntime error, with file names instead of paths, which clients must not see.

    The place in onnxruntime's source is left out, since its C++ signature hides the reason.
    """
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    line = _SOURCE_PLACE.sub("", line[:_MAX_LINE])
    words = (os.path.basename(word) if word.startswith(os.sep) else word for word in line.split())  # noqa: PTH119
    return " ".join(words)[:500]
