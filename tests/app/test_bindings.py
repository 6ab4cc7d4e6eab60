"""Runs in buffers that stay, beside ordinary runs of the same session."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from app.bindings import MOST, Bindings
from app.engine import Engine
from app.errors import InputsRefused
from tests.app import oip_models
from tests.app.graphs import classifier, probabilities, publish, weights

LAYERS = weights([6, 8, 3])
DTYPES = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16}


def loaded(folder: Path, made: Any) -> Engine:
    engine = Engine(publish(folder, "m", made), device="cpu", threads=1)
    engine.warm_up(max_batch=64)
    return engine


@pytest.mark.parametrize("datatype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_each_run_gives_its_own_rows_outputs(tmp_path: Path, datatype: int) -> None:
    engine = loaded(tmp_path, classifier(LAYERS, datatype=datatype))
    rng = np.random.default_rng(1)
    kept = []
    for rows in (1, 5, 1, 2, 5, 1):
        for names in (["probabilities"], ["probabilities", "logits"], ["logits", "probabilities"]):
            values = rng.random((rows, 6)).astype(DTYPES[engine.inputs[0].datatype])
            outputs = engine.run_in_turn({"input": values}, names)
            assert list(outputs) == names
            kept.append((outputs["probabilities"], values))
    for output, values in kept:  # later runs have not written over what earlier ones gave
        assert output.dtype == values.dtype
        np.testing.assert_allclose(output, probabilities(LAYERS, values), atol=5e-3 if output.itemsize == 2 else 1e-5)


def test_several_inputs_in_any_order_and_layout(tmp_path: Path) -> None:
    engine = loaded(tmp_path, oip_models.two())
    (first, second), outputs = engine.inputs, [tensor.name for tensor in engine.outputs]
    rng = np.random.default_rng(2)
    for _ in range(3):
        feeds = {
            tensor.name: rng.integers(0, 9, (2, *tensor.shape[1:])).astype(oip_models_dtype(tensor.datatype))
            for tensor in (first, second)
        }
        expected = engine.run(feeds, outputs)
        for given in (feeds, dict(reversed(feeds.items())), {name: np.asfortranarray(a) for name, a in feeds.items()}):
            for name, values in engine.run_in_turn(given, outputs).items():
                np.testing.assert_array_equal(values, expected[name])


def oip_models_dtype(datatype: str) -> str:
    return {"FP32": "float32", "FP64": "float64"}.get(datatype, datatype.lower())


def test_what_has_no_certain_shape_or_no_numbers_runs_as_ever(tmp_path: Path) -> None:
    model = oip_models.graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.INT64, [2, "found"])],
    )
    engine = loaded(tmp_path, model)
    for row, found in (([0, 1, 0], 1), ([1, 1, 1], 3), ([0, 0, 0], 0)):
        assert engine.run_in_turn({"x": np.array([row], np.float32)}, ["y"])["y"].shape == (2, found)


def test_rows_that_go_missing_are_missing(tmp_path: Path) -> None:
    """Declared as a row for a row, and so on the numbers of the warm-up; others it drops."""
    model = oip_models.graph(
        [
            helper.make_node("ReduceMax", ["x", "axis"], ["largest"], keepdims=0),
            helper.make_node("Less", ["largest", "two"], ["small"]),
            helper.make_node("Compress", ["x", "small"], ["y"], axis=0),
        ],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.FLOAT, ["batch", 3])],
        {"axis": np.array([1]), "two": np.array(2, np.float32)},
    )
    engine = loaded(tmp_path, model)
    assert engine.batchable
    small, mixed = np.ones((2, 3), np.float32), np.array([[1, 1, 1], [5, 5, 5]], np.float32)
    for _ in range(2):
        assert engine.run_in_turn({"x": small}, ["y"])["y"].shape == (2, 3)
        assert engine.run_in_turn({"x": mixed}, ["y"])["y"].shape == (1, 3)


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    engine = loaded(tmp_path, classifier(LAYERS))
    engine.run_in_turn({"input": np.ones((1, 6), np.float32)}, ["logits"])
    with pytest.raises(InputsRefused, match="onnxruntime refuses them"):
        engine.run_in_turn({"input": np.ones((1, 5), np.float32)}, ["logits"])


def test_buffers_are_bounded(tmp_path: Path) -> None:
    engine = loaded(tmp_path, classifier(LAYERS))
    bindings = Bindings(engine.session)
    for rows in range(1, 3 * MOST):
        feeds = {"input": np.full((rows, 6), 0.5, np.float32)}
        bindings.add(feeds, engine.run(feeds, ["logits"]))
        assert len(bindings) <= MOST
    many = {"input": np.full((50_000, 6), 0.5, np.float32)}
    bindings.add(many, engine.run(many, ["logits"]))
    assert bindings.run(many, ["logits"]) is None
