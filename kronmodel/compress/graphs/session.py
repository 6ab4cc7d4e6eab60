"""Sessions of onnxruntime that read, check and compare models: one thread, on the CPU, without spinning."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from kronmodel.errors import KronmodelError

__all__ = ["open_session", "release_memory", "run"]


def open_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Open a model in onnxruntime: a file, or its content.

    Raises:
        KronmodelError: onnxruntime refuses the model.
    """
    release_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        raise KronmodelError(f"onnxruntime refuses the model: {_reason(error)}") from error


def run(
    session: onnxruntime.InferenceSession, feeds: Mapping[str, NDArray[Any]], what: str, outputs: Sequence[str] = ()
) -> list[Any]:
    """Run a model, and return its outputs, or those that are named.

    Raises:
        KronmodelError: the run fails.
    """
    try:
        results: list[Any] = session.run(list(outputs) or None, dict(feeds))
    except Exception as error:
        raise KronmodelError(f"{what} fails in onnxruntime on the samples: {_reason(error)}") from error
    return results


def release_memory() -> None:
    """Return the memory of closed sessions and of other large objects to the system, which glibc alone keeps."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reason(error: Exception) -> str:
    """Shorten an error of onnxruntime to one line, without its status and the path of a temporary file."""
    text = " ".join(str(error).split()).split(" : ", 2)[-1]
    return re.sub(r"^(?:[A-Z_]+ : )?(?:Load model from \S+ failed: ?)?", "", text)[:400]
