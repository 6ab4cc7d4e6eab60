"""Compilers of C on this machine: shared libraries of exported networks, the size of their code, and its time."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.export.c.commands import run
from kronmodel.export.c.formats import source_files
from kronmodel.export.c.source import Source

__all__ = ["Measured", "build_library", "find_compiler", "measure"]

SECONDS = 120.0  # of one compilation
ARM = ("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb")
SIZE_FLAGS = ("-std=c99", "-Os", "-ffunction-sections", "-fdata-sections")
RUNS, MAX_SECONDS = 200, 0.5  # of the measured time


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a compiler makes of source code.

    Attributes:
        code_bytes: instructions and small tables, without the weights; None if it could not be measured.
        compiler: that gave this size, and for which processor.
        microseconds: median time of a prediction on this machine; None without a compiler.
        note: why something could not be measured; empty if everything was.
    """

    code_bytes: int | None
    compiler: str
    microseconds: float | None
    note: str


def find_compiler() -> list[str] | None:
    """Find this machine's C compiler: the command in ``$CC``, by default ``cc``; None if it is not on the PATH."""
    command = shlex.split(os.environ.get("CC") or "cc")
    return command if command and shutil.which(command[0]) is not None else None


def build_library(source: Source, about: Mapping[str, Any]) -> bytes:
    """Compile source code to a shared library that ``kronmodel.native.load`` takes, and return its content.

    Args:
        source: the code.
        about: what the library says about itself, besides its sizes.

    Raises:
        ExportError: there is no compiler, or it fails.
    """
    compiler = find_compiler()
    if compiler is None:
        name = os.environ.get("CC") or "cc"
        raise ExportError(f"--shared needs a C compiler: {name!r} is not on the PATH; install gcc or clang, or set CC")
    text = json.dumps({**about, "weight_bytes": source.weight_bytes, "scratch_bytes": source.scratch_bytes})
    octal = "".join(chr(byte) if chr(byte).isalnum() else f"\\{byte:03o}" for byte in text.encode())
    upper = source.name.upper()
    entry = (
        f'#include "{source.name}.h"\n'
        f'const char *kronmodel_describe(void) {{ return "{octal}"; }}\n'
        "int kronmodel_predict(const float *in, float *out, long long rows)\n{\n"
        f"    static _Thread_local {source.name}_scratch scratch;\n"
        "    int failed = 0;\n"
        f"    for (long long i = 0; i < rows; i++)\n"
        f"        failed |= {source.name}_predict_with(in + i * {upper}_INPUTS, out + i * {upper}_OUTPUTS,\n"
        "            &scratch) < 0;\n"
        "    return failed;\n}\n"
    )
    with _folder() as folder:
        _write(source, folder)
        (folder / "library_entry.c").write_text(entry)
        flags = ("-std=gnu11", "-O3", "-fPIC", "-shared", f"-D{upper}_NO_STATIC_SCRATCH")
        built = folder / "library.so"
        files = (f"{folder}/{source.name}.c", f"{folder}/library_entry.c")
        try:
            run([*compiler, *flags, "-march=native", "-o", str(built), *files, "-lm"], SECONDS)
        except ExportError:  # a compiler without that flag; another fault stays
            run([*compiler, *flags, "-o", str(built), *files, "-lm"], SECONDS)
        return built.read_bytes()


def measure(source: Source, inputs: NDArray[np.float32] | None) -> Measured:
    """Measure the size of the code and the time of a prediction; nothing fails if there are no compilers.

    Args:
        source: the code.
        inputs: samples to time, flat; None for zeros.
    """
    compiler = find_compiler()
    arm = shutil.which(ARM[0]) is not None
    size, name, microseconds, notes = None, "", None, []
    try:
        with _folder() as folder:
            _write(source, folder)
            if arm:
                size, name = _linked_size(source, folder), f"Cortex-M0+, {ARM[0]} -Os, with its float routines"
            elif compiler is not None:
                size, name = _object_size(source, folder, compiler), f"this machine, {compiler[0]} -Os"
            if compiler is not None:
                microseconds = _time(source, folder, inputs)
    except ExportError as error:
        notes.append(str(error))
    if compiler is None:
        notes.append("no time was measured: there is no C compiler on this machine; install gcc or clang, or set CC")
    return Measured(
        code_bytes=None if size is None else size - source.weight_bytes,
        compiler=name,
        microseconds=microseconds,
        note="; ".join(notes),
    )


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a temporary folder for a ``with`` block.

    Raises:
        ExportError: the system refuses to write to it.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise ExportError(f"the code can't be compiled: {error.strerror or error}") from error


def _write(source: Source, folder: Path) -> None:
    for name, text in source_files(source).items():
        (folder / name).write_text(text, encoding="utf-8")


def _linked_size(source: Source, folder: Path) -> int:
    """Return the flash of a program for ARM that holds nothing but the network and what that needs of the compiler."""
    program = folder / "linked"
    flags = ("-nostartfiles", "-Wl,--gc-sections", f"-Wl,-e,{source.name}_predict", "-Wl,--no-warn-rwx-segments")
    run([*ARM, *SIZE_FLAGS, *flags, "-o", str(program), str(folder / f"{source.name}.c"), "-lm"], SECONDS)
    return _size(["arm-none-eabi-size", str(program)])


def _object_size(source: Source, folder: Path, compiler: Sequence[str]) -> int:
    compiled = folder / "object.o"
    run([*compiler, *SIZE_FLAGS, "-c", "-o", str(compiled), str(folder / f"{source.name}.c")], SECONDS)
    return _size(["size", str(compiled)])


def _size(command: list[str]) -> int:
    """Return the bytes of code and constants by the command ``size``, whose columns are text, data, bss."""
    text, data, *_ = run(command, SECONDS).splitlines()[-1].split()
    return int(text) + int(data)


def _time(source: Source, folder: Path, inputs: NDArray[np.float32] | None) -> float:
    path = folder / "measured.so"
    path.write_bytes(build_library(source, {}))
    predict = ctypes.CDLL(str(path)).kronmodel_predict
    predict.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_longlong]
    width = _macro(source, "INPUTS")
    rows = np.zeros((1, width), np.float32) if inputs is None else np.ascontiguousarray(inputs.reshape(-1, width)[:32])
    out = np.empty(len(rows) * _macro(source, "OUTPUTS"), np.float32)
    times: list[float] = []
    end = time.perf_counter() + MAX_SECONDS
    while len(times) < RUNS and (time.perf_counter() < end or not times):
        start = time.perf_counter_ns()
        predict(rows.ctypes.data, out.ctypes.data, len(rows))
        times.append((time.perf_counter_ns() - start) / len(rows) / 1000)
    return statistics.median(times)


def _macro(source: Source, name: str) -> int:
    line = next(
        line for line in source.header.splitlines() if line.startswith(f"#define {source.name.upper()}_{name} ")
    )
    return int(line.split()[2])
