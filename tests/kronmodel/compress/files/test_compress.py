"""Compression of whole files, as `kronmodel compress` does it: the results, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.models.card import Card
from kronmodel.cli.main import main
from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.target import Settings, Target
from kronmodel.errors import KronmodelError
from kronmodel.export.card import CARD_KEY
from tests.kronmodel.compress.graphs.test_rewrite import branches
from tests.kronmodel.compress.onnx_models import Array, make_model, run, save

SIZES = (64, 96, 80, 10)
SETTINGS = Settings(
    allow_slower=True, structures=("low-rank",), seconds=0.05
)  # times of tiny layers vary with the load
node = helper.make_node


def weights_of(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for place, (width, out) in enumerate(pairwise(SIZES)):
        weights[f"w{place}"] = (rng.standard_normal((width, out)) * (2 / width) ** 0.5).astype(np.float32)
        weights[f"b{place}"] = (rng.standard_normal(out) / 5).astype(np.float32)
    return weights


def network(kind: str = "Gemm", *, batch: int | str = "batch", opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    """A classifier with two hidden layers, of Gemm nodes, or of MatMul and Add nodes."""
    nodes, value = [], "x"
    for place in range(3):
        if kind == "Gemm":
            nodes.append(node("Gemm", [value, f"w{place}", f"b{place}"], [f"a{place}"], f"layer{place}"))
        else:
            nodes.append(node("MatMul", [value, f"w{place}"], [f"m{place}"], f"layer{place}"))
            nodes.append(node("Add", [f"m{place}", f"b{place}"], [f"a{place}"], f"bias{place}"))
        value = f"a{place}"
        if place < 2:
            nodes.append(node("Relu", [value], [f"r{place}"], f"relu{place}"))
            value = f"r{place}"
    nodes[-1].output[0] = "y"
    return make_model(nodes, weights_of(), [batch, SIZES[0]], opset=opset, ir=ir)


def inputs(count: int = 700) -> Array:
    """Samples near a subspace, as real ones are."""
    rng = np.random.default_rng(3)
    hidden = rng.standard_normal((count, 8)) @ rng.standard_normal((8, SIZES[0])) / 3
    samples: Array = (hidden + 0.03 * rng.standard_normal((count, SIZES[0]))).astype(np.float32)
    return samples


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Samples with the network's own decisions as labels."""
    x = inputs()
    path = tmp_path / "data.npz"
    np.savez(path, x=x, y=run(network(), x=x)[0].argmax(1))
    return path


def card_of(path: Path) -> dict[str, Any]:
    model = onnx.load(path, load_external_data=False)
    (text,) = (entry.value for entry in model.metadata_props if entry.key == CARD_KEY)
    card: dict[str, Any] = json.loads(text)
    return card


def test_the_compressed_model_is_published_beside_its_original(tmp_path: Path, data: Path) -> None:
    path, out = save(network(), tmp_path, "toy.onnx"), tmp_path / "models"
    before = path.read_bytes()
    report = compress_file(path, Target(ratio=3), data=str(data), out=out, settings=SETTINGS)
    assert path.read_bytes() == before
    assert report.path == out / "toy-compressed/1/model.onnx"
    assert report.original == out / "toy/1/model.onnx"
    assert report.original.read_bytes().startswith(before)  # with the card behind it
    original, compressed = onnx.load(report.original), onnx.load(report.path)
    assert original.graph == onnx.load(path).graph
    assert report.path.stat().st_size <= len(before) / 3 + 3000  # the card
    assert compressed.graph.input == original.graph.input
    assert compressed.graph.output == original.graph.output
    assert compressed.opset_import == original.opset_import
    variants = {row.variant: row for row in report.variants}
    assert list(variants) == ["original", "int8", "compressed", "compressed + int8"]
    scores = variants["compressed"].scores
    assert scores is not None
    assert scores.accuracy is not None
    assert scores.accuracy > 0.7
    assert variants["compressed"].bytes == pytest.approx(len(before) / 3, rel=0.1)
    assert set(variants["original"].times) == {1, 32}
    # The scores are those of the published file.
    x = inputs()
    held = np.load(data)["y"]
    agreement = (run(report.path, x=x)[0].argmax(1) == held).mean()
    assert scores.accuracy == pytest.approx(agreement, abs=0.1)
    cards = [card_of(each) for each in (report.original, report.path)]
    assert [card["role"] for card in cards] == ["original", "compressed"]
    assert cards[0]["twin"] == cards[1]["twin"] == "toy"
    assert cards[1]["test_metric"]["value"] == scores.accuracy
    for card in cards:
        parsed = Card.parse(json.dumps(card), "toy")
        assert parsed is not None
        assert parsed.role == card["role"]
    assert not list(out.glob(".*"))


def test_tuning_all_layers_together_lowers_the_error_and_keeps_the_size(tmp_path: Path, data: Path) -> None:
    path = save(network(), tmp_path)
    found = {}
    for steps in (0, 200):
        settings = replace(SETTINGS, structures=("low-rank", "kronecker", "monarch"), tune_steps=steps)
        report = compress_file(
            path, Target(ratio=5), data=str(data), out=tmp_path / f"models-{steps}", settings=settings
        )
        row = next(each for each in report.variants if each.variant == "compressed")
        assert row.scores is not None
        assert row.bytes is not None
        assert row.bytes <= path.stat().st_size / 5
        found[steps] = row.scores.relative_error
    assert found[200] < 0.9 * found[0]


def test_distillation_without_labels_brings_the_outputs_nearer(tmp_path: Path) -> None:
    path, x = save(network("MatMul"), tmp_path), inputs(3000)
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=x)  # for the input named x, without labels
    errors = []
    for epochs in (0, 8):
        settings = replace(SETTINGS, tune_steps=0)
        report = compress_file(
            path,
            Target(ratio=6),
            data=str(rows),
            samples=2000,
            distill=epochs,
            out=tmp_path / f"models-{epochs}",
            settings=settings,
        )
        scores = next(each.scores for each in report.variants if each.variant == "compressed")
        assert scores is not None
        assert scores.agreement is not None
        errors.append(1 - scores.agreement)
    assert errors[1] < 0.9 * errors[0]


def test_gemm_and_matmul_with_add_give_the_same(tmp_path: Path, data: Path) -> None:
    x = inputs()[:50]
    results = []
    for kind in ("Gemm", "MatMul"):
        path = save(network(kind), tmp_path, f"{kind}.onnx")
        report = compress_file(
            path, Target(max_bytes=30_000), data=str(data), out=tmp_path / "models", settings=SETTINGS
        )
        results.append(([(row.structure, row.bytes) for row in report.layers], run(report.path, x=x)[0]))
    assert results[0][0] == results[1][0]
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-3)


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (13, 7), (24, 13)])
def test_opset_and_fixed_batch_stay(opset: int, ir: int, tmp_path: Path, data: Path) -> None:
    path = save(network(batch=4, opset=opset, ir=ir), tmp_path)
    report = compress_file(path, Target(ratio=2), data=str(data), out=tmp_path / "models", settings=SETTINGS)
    model = onnx.load(report.path)
    assert [entry.version for entry in model.opset_import] == [opset]
    assert model.ir_version == ir
    assert run(model, x=inputs()[:4])[0].shape == (4, 10)
    assert set(report.variants[0].times) == {4}


def test_a_branch_that_no_sample_takes_is_left_alone(tmp_path: Path) -> None:
    path = save(branches(), tmp_path)
    x = np.random.default_rng(0).standard_normal((90, 84)).astype(np.float32)
    np.savez(tmp_path / "then.npz", x=x, flag=np.array(True))
    data, out = str(tmp_path / "then.npz"), tmp_path / "models"
    report = compress_file(path, Target(ratio=1.3), data=data, out=out, settings=SETTINGS)
    rows = {row.layer: row for row in report.layers}
    assert rows["MatMul 'else layer'"].reason == "no sample reaches it"
    assert any(row.structure.startswith("low-rank") for row in rows.values())
    for original, compressed in zip(
        *(run(each, x=x[:9], flag=np.array(False)) for each in (path, report.path)), strict=True
    ):
        assert original.shape == compressed.shape
    np.testing.assert_array_equal(*(run(each, x=x[:9], flag=np.array(False))[0] for each in (path, report.path)))


def test_weights_alone(tmp_path: Path) -> None:
    report = compress_file(save(network(), tmp_path), Target(ratio=1.5), out=tmp_path / "models", settings=SETTINGS)
    assert report.fitted_to == "no samples"
    assert report.messages == ["without samples, layers are fitted to their weights alone, which costs much accuracy"]
    assert report.variants[2].scores is None
    assert report.variants[2].times


def test_external_weights_become_one_file(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    out = tmp_path / "models"
    report = compress_file(path, Target(ratio=2), data=str(data), out=out, settings=SETTINGS)
    assert sorted(each.name for each in report.path.parent.iterdir()) == ["model.onnx", "samples.npz"]
    assert sorted(each.name for each in report.original.parent.iterdir()) == [
        "model.onnx",
        "samples.npz",
        "weights.bin",
    ]
    assert report.variants[0].bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    np.testing.assert_array_equal(run(report.original, x=inputs()[:5])[0], run(network(), x=inputs()[:5])[0])


def test_weights_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    onnx.save(network(), inner / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=100)
    content = (inner / "model.onnx").read_bytes().replace(b"w.bin", b"../w.")
    (inner / "model.onnx").write_bytes(content)
    (tmp_path / "w.").write_bytes((inner / "w.bin").read_bytes())
    with pytest.raises(KronmodelError, match=r"the weight 'w0' lies in '../w\.', outside of the model's folder"):
        compress_file(inner / "model.onnx", Target(ratio=2), out=tmp_path / "models")


def test_the_greatest_drop(tmp_path: Path, data: Path) -> None:
    path = save(network(), tmp_path)
    report = compress_file(path, Target(max_drop=4), data=str(data), out=tmp_path / "models", settings=SETTINGS)
    original, _, compressed, _ = report.variants
    assert original.scores is not None
    assert compressed.scores is not None
    drop = compressed.scores.drop(original.scores)
    assert drop is not None
    assert drop <= 4
    assert original.bytes is not None
    assert compressed.bytes is not None
    assert original.bytes / compressed.bytes > 1.2


@pytest.mark.parametrize("precision", ["int8", "int8-static", "float16"])
def test_quantised_alone_and_on_top(precision: Any, tmp_path: Path, data: Path) -> None:
    path, out = save(network(), tmp_path, "toy.onnx"), tmp_path / "models"
    alone = compress_file(path, Target(), data=str(data), out=out, quantize=precision, settings=SETTINGS)
    assert alone.name == f"toy-{precision}"
    assert not alone.layers
    both = compress_file(path, Target(ratio=2), data=str(data), out=out, quantize=precision, settings=SETTINGS)
    assert both.name == f"toy-compressed-{precision}"
    sizes = {row.variant: row.bytes for row in both.variants}
    assert sizes[f"compressed + {precision}"] < sizes["compressed"]  # type: ignore[operator]
    x = inputs()[:50]
    expected = run(path, x=x)[0].argmax(1)
    for report in (alone, both):
        assert (run(report.path, x=x)[0].argmax(1) == expected).mean() > 0.7


def test_int4_weights_of_matmul_nodes_alone_and_on_top(tmp_path: Path, data: Path) -> None:
    path, out = save(network("MatMul"), tmp_path, "toy.onnx"), tmp_path / "models"
    x = inputs()[:50]
    expected = run(path, x=x)[0].argmax(1)
    for target, name in ((Target(), "toy-int4"), (Target(ratio=1.5), "toy-compressed-int4")):
        report = compress_file(path, target, data=str(data), out=out, quantize="int4", settings=SETTINGS)
        assert report.name == name
        stored = [each for each in onnx.load(report.path).graph.node if each.op_type == "MatMulNBits"]
        assert stored
        assert (run(report.path, x=x)[0].argmax(1) == expected).mean() > 0.7
        row = next(each for each in report.variants if each.variant.endswith("int4") and each.bytes is not None)
        assert row.bytes is not None
        assert row.bytes < path.stat().st_size / 3


def test_quantised_tied_weights_are_one_kind(tmp_path: Path) -> None:
    """Both uses of a shared weight are quantised, and the file doesn't hold the weight twice."""
    square = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Tanh", ["h"], ["t"]), node("MatMul", ["t", "w"], ["y"])]
    path = save(make_model(nodes, {"w": square}, ["n", 64]), tmp_path)
    report = compress_file(path, Target(), out=tmp_path / "models", quantize="int8")
    model = onnx.load(report.path)
    kinds = [each.op_type for each in model.graph.node if each.op_type.startswith("MatMul")]
    assert kinds == ["MatMulInteger"] * 2
    assert report.path.stat().st_size < path.stat().st_size / 2


def test_the_opset_that_a_quantisation_tool_moves_is_named(tmp_path: Path) -> None:
    path = save(network(opset=9, ir=4), tmp_path)
    report = compress_file(path, Target(ratio=1.5), out=tmp_path / "models", settings=SETTINGS)
    rows = {row.variant: row for row in report.variants}
    assert [entry.version for entry in onnx.load(report.path).opset_import] == [9]
    assert "opset 9 became" in rows["int8"].note


def relu_only() -> onnx.ModelProto:
    return make_model([node("Relu", ["x"], ["y"])], {}, ["n", 8])


def small_layer() -> onnx.ModelProto:
    return make_model([node("MatMul", ["x", "w"], ["y"], "tiny")], {"w": np.ones((8, 8), np.float32)}, ["n", 8])


def old_opset() -> onnx.ModelProto:
    return network(opset=6, ir=3)


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
        (refused, ["--target-ratio", "2"], "onnxruntime refuses the model: "),
        (network, ["--max-bytes", "900"], "900 bytes can't be reached: the smallest file has about"),
        (network, ["--target-ratio", "0.5"], "--target-ratio must be greater than 1, got 0.5"),
        (network, ["--max-drop", "-1"], "--max-drop must be from 0 to 100, got -1.0"),
        (network, ["--max-drop", "1"], "--max-drop needs samples to measure the loss on: give --data"),
        (network, [], "--target-ratio, --max-bytes, --max-drop or --quantize is needed"),
        (network, ["--quantize", "int8-static"], "int8-static needs samples for the scales of the activations"),
        (network, ["--quantize", "int4"], "onnxruntime's tool for int4 finds nothing to change in this model"),
        (network, ["--target-ratio", "2", "--data", "nothing"], "no data set named 'nothing'; expected one of"),
        (network, ["--target-ratio", "2", "--data", "digits8.npz"], "digits8.npz"),
        (network, ["--target-ratio", "2", "--structures", "sparse"], "--structures must be some of"),
        (network, ["--target-ratio", "2", "--samples", "0"], "--samples must be at least 1, got 0"),
        (network, ["--target-ratio", "2", "--name", "a b"], "a model's name must be"),
        (network, ["--target-ratio", "2", "--distill"], "--distill needs samples: give --data"),
        (network, ["--quantize", "int8", "--distill"], "--distill must be at least 0 epochs, and needs a size"),
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
    np.savez(tmp_path / "rows.npz", x=inputs(80), y=np.arange(80) % 10)
    arguments = [str(tmp_path / each) if each.endswith(".npz") else each for each in options]
    assert main(["compress", str(path), *arguments, "--allow-slower", "--out", str(out)]) == 2
    printed = capsys.readouterr()
    (line,) = [each for each in printed.err.splitlines() if "error" in each]
    assert message in line
    assert not printed.out
    assert not out.exists() or not list(out.iterdir())


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


def test_json_and_tables(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = save(network(), tmp_path), tmp_path / "models"
    command = ["compress", str(path), "--target-ratio", "2", "--data", str(data), "--allow-slower", "--out", str(out)]
    assert main([*command, "--structures", "low-rank", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in report["layers"]] == ["Gemm 'layer0'", "Gemm 'layer1'", "Gemm 'layer2'"]
    assert report["layers"][2]["reason"].startswith("800 weights, too few")
    assert report["variants"][2]["scores"]["accuracy"] > 0.5
    assert main([*command, "--structures", "low-rank"]) == 0
    printed = capsys.readouterr().out
    assert "compressed" in printed
    assert "model-compressed/2/model.onnx" in printed.replace("\n", "")


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    path, out = save(network(), tmp_path), tmp_path / "models"
    np.savez(tmp_path / "many.npz", x=np.tile(inputs(), (200, 1)))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "kronmodel", "compress", str(path), "--max-drop", "1", "--out", str(out)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [*command, "--data", str(tmp_path / "many.npz"), "--samples", "100000"],
        env=environment, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(temporary.glob("kronmodel-compress-*/tapped.onnx")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing was published" in errors
    assert not out.exists() or not list(out.iterdir())
    assert not list(temporary.glob("kronmodel*"))


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
