"""C code in float32 against onnxruntime, with sanitizers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kronmodel import native
from kronmodel.export.c.formats import write_source
from kronmodel.export.c.model import CModel
from tests.kronmodel.export.c.graphs import Graph, outputs_of, random_graph
from tests.kronmodel.export.c.programs import predictions

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.mark.parametrize("seed", range(14))
def test_random_networks_give_the_answers_of_onnxruntime(seed: int, tmp_path: Path) -> None:
    graph, shape = random_graph(seed)
    path = graph.save(tmp_path / "net.onnx", shape)
    model = CModel.read(path)
    assert model.reason == ""
    x = np.random.default_rng(seed + 100).normal(0, 1.5, (40, *shape)).astype(np.float32)
    source = write_source(model, "net", None, libm=seed % 2 == 0)
    assert ("math.h" in source.code) == source.libm
    labels, out = predictions(tmp_path / "c", source, x, graph.shape[0])
    expected = outputs_of(path, x)
    if "probabilities" in expected:
        np.testing.assert_allclose(out, expected["probabilities"], atol=1e-5)
        np.testing.assert_array_equal(labels, out.argmax(1))
        np.testing.assert_array_equal(labels, expected["probabilities"].argmax(1))
    else:
        np.testing.assert_allclose(out, expected["prediction"], rtol=2e-5, atol=2e-5)
        assert not labels.any()


@pytest.mark.parametrize("libm", [True, False])
def test_extreme_inputs(libm: bool, tmp_path: Path) -> None:
    graph = Graph(np.random.default_rng(3), 6)
    graph.kronecker((2, 3), (3, 2), [False, True], "tanh", "gelu")
    graph.dense(5)
    graph.classify()
    model = CModel.read(graph.save(tmp_path / "net.onnx", (6,)))
    x = np.zeros((6, 6), np.float32)
    x[1, 2], x[2, 0], x[3, 5], x[4], x[5] = np.nan, np.inf, -np.inf, 1e30, -40
    source = write_source(model, "net", None, libm=libm)
    labels, out = predictions(tmp_path / "c", source, x, 5, "-fno-sanitize=float-divide-by-zero")
    expected = outputs_of(model.path, x)["probabilities"]
    assert labels[1] == -1
    for row in (0, 4, 5):
        np.testing.assert_allclose(out[row], expected[row], atol=1e-5)
        assert labels[row] == expected[row].argmax()
    for row in (2, 3):  # infinity times zero is not a number, which may or may not come up
        assert labels[row] == -1 or np.isfinite(out[row]).all()


def test_no_scratch_and_one_layer(tmp_path: Path) -> None:
    graph = Graph(np.random.default_rng(4), 5)
    graph.dense(3)
    graph.classify()
    model = CModel.read(graph.save(tmp_path / "net.onnx", (5,)))
    source = write_source(model, "net", None)
    assert source.scratch_bytes == 0
    x = np.random.default_rng(5).normal(0, 1, (7, 5)).astype(np.float32)
    _, out = predictions(tmp_path / "c", source, x, 3)
    np.testing.assert_allclose(out, outputs_of(model.path, x)["probabilities"], atol=1e-6)


def test_layers_without_activation_such_as_those_of_a_low_rank(tmp_path: Path) -> None:
    graph = Graph(np.random.default_rng(6), 9)
    graph.at = graph.node("MatMul", graph.at, graph.normal(9, 2, fan=9))
    graph.shape = (2,)
    graph.dense(8, "gelu")
    graph.kronecker((2, 4), (3, 2), [False, True], "relu", "none")
    graph.dense(3)
    graph.at = graph.node("MatMul", graph.at, graph.normal(3, 4, fan=3))
    graph.shape = (4,)
    graph.classify()
    model = CModel.read(graph.save(tmp_path / "net.onnx", (9,)))
    assert model.reason == ""
    x = np.random.default_rng(7).normal(0, 1, (20, 9)).astype(np.float32)
    _, out = predictions(tmp_path / "c", write_source(model, "net", None), x, 4)
    expected = outputs_of(model.path, x)["probabilities"]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_allclose(native.load(model.path)(x)["probabilities"], expected, atol=1e-6)
