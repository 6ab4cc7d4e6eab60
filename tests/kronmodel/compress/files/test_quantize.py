"""Quantised variants of compressed files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.report import VariantRow
from kronmodel.compress.files.target import Target
from kronmodel.compress.files.variants import drawbacks
from kronmodel.compress.graphs.scores import Scores
from kronmodel.compress.graphs.timing import Timing
from tests.kronmodel.compress.files.networks import SETTINGS, inputs, network
from tests.kronmodel.compress.onnx_models import make_model, run, save

node = helper.make_node


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


def test_a_variant_that_is_slower_or_larger_than_the_original_says_so(tmp_path: Path) -> None:
    """Quantised products of tiny matrices: the nodes that are added outweigh all that is saved."""
    nodes, weights, value = [], {}, "x"
    for place in range(20):
        weights[f"w{place}"] = np.random.default_rng(place).standard_normal((8, 8)).astype(np.float32) / 3
        nodes.append(node("MatMul", [value, f"w{place}"], [f"h{place}"]))
        value = f"h{place}"
    nodes[-1].output[0] = "y"
    path = save(make_model(nodes, weights, ["n", 8]), tmp_path)
    report = compress_file(path, Target(), out=tmp_path / "models", quantize="int8", settings=SETTINGS)
    original, quantised = report.variants
    assert not original.note
    assert (quantised.bytes or 0) > path.stat().st_size
    assert f"{(quantised.bytes or 0) / path.stat().st_size:.1f} times as large as the original" in quantised.note
    # On a loaded machine the interval may hold 1, and then nothing is said.
    assert ("slower than the original at 1" in quantised.note) == (quantised.times[1].low > 1)


def test_slowness_is_said_only_where_the_whole_interval_says_it() -> None:
    slow, unsure = Timing(9.0, 1.9, 1.2, 2.5), Timing(9.0, 1.9, 0.8, 2.5)
    original = VariantRow(variant="original", bytes=100, times={1: slow})
    for times, said in (
        ({1: slow, 32: unsure}, ["slower than the original at 1 sample"]),
        ({1: slow, 32: slow}, ["slower than the original at 1 and 32 samples"]),
        ({1: unsure}, []),
    ):
        assert list(drawbacks(VariantRow(variant="int8", bytes=90, times=times), original, None)) == said
    assert not list(drawbacks(original, original, None))
    large = VariantRow(variant="int8", bytes=1000)
    assert list(drawbacks(large, original, large)) == ["10.0 times as large as the original"]


@pytest.mark.parametrize("compressed", ["compressed", "compressed + int8"])
def test_a_result_that_plain_int8_beats_in_size_and_score_says_so(compressed: str) -> None:
    def row(variant: str, size: int, error: float, accuracy: float | None = None) -> VariantRow:
        scores = Scores(samples=10, accuracy=accuracy, relative_error=error, cosine=1.0)
        return VariantRow(variant=variant, bytes=size, scores=scores)

    said = ["int8 of the original is not larger and loses less"]
    for before, int8, after, expected in (
        ((100, 0.0, 0.9), (30, 0.1, 0.89), (30, 0.3, 0.88), said),
        ((100, 0.0, 0.9), (30, 0.1, 0.89), (40, 0.3, 0.91), []),  # more accurate, with other outputs
        ((100, 0.0, 0.9), (30, 0.1, 0.89), (29, 0.3, 0.1), []),
        ((100, 0.0), (30, 0.1), (40, 0.3), said),
        ((100, 0.0), (30, 0.1), (40, 0.05), []),
    ):
        original, plain, result = row("original", *before), row("int8", *int8), row(compressed, *after)
        assert list(drawbacks(result, original, plain)) == expected
        assert not list(drawbacks(result, original, None))
        assert not list(drawbacks(plain, original, plain))
