"""Compression of whole files, as `kronmodel compress` does it: the results."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.models.card import Card
from kronmodel.cli.main import main
from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.target import Target
from kronmodel.errors import KronmodelError
from kronmodel.export.c.figures import c_figures
from kronmodel.export.card import CARD_KEY
from tests.kronmodel.compress.files.networks import SETTINGS, inputs, network
from tests.kronmodel.compress.graphs.test_rewrite import branches
from tests.kronmodel.compress.onnx_models import make_model, run, save

node = helper.make_node


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
    assert {"c": cards[1]["c"]} == c_figures(compressed, report.path)
    assert 0 < cards[1]["c"]["weight_bytes"] <= report.path.stat().st_size
    for card in cards:
        parsed = Card.parse(json.dumps(card), "toy")
        assert parsed is not None
        assert parsed.role == card["role"]
    assert not list(out.glob(".*"))


def test_files_beside_the_original_are_published_with_whom_they_are_true_for(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "trained/toy/1"
    folder.mkdir(parents=True)
    names = {"novelty.npz", "model.json", "model.safetensors", "notes.txt"}
    for name in names:
        (folder / name).write_text(f"content of {name}")
    x = inputs()[:50]
    np.savez(folder / "samples.npz", inputs=x, labels=np.arange(50) % 10)
    model = network()
    model.metadata_props.add(key=CARD_KEY, value=json.dumps({"name": "toy", "novelty": {"test_fraction": 0.01}}))
    path = save(model, folder)
    out = tmp_path / "models"
    report = compress_file(path, Target(ratio=3), data=str(data), out=out, settings=SETTINGS)
    for published, kept in (
        (report.original, {"novelty.npz", "samples.npz", "model.json", "model.safetensors"}),
        (report.path, {"novelty.npz", "samples.npz"}),
    ):
        assert {each.name for each in published.parent.iterdir()} == {"model.onnx", *kept}
        for name in kept:
            assert published.with_name(name).read_bytes() == path.with_name(name).read_bytes()
    assert card_of(report.path)["novelty"] == {"test_fraction": 0.01}


@pytest.mark.slow
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


@pytest.mark.parametrize("is_large", [False, True])
def test_the_report_says_why_the_new_weights_are_not_tuned(
    is_large: bool, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    if is_large:
        monkeypatch.setattr("kronmodel.compress.files.sizing.MAX_TUNED_BYTES", 1000)
    else:
        model.graph.node[1].op_type = "Asinh"
    path = save(model, tmp_path)
    said: list[str] = []
    settings = replace(SETTINGS, tune_steps=20, report=said.append)
    report = compress_file(path, Target(ratio=3), data=str(data), out=tmp_path / "models", settings=settings)
    reason = (
        f"the model has {path.stat().st_size:,} bytes" if is_large else "the gradient of Asinh 'relu0' is not known"
    )
    assert report.messages == [said[-1]]

    assert said[-1].startswith(f"the new weights are not tuned together: {reason}")


def structured() -> onnx.ModelProto:
    """The network with a first weight that is nearly a sum of two Kronecker products."""
    model, rng = network(), np.random.default_rng(5)
    terms = [np.kron(rng.standard_normal((8, 12)), rng.standard_normal((8, 8))) for _ in range(2)]
    weight = (sum(terms) / 8 + 0.01 * rng.standard_normal((64, 96))).astype(np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    return model


def convolutional() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    sizes = {"k0": (24, 1, 3, 3), "k1": (40, 24, 3, 3), "w": (40 * 16, 10)}
    weights = {name: rng.standard_normal(size) * (2 / np.prod(size[1:])) ** 0.5 for name, size in sizes.items()}
    weights["w"] /= 8
    nodes = [
        node("Reshape", ["x", "image"], ["i"]),
        node("Conv", ["i", "k0"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "k1"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["d"]),
        node("Flatten", ["d"], ["e"]),
        node("MatMul", ["e", "w"], ["y"]),
    ]
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    return make_model(nodes, {**arrays, "image": np.array([-1, 1, 8, 8])}, ["n", 64])


@pytest.mark.parametrize(("make", "ratio"), [(network, 6), (structured, 4), (convolutional, 3)])
@pytest.mark.slow
def test_all_structures_are_no_worse_than_whitened_low_rank_in_the_same_bytes(
    make: Callable[[], onnx.ModelProto], ratio: int, tmp_path: Path
) -> None:
    path, data = save(make(), tmp_path), tmp_path / "data.npz"
    x = inputs() if make is not structured else np.random.default_rng(4).standard_normal((700, 64)).astype(np.float32)
    np.savez(data, x=x, y=run(path, x=x)[0].argmax(1))
    errors = []
    for structures in (("low-rank",), ("low-rank", "kronecker", "monarch")):
        settings = replace(SETTINGS, structures=structures, tune_steps=200)
        report = compress_file(path, Target(ratio=ratio), data=str(data), out=tmp_path / "models", settings=settings)
        row = next(each for each in report.variants if each.variant == "compressed")
        assert row.scores is not None
        assert (row.bytes or 0) <= path.stat().st_size / ratio
        errors.append(row.scores.relative_error)
    assert errors[1] <= 1.05 * errors[0]  # on samples that decided nothing
    assert make is not structured or errors[1] < 0.8 * errors[0]


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


def test_json_and_tables(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = save(network(), tmp_path), tmp_path / "models"
    command = ["compress", str(path), "--target-ratio", "2", "--data", str(data), "--allow-slower", "--out", str(out)]
    page = tmp_path / "report.html"
    assert main([*command, "--structures", "low-rank", "--report", str(page), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in report["layers"]] == ["Gemm 'layer0'", "Gemm 'layer1'", "Gemm 'layer2'"]
    assert report["layers"][2]["reason"].startswith("800 weights, too few")
    assert report["variants"][2]["scores"]["accuracy"] > 0.5
    curve = report["layers"][0]["curve"]
    assert {point["kind"] for point in curve} == {"dense", "low-rank"}
    assert [point["bytes"] for point in curve] == sorted(point["bytes"] for point in curve)
    html = page.read_text()
    assert html.count("<svg") == 2  # the third layer has no candidates
    assert all(f"{row['bytes']:,}" in html for row in report["variants"])
    assert html.count('r="7"') == 2  # rings around the chosen points
    assert "<script" not in html
    unwritable = [*command, "--report", str(tmp_path / "none/report.html")]
    assert main(unwritable) == 2
    assert "can't write the report" in capsys.readouterr().err
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
