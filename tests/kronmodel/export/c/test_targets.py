"""C code under the strict warnings of several compilers, and run for ARM and RISC-V in emulators.

Without ``KRONMODEL_C_TARGETS=1`` (`make test-c`), only what this machine has; with it, a missing tool is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kronmodel.export.c.formats import write_source
from kronmodel.export.c.model import CModel
from kronmodel.export.c.source import Source
from kronmodel.export.c.toolchain import measure
from tests.kronmodel.export.c.graphs import Graph, random_graph
from tests.kronmodel.export.c.programs import STRICT, compile_program, run_program, write_program

ALL = bool(os.environ.get("KRONMODEL_C_TARGETS"))
SEEDS = (0, 1, 2, 3, 6)  # convolutions; left, right and mixed orders; relu, gelu and tanh; a regression
HOST = ["cc", "-O1"]

# Startup code of a Cortex-M: the vector table, then main. newlib's semihosting reads and writes the files.
STARTUP = """
extern int main(void);
extern void exit(int);
extern void initialise_monitor_handles(void);
extern char stack_top[];
extern char data_from[], data_start[], data_end[], __bss_start__[], __bss_end__[];
void reset(void);
void reset(void)
{
    for (char *from = data_from, *to = data_start; to < data_end;) *to++ = *from++;
    for (char *to = __bss_start__; to < __bss_end__;) *to++ = 0;
    initialise_monitor_handles();
    exit(main());
}
static void fault(void) { exit(9); }
__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {
    (void (*)(void))stack_top, reset, fault, fault, fault, fault, fault,
};
"""
SCRIPT = """
MEMORY {{ flash (rx) : ORIGIN = 0, LENGTH = {flash}K  ram (rwx) : ORIGIN = 0x20000000, LENGTH = {ram}K }}
ENTRY(reset)
SECTIONS {{
    .text : {{ KEEP(*(.vectors)) *(.text*) *(.rodata*) }} > flash
    .ARM.exidx : {{ *(.ARM.exidx*) }} > flash
    data_from = LOADADDR(.data);
    .data : {{ data_start = .; *(.data*) . = ALIGN(4); data_end = .; }} > ram AT> flash
    .bss : {{ __bss_start__ = .; *(.bss*) *(COMMON) . = ALIGN(4); __bss_end__ = .; }} > ram
    end = .; _end = .;
    stack_top = ORIGIN(ram) + LENGTH(ram);
}}
"""
MICROBIT = ("cortex-m0", "microbit", 256, 16)  # 16 kB of memory, as the real board
MPS2 = ("cortex-m4", "mps2-an386", 4096, 4096)


def needs(*commands: str) -> None:
    missing = [command for command in commands if shutil.which(command) is None]
    if missing and ALL:
        pytest.fail(f"needs {missing[0]}, which is not installed")
    if missing:
        pytest.skip(f"needs {missing[0]}")


def sources(seed: int, folder: Path) -> tuple[dict[str, Source], np.ndarray, int]:
    """Return a random network in floats, with 8 and with 4 bits; samples; and its number of outputs."""
    graph, shape = random_graph(seed)
    path = graph.save(folder / "net.onnx", shape)
    x = np.random.default_rng(seed).normal(0, 1, (30, *shape)).astype(np.float32)
    np.savez(folder / "samples.npz", inputs=x)
    model = CModel.read(path)
    floats = write_source(model, "net", None, libm=False)
    return {"float": floats, "8": write_source(model, "net", 8), "4": write_source(model, "net", 4)}, x, graph.shape[0]


@pytest.mark.parametrize(
    "command",
    [
        ["gcc"],
        ["clang"],
        ["arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb"],
        ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
        ["riscv64-unknown-elf-gcc", "-march=rv32imc", "-mabi=ilp32", "-ffreestanding"],
        ["riscv64-linux-gnu-gcc"],
    ],
    ids=lambda command: f"{command[0]}-{command[1].lstrip('-') if command[1:] else ''}",
)
def test_no_compiler_warns(command: list[str], tmp_path: Path) -> None:
    needs(command[0])
    for seed in SEEDS if ALL else SEEDS[:2]:
        for kind, source in sources(seed, tmp_path)[0].items():
            write_program(tmp_path / kind, source)
            for level in ("-O2", "-Os"):
                compiled = [*command, *STRICT, level, "-c", "-o", "net.o", "net.c"]
                done = subprocess.run(compiled, cwd=tmp_path / kind, capture_output=True, text=True, check=False)
                assert (done.returncode, done.stderr) == (0, ""), (seed, kind)


def bare_metal(folder: Path, source: Source, cpu: str, flash: int, ram: int) -> Path:
    """Compile a program for a Cortex-M without an operating system; it fails if it doesn't fit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "startup.c").write_text(STARTUP)
    (folder / "link.ld").write_text(SCRIPT.format(flash=flash, ram=ram))
    startup = folder / "startup.o"
    target = ["arm-none-eabi-gcc", f"-mcpu={cpu}", "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections"]
    subprocess.run([*target, "-c", "-o", str(startup), str(folder / "startup.c")], check=True)
    libraries = ["--specs=nano.specs", "--specs=rdimon.specs", "-nostartfiles", "-Wl,--gc-sections",
                 "-Wl,--no-warn-rwx-segments", f"-Wl,-T,{folder / 'link.ld'}", str(startup)]  # fmt: skip
    return compile_program(folder, source, target, libraries)


def machine_command(machine: str, program: Path) -> list[str]:
    return ["qemu-system-arm", "-M", machine, "-nographic", "-semihosting-config", "enable=on,target=native",
            "-kernel", str(program)]  # fmt: skip


@pytest.mark.skipif(not ALL, reason="takes a minute: `make test-c`")
@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "arm-linux", "riscv64"])
@pytest.mark.parametrize("seed", SEEDS)
def test_emulated_processors_give_the_numbers_of_this_machine(target: str, seed: int, tmp_path: Path) -> None:
    made, x, outputs = sources(seed, tmp_path)
    for kind, source in made.items():
        here = run_program([str(compile_program(tmp_path / "here", source, HOST))], tmp_path / "here", x, outputs)
        folder = tmp_path / kind
        there = run_program(emulated(target, folder, source), folder, x, outputs)
        np.testing.assert_array_equal(here[0], there[0], str((kind, target)))
        # Integers are the same everywhere; floats may be contracted to fused multiply-adds.
        np.testing.assert_allclose(here[1], there[1], rtol=0 if kind != "float" else 1e-5, atol=1e-6)


def emulated(target: str, folder: Path, source: Source) -> Sequence[str]:
    """Compile a program for a target; return the command that runs it."""
    if target.startswith("cortex"):
        cpu, machine, flash, ram = MICROBIT if target == "cortex-m0" else MPS2
        needs("arm-none-eabi-gcc", "qemu-system-arm")
        return machine_command(machine, bare_metal(folder, source, cpu, flash, ram))
    if target == "arm-linux":
        needs("arm-linux-gnueabi-gcc", "qemu-arm")
        return ["qemu-arm", str(compile_program(folder, source, ["arm-linux-gnueabi-gcc", "-static", "-O2"]))]
    needs("riscv64-linux-gnu-gcc", "qemu-riscv64")
    return ["qemu-riscv64", str(compile_program(folder, source, ["riscv64-linux-gnu-gcc", "-static", "-O2"]))]


@pytest.mark.parametrize(
    ("hidden", "ranks", "bits", "flash", "memory"),
    [((28, 28), (2, 2, 2), 8, 16_000, 2000), ((40, 40), (2, 2, 8), 4, 16_000, 4000)],
    ids=["default", "accurate"],
)
def test_flash_and_memory_of_the_recipes(
    hidden: tuple[int, int], ranks: Sequence[int], bits: int, flash: int, memory: int, tmp_path: Path
) -> None:
    needs("arm-none-eabi-gcc")
    graph = Graph(np.random.default_rng(1), 784)
    sizes = [(28, 28), hidden, hidden, (2, 5)]
    for index, rank in enumerate(ranks):
        outer = "none" if index == len(ranks) - 1 else "gelu"
        graph.kronecker(sizes[index], sizes[index + 1], [False] * rank, "gelu", outer)
    graph.classify()
    path = graph.save(tmp_path / "net.onnx", (784,))
    np.savez(tmp_path / "samples.npz", inputs=np.random.default_rng(2).random((20, 784), np.float32))
    source = write_source(CModel.read(path), "net", bits)
    found = measure(source, None)
    assert found.code_bytes is not None, found.note
    assert found.compiler.startswith("Cortex-M0+")
    assert source.weight_bytes + found.code_bytes <= flash
    assert source.scratch_bytes <= memory
