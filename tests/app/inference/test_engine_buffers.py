"""Runs in bound buffers compared with unbound runs of the same session."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from app.errors import InputsRefused
from app.inference.engine import Engine
from app.inference.io_binding import MAX_SHAPES, Bindings, DeviceBuffers, HostBuffers
from app.inference.joining import Joining
from tests.app import oip_models
from tests.app.graphs import classifier, probabilities, publish, weights

LAYERS = weights([6, 8, 3])
DTYPES = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16}


# `DeviceBuffers` are for GPUs; on the CPU, which every machine has, they make the same calls but other copies.
BUFFERS = [HostBuffers, partial(DeviceBuffers, device="cpu", device_id=0)]


def loaded(folder: Path, made: Any) -> Engine:
    engine = Engine(publish(folder, "m", made), device="cpu", threads=1)
    engine.warm_up(max_batch=64)
    return engine


@pytest.mark.parametrize("datatype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
@pytest.mark.parametrize("made", BUFFERS, ids=["host", "device"])
def test_buffers_are_reused_and_outputs_are_copies(tmp_path: Path, made: Any, datatype: int) -> None:
    session = loaded(tmp_path, classifier(LAYERS, datatype=datatype)).session
    dtype = helper.tensor_dtype_to_np_dtype(datatype)
    names = ["probabilities", "logits"]
    rows = [np.random.default_rng(seed).random((5, 6)).astype(dtype) for seed in range(3)]
    expected = [session.run(names, {"input": values}) for values in rows]
    buffers = made(session, {"input": rows[0]}, dict(zip(names, expected[0], strict=True)))
    found = [buffers.run({"input": values}) for values in (rows[0], np.asfortranarray(rows[1]), rows[2][:])]
    for outputs, values in zip(found, expected, strict=True):
        assert list(outputs) == names
        for output, value in zip(outputs.values(), values, strict=True):
            np.testing.assert_array_equal(output, value)
            assert output.dtype == dtype


@pytest.mark.parametrize("made", BUFFERS, ids=["host", "device"])
def test_concurrent_threads_use_different_buffers(tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(tmp_path, classifier(weights([60, 400, 30])))
    monkeypatch.setattr(Bindings, "_make", lambda self, feeds, values: made(engine.session, feeds, values))

    def work(seed: int) -> None:
        values = np.random.default_rng(seed).random((2, 60)).astype(np.float32)
        (expected,) = engine.session.run(["logits"], {"input": values})
        for _ in range(300):
            np.testing.assert_array_equal(engine.run({"input": values}, ["logits"])["logits"], expected)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(8)))


def test_arrays_of_another_dtype_do_not_use_the_buffers(tmp_path: Path) -> None:
    """onnxruntime copies any bytes into a bound device tensor without a check of their type."""
    engine = loaded(tmp_path, classifier(LAYERS))
    engine.run({"input": np.ones((1, 6), np.float32)}, ["logits"])
    for dtype in (np.float64, np.int8):
        with pytest.raises(InputsRefused, match="onnxruntime refuses them"):
            engine.run({"input": np.ones((1, 6), dtype)}, ["logits"])


def test_a_full_device_runs_without_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(tmp_path, classifier(LAYERS))

    def full(*_: object) -> None:
        raise RuntimeError("Failed to allocate memory")

    monkeypatch.setattr(Bindings, "_make", full)
    values = np.random.default_rng(3).random((7, 6)).astype(np.float32)
    for _ in range(2):
        outputs = engine.run({"input": values}, ["probabilities"])
        np.testing.assert_allclose(outputs["probabilities"], probabilities(LAYERS, values), atol=1e-5)


@pytest.mark.parametrize("datatype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_outputs_belong_to_their_own_run(tmp_path: Path, datatype: int) -> None:
    engine = loaded(tmp_path, classifier(LAYERS, datatype=datatype))
    rng = np.random.default_rng(1)
    kept = []
    for rows in (1, 5, 1, 2, 5, 1):
        for names in (["probabilities"], ["probabilities", "logits"], ["logits", "probabilities"]):
            values = rng.random((rows, 6)).astype(DTYPES[engine.inputs[0].datatype])
            outputs = engine.run({"input": values}, names)
            assert list(outputs) == names
            kept.append((outputs["probabilities"], values))
    for output, values in kept:  # later runs did not overwrite earlier outputs
        assert output.dtype == values.dtype
        np.testing.assert_allclose(output, probabilities(LAYERS, values), atol=5e-3 if output.itemsize == 2 else 1e-5)


def test_inputs_in_any_order_and_memory_layout(tmp_path: Path) -> None:
    engine = loaded(tmp_path, oip_models.two())
    (first, second), outputs = engine.inputs, [tensor.name for tensor in engine.outputs]
    rng = np.random.default_rng(2)
    for _ in range(3):
        feeds = {
            tensor.name: rng.integers(0, 9, (2, *tensor.shape[1:])).astype(numpy_name(tensor.datatype))
            for tensor in (first, second)
        }
        expected = engine.run(feeds, outputs)
        for given in (feeds, dict(reversed(feeds.items())), {name: np.asfortranarray(a) for name, a in feeds.items()}):
            for name, values in engine.run(given, outputs).items():
                np.testing.assert_array_equal(values, expected[name])


def numpy_name(datatype: str) -> str:
    return {"FP32": "float32", "FP64": "float64"}.get(datatype, datatype.lower())


def test_a_model_with_data_dependent_output_shape_runs_unbound(tmp_path: Path) -> None:
    model = oip_models.graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.INT64, [2, "found"])],
    )
    engine = loaded(tmp_path, model)
    for row, found in (([0, 1, 0], 1), ([1, 1, 1], 3), ([0, 0, 0], 0)):
        assert engine.run({"x": np.array([row], np.float32)}, ["y"])["y"].shape == (2, found)


def test_a_model_that_drops_rows_for_some_values_returns_fewer_rows(tmp_path: Path) -> None:
    """Its shapes state one output row per input row, and it is wrongly taken for one whose rows may be joined."""
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
    assert not engine.batchable
    engine.joining = Joining(64, "for this test")
    small, mixed = np.ones((2, 3), np.float32), np.array([[1, 1, 1], [5, 5, 5]], np.float32)
    for _ in range(2):
        assert engine.run({"x": small}, ["y"])["y"].shape == (2, 3)
        assert engine.run({"x": mixed}, ["y"])["y"].shape == (1, 3)


def test_inputs_of_a_wrong_shape_are_refused(tmp_path: Path) -> None:
    engine = loaded(tmp_path, classifier(LAYERS))
    engine.run({"input": np.ones((1, 6), np.float32)}, ["logits"])
    with pytest.raises(InputsRefused, match="onnxruntime refuses them"):
        engine.run({"input": np.ones((1, 5), np.float32)}, ["logits"])


def test_number_and_size_of_buffers_are_bounded(tmp_path: Path) -> None:
    engine = loaded(tmp_path, classifier(LAYERS))
    bindings = Bindings(engine.session)
    for rows in range(1, 3 * MAX_SHAPES):
        feeds = {"input": np.full((rows, 6), 0.5, np.float32)}
        bindings.add(feeds, engine.run(feeds, ["logits"]))
        assert len(bindings) <= MAX_SHAPES
    many = {"input": np.full((50_000, 6), 0.5, np.float32)}
    bindings.add(many, engine.run(many, ["logits"]))
    assert bindings.run(many, ["logits"]) is None
