"""Native code as a C program: for ARM, with and without dot products of bytes, in an emulator; and with sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kronmodel.native import build
from kronmodel.native.packing import float_fields, int8_fields
from kronmodel.native.quantize import quantize
from tests.kronmodel.native.arrays import classifier, expected, random_kronecker

ARM = ("aarch64-linux-gnu-gcc", "-static", "-O1"), ("qemu-aarch64",)
HOST = ("cc", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"), ()
TYPES = {"float32": "float", "int8": "int8_t", "uint8": "uint8_t"}

MAIN = """
int main(void)
{
    static char memory[1 << 20] __attribute__((aligned(64)));
    static float y[%(batch)d * %(outputs)d];
    if (kron_int8_offset() != %(offset)d || kron_packed_size(floats, %(count)d) > sizeof memory ||
        kron_int8_packed_size(numbers, %(count)d) > sizeof memory) return 1;
    if (kron_forward(kron_pack(floats, %(count)d, memory), %(batch)d, x, y, NULL, 2)) return 2;
    for (int i = 0; i < %(batch)d * %(outputs)d; i++) printf("%%.9g ", y[i]);
    if (kron_int8_forward(kron_int8_pack(numbers, %(count)d, %(inverse)r, %(zero)r, memory), %(batch)d, x, y)) return 3;
    for (int i = 0; i < %(batch)d * %(outputs)d; i++) printf("%%.9g ", y[i]);
    return 0;
}
"""


class Program:
    """Text of a C program with arrays as constants."""

    def __init__(self) -> None:
        self.text = '#include <stdio.h>\n#include "int8.h"\n#include "kernel.h"\n'
        self._arrays = 0

    def array(self, values: NDArray[Any], name: str) -> str:
        numbers = ", ".join(repr(value) for value in values.ravel().tolist()) or "0"
        self.text += f"static const {TYPES[values.dtype.name]} {name}[] = {{{numbers}}};\n"
        return name

    def structures(self, kind: str, name: str, rows: list[tuple[Any, ...]]) -> None:
        texts = []
        for row in rows:
            cells = []
            for value in row:
                if isinstance(value, np.ndarray):
                    self._arrays += 1
                    cells.append(self.array(value, f"array_{self._arrays}"))
                else:
                    cells.append("0" if value is None else repr(value))
            texts.append(f"{{{', '.join(cells)}}}")
        self.text += f"static const {kind} {name}[] = {{{', '.join(texts)}}};\n"


@pytest.mark.parametrize(
    ("compiler", "emulator", "architecture", "offset"),
    [(*ARM, "armv8-a", 0), (*ARM, "armv8.2-a+dotprod", 128), (*HOST, "native", None)],
    ids=["arm", "arm-dot-products", "sanitizers"],
)
def test_a_program_computes_the_outputs_of_dense_matrices(
    compiler: tuple[str, ...], emulator: tuple[str, ...], architecture: str, offset: int | None, tmp_path: Path
) -> None:
    missing = [command for command in (compiler[0], *emulator) if shutil.which(command) is None]
    if missing:
        pytest.skip(f"needs {missing[0]}")
    if compiler is HOST[0] and not os.environ.get("KRONMODEL_SANITIZERS"):
        pytest.skip("takes a minute: `make test-native`")
    if offset is None:
        library = build.library()
        offset = 0 if library is None else library.kron_int8_offset()
    rng = np.random.default_rng(0)
    layers = [
        random_kronecker(rng, (7, 13), (9, 17), [False, False, True]),
        random_kronecker(rng, (9, 17), (3, 18), [True], inner="tanh", activation="relu"),
        random_kronecker(rng, (3, 18), (2, 5), [False], activation="none"),
    ]
    network, batch = classifier(*layers), 5
    x = rng.normal(size=(batch, 91)).astype(np.float32)
    given, quantized = quantize(network, x, offset)
    program = Program()
    program.array(x, "x")
    program.structures("kron_layer", "floats", [float_fields(layer) for layer in layers])
    program.structures("kron_int8_layer", "numbers", [int8_fields(layer) for layer in quantized])
    program.text += MAIN % {
        "batch": batch, "outputs": 10, "offset": offset, "count": len(layers), "inverse": given.inverse,
        "zero": float(given.zero),
    }  # fmt: skip
    (tmp_path / "main.c").write_text(program.text)
    flags = ["-std=gnu11", "-pthread", f"-march={architecture}", f"-I{build.SOURCES}", "-o", str(tmp_path / "main")]
    sources = [str(tmp_path / "main.c"), *map(str, sorted(build.SOURCES.glob("*.c")))]
    subprocess.run([*compiler, *flags, *sources, "-lm"], check=True)
    done = subprocess.run([*emulator, str(tmp_path / "main")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    floats, numbers = np.array(done.stdout.split(), np.float64).reshape(2, batch, 10)
    logits = expected(network, x)
    assert np.abs(floats - logits).max() <= 1e-5
    error = np.sqrt(np.mean((numbers - logits) ** 2))
    assert 1e-5 < error <= 0.05 * np.sqrt(np.mean(logits**2))
