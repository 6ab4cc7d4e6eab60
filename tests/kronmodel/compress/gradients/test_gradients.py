"""ONNX graphs in torch: against onnxruntime, operator by operator, and the tuning of their weights."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kronmodel.compress.gradients.operators import OPERATORS
from kronmodel.compress.gradients.tuning import LEAST_STEPS, Pair, with_weights
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.errors import KronmodelError
from tests.kronmodel.compress.onnx_models import Array, make_model, run, save

node = helper.make_node


def network(weights: dict[str, Array], activation: str = "Tanh") -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["x", "a"], ["h"]),
        node(activation, ["h"], ["t"], "the activation"),
        node("Gemm", ["t", "b", "c"], ["y"]),
    ]
    return make_model(nodes, weights, ["batch", 6], opset=17)


def samples_of(x: Array) -> Samples:
    return Samples(
        arrays={"x": x}, constant={}, batch=32, fixed=False, by_call=False, labels=None, task=None, origin="a test"
    )


def weights() -> dict[str, Array]:
    own = np.random.default_rng(2)
    shapes = {"a": (6, 8), "b": (8, 3), "c": (3,)}
    return {name: own.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_tuning_brings_the_new_weights_near_the_outputs_of_the_original(tmp_path: Path) -> None:
    original = weights()
    noise = np.random.default_rng(4).standard_normal((6, 8)).astype(np.float32)
    changed = network({"new": original["a"] + 0.2 * noise, **{name: original[name] for name in ("b", "c")}})
    changed.graph.node[0].input[1] = "new"
    x = np.random.default_rng(3).standard_normal((700, 6)).astype(np.float32)
    with Workspace(save(network(original), tmp_path)) as workspace:
        pair = Pair(workspace, changed, samples_of(x))
        assert set(pair.student.weights) == {"new"}
        assert pair.tune(200) > 0
        tuned = with_weights(workspace, changed, pair.student.weights)
    want = run(network(original), x=x)[0]
    errors = [float(np.square(run(model, x=x)[0] - want).mean()) for model in (changed, tuned)]
    assert errors[1] < 0.3 * errors[0]
    for before, after in zip(changed.graph.initializer, tuned.graph.initializer, strict=True):
        assert (before == after) == (before.name != "new")


def test_steps_that_are_too_large_are_followed_by_smaller_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEARNING_RATE": 0.5, "RATE_OF_ERROR": 1e3}.items():
        monkeypatch.setattr(f"kronmodel.compress.tuning.{name}", value)
    changed = network({**weights(), "new": weights()["a"] * np.linspace(0.9, 1.1, 8, dtype=np.float32)})
    changed.graph.node[0].input[1] = "new"
    x = np.random.default_rng(3).standard_normal((700, 6)).astype(np.float32)
    kept = []
    for shares in ((1.0,), (1.0, 0.02)):
        monkeypatch.setattr("kronmodel.compress.tuning.SHARES", shares)
        with Workspace(save(network(weights()), tmp_path)) as workspace:
            kept.append(Pair(workspace, changed, samples_of(x)).tune(400))
    assert kept[0] == 0
    assert kept[1] > 40


def encoder(weight: str = "w", *, batch: int | str = "batch") -> onnx.ModelProto:
    """The mean of the words of a sentence behind a normalisation and a product: ids and a mask (batch, 5)."""
    own = np.random.default_rng(6)
    shapes = {"words": (20, 12), "scale": (12,), "w": (12, 7)}
    stored = {name: own.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    noise = (weight != "w") * own.standard_normal(shapes["w"]) / 4
    stored[weight] = (stored.pop("w") + noise).astype(np.float32)
    nodes = [
        node("Gather", ["words", "ids"], ["e"]),
        node("LayerNormalization", ["e", "scale"], ["n"]),
        node("MatMul", ["n", weight], ["h"], "the product"),
        node("Cast", ["mask"], ["f"], to=onnx.TensorProto.FLOAT),
        node("Unsqueeze", ["f", "axis"], ["u"]),
        node("Mul", ["h", "u"], ["k"]),
        node("ReduceSum", ["k", "one"], ["s"], keepdims=0),
        node("ReduceSum", ["u", "one"], ["c"], keepdims=0),
        node("Div", ["s", "c"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(each, name) for name, each in stored.items()]
    tensors += [numpy_helper.from_array(np.array([each]), name) for name, each in {"axis": -1, "one": 1}.items()]
    ids = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [batch, 5]) for name in ("mask", "ids")]
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 7])
    graph = helper.make_graph(nodes, "graph", ids, [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("form", ["rows", "fixed", "runs"])
def test_several_inputs_in_rows_or_whole_runs(form: str, tmp_path: Path) -> None:
    batch = 4 if form == "fixed" else "batch"
    own = np.random.default_rng(7)
    feeds = {"ids": own.integers(0, 20, (400, 5)), "mask": (np.arange(5) < own.integers(1, 6, (400, 1))).astype(int)}
    arrays = {name: each[:, None] if form == "runs" else each for name, each in feeds.items()}
    samples = replace(
        samples_of(np.empty(0)),
        arrays=arrays,
        batch=1 if form == "runs" else 4,
        fixed=form == "fixed",
        by_call=form == "runs",
    )
    changed, steps = encoder("new", batch=batch), []
    with Workspace(save(encoder(batch=batch), tmp_path)) as workspace:
        pair = Pair(workspace, changed, samples)
        assert pair.tune(150, lambda step, count: steps.append((step, count))) > 0
        tuned = with_weights(workspace, changed, pair.student.weights)
        with pytest.raises(KronmodelError, match="2 inputs" if form == "rows" else "any number of samples"):
            pair.check_rows()
    assert steps == [(step, 150) for step in range(1, len(steps) + 1)]
    want, before, after = (
        [run(each, **batch)[0] for batch in samples.batches()] for each in (encoder(batch=batch), changed, tuned)
    )
    errors = [float(np.square(np.array(each) - np.array(want)).mean()) for each in (before, after)]
    assert errors[1] < 0.7 * errors[0]


def test_long_tunings_take_fewer_steps(tmp_path: Path) -> None:
    changed = network({**weights(), "new": weights()["a"] * 1.1})
    changed.graph.node[0].input[1] = "new"
    counts = set()
    with Workspace(save(network(weights()), tmp_path)) as workspace:
        pair = Pair(workspace, changed, samples_of(np.ones((64, 6), np.float32)))
        pair.tune(500, lambda step, count: counts.add(count), seconds=0)
    assert counts == {LEAST_STEPS}


def test_integers_can_not_be_distilled(tmp_path: Path) -> None:
    model = network(weights())
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    model.graph.node.insert(0, node("Cast", ["x"], ["z"], to=onnx.TensorProto.FLOAT))
    model.graph.node[1].input[0] = "z"
    with Workspace(save(model, tmp_path)) as workspace, pytest.raises(KronmodelError, match="int64, expected float32"):
        Pair(workspace, model, samples_of(np.ones((64, 6), np.int64))).check_rows()


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16])
def test_weights_of_16_bits_behind_a_cast_are_computed(stored: type, tmp_path: Path) -> None:
    model = network({**weights(), "a": weights()["a"].astype(stored)})
    model.graph.node.insert(0, node("Cast", ["a"], ["wide"], to=onnx.TensorProto.FLOAT))
    model.graph.node[1].input[1] = "wide"
    narrow = helper.np_dtype_to_tensor_dtype(np.dtype(stored))
    model.graph.node.insert(3, node("Cast", ["t"], ["narrow"], to=narrow))
    model.graph.node.insert(4, node("Cast", ["narrow"], ["back"], to=onnx.TensorProto.FLOAT))
    model.graph.node[-1].input[0] = "back"
    x = np.random.default_rng(5).standard_normal((64, 6)).astype(np.float32)
    with Workspace(save(model, tmp_path)) as workspace:
        assert Pair(workspace, model, samples_of(x)).error < 1e-3


def test_constants_that_torch_lacks_are_refused_by_their_type(tmp_path: Path) -> None:
    model = network(weights())
    model.graph.initializer.append(numpy_helper.from_array(np.ones((6, 8), ml_dtypes.float8_e4m3fn), "eighth"))
    model.graph.node.insert(0, node("Cast", ["eighth"], ["wide"], to=onnx.TensorProto.FLOAT))
    model.graph.node[1].input[1] = "wide"
    model.opset_import[0].version, model.ir_version = 19, 9
    with (
        Workspace(save(model, tmp_path)) as workspace,
        pytest.raises(KronmodelError, match="constants of float8_e4m3fn are not known in torch"),
    ):
        Pair(workspace, model, samples_of(np.ones((64, 6), np.float32)))


def test_unknown_operators_are_refused_by_name(tmp_path: Path) -> None:
    model = network(weights(), "Asinh")
    with Workspace(save(model, tmp_path)) as workspace, pytest.raises(KronmodelError, match="Asinh 'the activation'"):
        Pair(workspace, model, samples_of(np.ones((64, 6), np.float32)))


def test_a_graph_that_torch_can_not_compute_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(inputs: object, attributes: object) -> NoReturn:
        raise KeyError(6)  # as for a convolution along four axes

    monkeypatch.setitem(OPERATORS, "Tanh", fail)
    model = network(weights())
    with Workspace(save(model, tmp_path)) as workspace, pytest.raises(KronmodelError, match="computed in torch: 6"):
        Pair(workspace, model, samples_of(np.ones((64, 6), np.float32)))
