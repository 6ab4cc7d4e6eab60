"""What the compression of files refuses, in one line and without writing anything."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kronmodel.cli.main import main
from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.target import Target
from kronmodel.errors import KronmodelError
from tests.kronmodel.compress.files.networks import SETTINGS, inputs, network
from tests.kronmodel.compress.graphs.test_rewrite import branches
from tests.kronmodel.compress.onnx_models import make_model, run, save

node = helper.make_node


def relu_only() -> onnx.ModelProto:
    return make_model([node("Relu", ["x"], ["y"])], {}, ["n", 8])


def small_layer() -> onnx.ModelProto:
    return make_model([node("MatMul", ["x", "w"], ["y"], "tiny")], {"w": np.ones((8, 8), np.float32)}, ["n", 8])


def old_opset() -> onnx.ModelProto:
    return network(opset=6, ir=3)


def four_bits() -> onnx.ModelProto:
    """The network with its weights stored in 4 bits, as quantisation-aware training gives them."""
    model = network(opset=21, ir=10)
    kept, new, nodes = [], [], []
    for tensor in model.graph.initializer:
        if not tensor.name.startswith("w"):
            kept.append(tensor)
            continue
        values = numpy_helper.to_array(tensor)
        step = np.float32(np.abs(values).max() / 7)
        stored = {f"{tensor.name}.levels": np.round(values / step).astype(ml_dtypes.int4), f"{tensor.name}.step": step}
        new += [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
        nodes.append(node("DequantizeLinear", list(stored), [tensor.name]))
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept + new)
    model.graph.node.extend(nodes)
    return model


def half() -> onnx.ModelProto:
    """One layer of which input, weights and output are of 16 bits."""
    weights = {"w": np.ones((64, 64), np.float16)}
    return make_model([node("MatMul", ["x", "w"], ["y"])], weights, ["n", 64], kind=TensorProto.FLOAT16)


def refused() -> onnx.ModelProto:
    model = network()
    model.graph.node[1].op_type = "Unknown"
    return model


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            relu_only,
            ["--target-ratio", "2"],
            "has no Gemm, MatMul or Conv with constant weights, so there is nothing to",
        ),
        (small_layer, ["--target-ratio", "2"], "MatMul 'tiny': 64 weights, too few to save anything"),
        (old_opset, ["--target-ratio", "2"], "has opset 6, expected at least 7: onnx.version_converter"),
        (refused, ["--target-ratio", "2"], "onnxruntime refuses the model: This is an invalid model."),
        (network, ["--target-ratio", "1e9"], "1 bytes can't be reached: the smallest file has about"),
        (network, ["--max-bytes", "900"], "900 bytes can't be reached: the smallest file has about"),
        (
            four_bits,
            ["--max-bytes", "2000"],
            "; its weights are quantised already, and new ones are stored as floats: ",
        ),
        (network, ["--target-ratio", "0.5"], "--target-ratio must be greater than 1, got 0.5"),
        (network, ["--max-drop", "-1"], "--max-drop must be from 0 to 100, got -1.0"),
        (network, ["--max-drop", "1"], "--max-drop needs samples to measure the loss on: give --data"),
        (network, [], "--target-ratio, --max-bytes, --max-drop or --quantize is needed"),
        (network, ["--quantize", "int8-static"], "int8-static needs samples for the scales of the activations"),
        (network, ["--quantize", "int4"], "onnxruntime's tool for int4 finds nothing to change in this model"),
        (network, ["--target-ratio", "2", "--data", "nothing"], "no data set named 'nothing'; expected one of"),
        (network, ["--target-ratio", "2", "--data", "digits8.npz"], "digits8.npz"),
        (
            network,
            ["--target-ratio", "2", "--data", "other.npz"],
            "other.npz holds pixels; expected x, the model's input, or with labels x, y or x_train, y_train, x_test",
        ),
        (branches, ["--target-ratio", "2", "--data", "other.npz"], "holds pixels; expected an array for each input of"),
        (network, ["--target-ratio", "2", "--structures", "sparse"], "--structures must be some of"),
        (network, ["--target-ratio", "2", "--samples", "0"], "--samples must be at least 1, got 0"),
        (network, ["--target-ratio", "2", "--name", "a b"], "a model's name must be"),
        (network, ["--target-ratio", "2", "--distill"], "--distill needs samples: give --data"),
        (network, ["--quantize", "int8", "--distill"], "--distill needs a size or quality to reach"),
        (network, ["--target-ratio", "2", "--distill", "0"], "--distill must be at least 1 epoch, got 0"),
        (network, ["--target-ratio", "2", "--shift", "1"], "--shift is for --distill"),
        (network, ["--target-ratio", "2", "--resume"], "--resume is for --distill"),
        (
            network,
            ["--target-ratio", "2", "--data", "rows.npz", "--distill", "--shift", "1"],
            "--shift is for images, but the data are none",
        ),
        (
            half,
            ["--target-ratio", "2", "--data", "rows.npz", "--distill"],
            "--distill is not possible: the model's output is of float16, expected float32",
        ),
        (
            lambda: network(batch=4),
            ["--target-ratio", "2", "--data", "rows.npz", "--distill"],
            "--distill is not possible: the model takes no batches of any number of samples",
        ),
    ],
)
def test_refusals_are_one_line_and_write_nothing(
    make: Any, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = save(make(), tmp_path), tmp_path / "models"
    np.savez(tmp_path / "digits8.npz", x=np.ones((20, 65)), y=np.arange(20) % 2)
    np.savez(tmp_path / "other.npz", pixels=inputs(80))
    np.savez(tmp_path / "rows.npz", x=inputs(80), y=np.arange(80) % 10)
    arguments = [str(tmp_path / each) if each.endswith(".npz") else each for each in options]
    assert main(["compress", str(path), *arguments, "--allow-slower", "--out", str(out)]) == 2
    printed = capsys.readouterr()
    (line,) = [each for each in printed.err.splitlines() if "error" in each]
    assert message in line
    assert not printed.out
    assert not out.exists() or not list(out.iterdir())


def test_weights_of_four_bits_are_compressed_where_that_saves_bytes(tmp_path: Path) -> None:
    path = save(four_bits(), tmp_path)
    np.savez(tmp_path / "rows.npz", x=inputs(400))
    report = compress_file(
        path, Target(ratio=1.3), data=str(tmp_path / "rows.npz"), out=tmp_path / "models", settings=SETTINGS
    )
    sizes = {row.variant: row.bytes for row in report.variants}
    assert (sizes["compressed"] or 0) * 1.3 <= path.stat().st_size
    assert any(row.structure.startswith("low-rank") for row in report.layers)
    rows = inputs(400)[:32]
    assert np.corrcoef(run(path, x=rows)[0].ravel(), run(report.path, x=rows)[0].ravel())[0, 1] > 0.7


def test_a_file_that_is_not_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"not onnx at all", b"\x08\x08"):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        assert main(["compress", str(path), "--target-ratio", "2", "--out", str(tmp_path / "models")]) == 2
        assert "is not an ONNX file" in capsys.readouterr().err
    assert main(["compress", str(tmp_path / "none.onnx"), "--target-ratio", "2"]) == 2
    assert "none.onnx can't be read: No such file" in capsys.readouterr().err


def test_samples_that_do_not_fit_the_model(tmp_path: Path) -> None:
    path = save(network(), tmp_path)
    np.savez(tmp_path / "wide.npz", x=np.ones((40, 65), np.float32))
    with pytest.raises(
        KronmodelError, match=r"x has the shape \(40, 65\), expected the model's input x float32 \(\?, 64\)"
    ):
        compress_file(path, Target(ratio=2), data=str(tmp_path / "wide.npz"), out=tmp_path / "models")


def test_a_result_that_onnxruntime_refuses_is_not_published(tmp_path: Path) -> None:
    from kronmodel.compress.files.checks import check_model
    from kronmodel.errors import ExportError

    before = network()
    path = save(before, tmp_path, "before.onnx")
    broken = network()
    broken.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((3, 3), np.float32), "w0"))
    with pytest.raises(ExportError, match=r"the result is not valid ONNX|onnxruntime refuses"):
        check_model(save(broken, tmp_path, "broken.onnx"), path, before)
    fixed = network(batch=1)
    with pytest.raises(
        ExportError, match=r"the result has the inputs x FLOAT \[1, 64\], expected x FLOAT \[batch, 64\]"
    ):
        check_model(save(fixed, tmp_path, "fixed.onnx"), path, before)
    moved = network(opset=18)
    with pytest.raises(ExportError, match=r"the result has the opsets \{'': 18\}, expected \{'': 17\}"):
        check_model(save(moved, tmp_path, "moved.onnx"), path, before)
    check_model(path, path, before)
