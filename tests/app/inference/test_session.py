"""What is said where CUDA cannot be had, and by which build of onnxruntime."""

import ctypes
from collections.abc import Iterator
from typing import Any

import onnxruntime
import pytest

from app.inference.session import CPU, CUDA, EMPTY_MODEL, DeviceUnavailable, open_session, tensor_device, why_no_cuda


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    why_no_cuda.cache_clear()
    yield
    why_no_cuda.cache_clear()


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="onnxruntime's GPU build is here")
def test_a_build_for_cpus_says_what_it_has() -> None:
    with pytest.raises(DeviceUnavailable, match=f"^onnxruntime has no {CUDA} here; it has .*{CPU}"):
        open_session(EMPTY_MODEL, device="cuda:1", threads=1)
    assert tensor_device(open_session(EMPTY_MODEL, device="auto", threads=1)) == ("cpu", 0)


def test_without_the_driver_no_library_of_cuda_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    def preload(**_: Any) -> None:
        pytest.fail("hundreds of megabytes for nothing")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    monkeypatch.setattr(ctypes, "CDLL", nowhere)
    with pytest.raises(DeviceUnavailable, match=r"^NVIDIA's driver cannot be loaded: libcuda\.so\.1: cannot open"):
        open_session(EMPTY_MODEL, device="cuda", threads=1)
    assert tensor_device(open_session(EMPTY_MODEL, device="auto", threads=1)) == ("cpu", 0)
