"""C programs around exported networks: inputs from a file, outputs to another one."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.export.c.formats import source_files
from kronmodel.export.c.source import Source

Array = NDArray[Any]
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fsanitize=float-cast-overflow")

MAIN = """
#include <stdint.h>
#include <stdio.h>
#include "{name}.h"

int main(void)
{{
    static float in[{upper}_INPUTS], out[{upper}_OUTPUTS];
    FILE *inputs = fopen("inputs.bin", "rb"), *outputs = fopen("outputs.bin", "wb");
    if (!inputs || !outputs) return 1;
    while (fread(in, sizeof in, 1, inputs) == 1) {{
        const int32_t label = {name}_predict(in, out);
        if (fwrite(&label, sizeof label, 1, outputs) != 1 || fwrite(out, sizeof out, 1, outputs) != 1) return 2;
    }}
    return fclose(outputs) ? 3 : 0;
}}
"""


def write_program(folder: Path, source: Source) -> Path:
    """Write the sources of a program; return its main file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in source_files(source).items():
        (folder / name).write_text(text, encoding="utf-8")
    main = folder / "main.c"
    main.write_text(MAIN.format(name=source.name, upper=source.name.upper()))
    return main


def compile_program(folder: Path, source: Source, command: Sequence[str], libraries: Sequence[str] = ()) -> Path:
    """Compile a program, with all warnings as errors."""
    main = write_program(folder, source)
    program = folder / "program"
    files = [str(folder / f"{source.name}.c"), str(main)]
    libm = ["-lm"] if source.libm else []
    done = subprocess.run(
        [*command, *STRICT, "-o", str(program), *files, *libraries, *libm], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return program


def run_program(command: Sequence[str], folder: Path, x: Array, outputs: int) -> tuple[Array, Array]:
    """Run a program with samples; return labels and outputs."""
    (folder / "inputs.bin").write_bytes(x.reshape(len(x), -1).astype("<f4").tobytes())
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    rows = np.frombuffer((folder / "outputs.bin").read_bytes(), "<f4").reshape(len(x), 1 + outputs)
    return np.ascontiguousarray(rows[:, 0]).view("<i4"), rows[:, 1:]


def predictions(folder: Path, source: Source, x: Array, outputs: int, *flags: str) -> tuple[Array, Array]:
    """Compile a network for this machine with sanitizers, and compute samples."""
    program = compile_program(folder, source, ["cc", "-O1", *SANITIZED, *flags])
    return run_program([str(program)], folder, x, outputs)
