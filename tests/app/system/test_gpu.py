"""GPU memory and number of GPUs, with a fake of NVML's bindings: the tests run on machines without a GPU."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from app.system.gpu import device_bytes, device_count


class NVMLError(Exception):
    """Fake of the bindings' error class."""


def bindings(processes: list[list[tuple[int, int | None]]], *, fails: str = "") -> ModuleType:
    """Fake of `pynvml`: one GPU per list of process ids and bytes; the function named by `fails` raises."""
    module = ModuleType("pynvml")
    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(processes),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetComputeRunningProcesses": lambda index: [
            SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes[index]
        ],
    }

    def failing(*_: object) -> None:
        raise NVMLError

    for name, function in functions.items():
        setattr(module, name, failing if name == fails else function)
    module.NVMLError = NVMLError  # type: ignore[attr-defined]  # `ModuleType` has no such attribute
    return module


@pytest.mark.parametrize(
    ("processes", "fails", "expected"),
    [
        ([[(os.getpid(), 300), (1, 9)], [(os.getpid(), 50)]], "", 350),
        ([[(1, 9)]], "", None),
        ([[(os.getpid(), None)]], "", None),
        ([[(os.getpid(), 300)]], "nvmlInit", None),
        ([[(os.getpid(), 300)]], "nvmlDeviceGetComputeRunningProcesses", None),
    ],
)
def test_this_process_memory_is_summed_over_all_gpus(
    processes: list[list[tuple[int, int | None]]], fails: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", bindings(processes, fails=fails))
    assert device_bytes() == expected


@pytest.mark.parametrize(("fails", "expected"), [("", 2), ("nvmlInit", 0), ("nvmlDeviceGetCount", None)])
def test_the_gpus_are_counted(fails: str, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", bindings([[], []], fails=fails))
    assert device_count() == expected


def test_without_the_bindings_both_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert device_bytes() is None
    assert device_count() is None
