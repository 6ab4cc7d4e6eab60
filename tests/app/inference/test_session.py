"""Errors and fallback of sessions where CUDA is not available."""

import ctypes
from collections.abc import Iterator
from typing import Any

import onnxruntime
import pytest

from app.inference.session import CPU, CUDA, EMPTY_MODEL, DeviceUnavailable, open_session, tensor_device, why_no_cuda


@pytest.fixture(autouse=True)
def _clear_cache() -> Iterator[None]:
    why_no_cuda.cache_clear()
    yield
    why_no_cuda.cache_clear()


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="onnxruntime's GPU build is here")
def test_a_build_without_cuda_names_its_providers() -> None:
    with pytest.raises(DeviceUnavailable, match=f"^onnxruntime has no {CUDA} here; it has .*{CPU}"):
        open_session(EMPTY_MODEL, device="cuda:1", threads=1)
    assert tensor_device(open_session(EMPTY_MODEL, device="auto", threads=1)) == ("cpu", 0)


def test_without_the_driver_no_cuda_libraries_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    def preload(**_: Any) -> None:
        pytest.fail("loaded hundreds of megabytes of libraries that cannot be used")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DeviceUnavailable, match=r"^NVIDIA's driver cannot be loaded: libcuda\.so\.1: cannot open"):
        open_session(EMPTY_MODEL, device="cuda", threads=1)
    assert tensor_device(open_session(EMPTY_MODEL, device="auto", threads=1)) == ("cpu", 0)
