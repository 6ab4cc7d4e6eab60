"""C code of graphs that the templates can't compute, by the generator emx-onnx-cgen (Apache 2.0)."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from kronmodel.errors import ExportError
from kronmodel.export.c.commands import run
from kronmodel.export.c.model import CModel

__all__ = ["GENERATOR", "foreign_source"]

GENERATOR = "emx-onnx-cgen"
SECONDS = 300.0
OPTIONS = ("--large-weight-threshold", "0", "--large-temp-threshold", "0")  # one file, and no malloc


def foreign_source(model: CModel, name: str) -> str:
    """Write the C code of a model by the generator: a function ``name`` of pointers to inputs and outputs, one row.

    Raises:
        ExportError: the generator is not installed, or can't write this graph.
    """
    beside = Path(sys.executable).with_name(GENERATOR)
    command = str(beside) if beside.is_file() else shutil.which(GENERATOR)
    if command is None:
        raise ExportError(f"{model.reason}; such graphs need the generator {GENERATOR}: pip install 'kronmodel[c]'")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{name}.c"
        call = [command, "compile", "--color", "never", *OPTIONS, "--model-name", name]
        try:
            text = run([*call, *_batch(model), str(model.path.absolute()), str(out)], SECONDS)
        except ExportError as error:
            raise ExportError(f"{model.reason}; another generator can't write it either: {error}") from error
        if not out.is_file():
            raise ExportError(f"{model.path}: {GENERATOR} wrote no file: {text.strip()[:300]}")
        return out.read_text(encoding="utf-8")


def _batch(model: CModel) -> list[str]:
    """Return options that fix the names of unknown sizes at 1, of which the first axes of inputs may have some."""
    import onnx

    graph = onnx.load(model.path, format="protobuf", load_external_data=False).graph
    weights = {each.name for each in graph.initializer}
    names = [
        dim.dim_param
        for value in graph.input
        if value.name not in weights
        for dim in list(value.type.tensor_type.shape.dim)[:1]
        if dim.dim_param
    ]
    return [part for name in dict.fromkeys(names) for part in ("--input-dim", f"{name}=1")]
