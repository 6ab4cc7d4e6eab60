"""Damaged and hostile models: one line that says why and exit code 2, or C that compiles; nothing half-written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kronmodel.cli import main as cli
from kronmodel.export.c.network import identifier
from tests.kronmodel.export.c.programs import STRICT
from tests.kronmodel.export.c.test_command import classifier, needs_compiler

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measurements, which take most of the time."""
    monkeypatch.setattr("kronmodel.export.c.toolchain.shutil.which", lambda *_: None)


def refusal(capsys: Any, folder: Path, *arguments: str) -> str:
    """Export; check that it fails with one line and leaves the folder as it was; return the line."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert cli.main(["export", *arguments]) == 2
    text: str = capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "Warning" not in text
    return " ".join(text.split())


def poked(value: float, *, every: bool) -> Change:
    """Set the first weight to a value, or multiply all weights by it."""

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor).copy()
            if values.dtype != np.float32:
                continue
            if every:
                values *= np.float32(value)
            else:
                values.flat[0] = value
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return change


def cut(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"123"


@pytest.mark.parametrize("bits", [[], ["--bits", "8"]], ids=["float", "8"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (poked(np.nan, every=False), "net.onnx: layer 1 has weights that are not finite"),
        (poked(-np.inf, every=False), "net.onnx: layer 1 has weights that are not finite"),
        (cut, "net.onnx holds a damaged graph: buffer size must be a multiple of element size"),
    ],
    ids=["nan", "inf", "cut"],
)
def test_broken_weights(change: Change, message: str, bits: list[str], here: Path, capsys: Any) -> None:
    model = onnx.load(classifier(here))
    change(model)
    onnx.save(model, "net.onnx")
    for form in ("c", "header", "arduino"):
        assert message in refusal(capsys, here, "net.onnx", "--to", form, *bits)


def test_weights_that_are_too_large_for_integers(here: Path, capsys: Any) -> None:
    model = onnx.load(classifier(here))
    poked(1e30, every=True)(model)
    onnx.save(model, "net.onnx")
    assert "too much for integer arithmetic" in refusal(capsys, here, "net.onnx", "--to", "c", "--bits", "8")


@needs_compiler
@pytest.mark.parametrize("factor", [1e30, 1e-42, 0.0])
def test_extreme_weights_compile(factor: float, here: Path) -> None:
    model = onnx.load(classifier(here))
    poked(factor, every=True)(model)
    onnx.save(model, "net.onnx")
    assert cli.main(["export", "net.onnx", "--to", "c"]) == 0
    subprocess.run(["cc", *STRICT, "-c", "net.c"], check=True)


def test_layers_without_outputs(here: Path, capsys: Any) -> None:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 3), ("y", 0))
    ]
    weight = numpy_helper.from_array(np.zeros((3, 0), np.float32), "w")
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [weight])), "net.onnx")
    for form in ("c", "header", "arduino"):
        assert "net.onnx: layer 1 has no weights" in refusal(capsys, here, "net.onnx", "--to", form)


@pytest.mark.parametrize(
    "attributes",
    [{"strides": [0, 1]}, {"strides": [1]}, {"pads": [1, 1]}, {"pads": [-1, 0, 0, 0]}, {"pads": [2**40] * 4}, None],
    ids=str,
)
def test_damaged_convolutions(attributes: dict[str, Any] | None, here: Path, capsys: Any) -> None:
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 3, 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4]),
    ]
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in
               (("w", (2, 1, 3, 3)), ("v", (2, 4)))]  # fmt: skip
    given = ["x"] if attributes is None else ["x", "w"]
    nodes = [
        helper.make_node("Conv", given, ["a"], **(attributes or {})),
        helper.make_node("Flatten", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "v"], ["y"]),
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], weights)), "net.onnx")
    text = refusal(capsys, here, "net.onnx", "--to", "header")
    assert "there is no template for the Conv node" in text or "holds a damaged graph" in text


@pytest.mark.parametrize(
    "content",
    [np.float32(1), np.zeros((3, 12), complex), np.full((3, 12), "a"), np.zeros((3, 11)), np.full((3, 12), np.nan)],
    ids=["scalar", "complex", "text", "shape", "nan"],
)
def test_broken_samples(content: Any, here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)
    classifier(here)
    np.savez("samples.npz", inputs=content)
    assert "samples.npz" in refusal(capsys, here, "net.onnx", "--to", "c", "--bits", "8")
    assert cli.main(["export", "net.onnx", "--to", "c"]) == 0  # floats need none


def test_an_array_in_the_place_of_samples(here: Path, capsys: Any) -> None:
    classifier(here)
    with Path("samples.npz").open("wb") as file:
        np.save(file, np.zeros((3, 12), np.float32))
    assert "samples.npz can't be read" in refusal(capsys, here, "net.onnx", "--to", "c", "--bits", "8")


@needs_compiler
@pytest.mark.parametrize("labels", [5, [1, None, {"a": "b"}], ["\ud800", "b", "c"], {"a": 1}])
def test_strange_cards(labels: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)
    classifier(here, name="\ud800日" * 3000, labels=labels, preprocessing={"x": "*/"})
    assert cli.main(["export", "net.onnx", "--to", "c", "--bits", "8"]) == 0
    subprocess.run(["cc", *STRICT, "-c", "model.c"], check=True)


@pytest.mark.parametrize("name", ["a" * 5000, "a" * 47 + "-b"])
def test_long_names_are_cut(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)
    assert len(identifier(name)) <= 48
    assert not identifier(name).endswith("_")
    classifier(here, name=name)
    assert cli.main(["export", "net.onnx", "--to", "c"]) == 0
    assert (here / f"{identifier(name)}.c").is_file()


@pytest.mark.parametrize("name", ["math", "stdint", "Stddef", "Arduino", "int", "nul"])
def test_names_of_headers_and_devices_are_prefixed(name: str) -> None:
    assert identifier(name) == f"model_{name.lower()}"


def test_paths_that_cannot_be_written(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)
    classifier(here)
    (here / "net.h").mkdir()
    assert "--out net.h can't be written" in refusal(capsys, here, "net.onnx", "--to", "c")
    long = "a" * 300
    assert "File name too long" in refusal(capsys, here, "net.onnx", "--to", "js", "--out", f"{long}.mjs")
    (here / "net.h").rmdir()
    monkeypatch.setattr("kronmodel.cli.exported.write_synced", full)
    text = refusal(capsys, here, "net.onnx", "--to", "c")
    assert text.endswith("--out net.c, net.h can't be written: No space left on device")


def full(path: Path, content: bytes) -> None:
    """Write a half of the content to a full disk."""
    path.write_bytes(content[: len(content) // 2])
    raise OSError(28, "No space left on device")
