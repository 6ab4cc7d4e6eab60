"""Native inference against dense matrices in float64, and against onnxruntime on exported files."""

from __future__ import annotations

import ctypes
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import kronmodel.native
from kronmodel.data.dataset import Scaling
from kronmodel.errors import LoadError, NativeError
from kronmodel.export.served_network import export_network
from kronmodel.native import build
from kronmodel.native.network import Activation, NetworkArrays
from kronmodel.native.predictor import Predictor
from kronmodel.nn.networks import DenseConfig, KroneckerConfig
from kronmodel.nn.networks import build as build_network
from tests.kronmodel.native.arrays import EVERY, classifier, expected, networks, random_dense, random_kronecker

pytestmark = pytest.mark.skipif(build.library() is None, reason=f"no native library: {build.status().reason}")


def predictor(network: NetworkArrays, samples: Any = None) -> Predictor:
    library = build.library()
    assert library is not None
    return Predictor(network, library, samples)


@settings(max_examples=60, deadline=None)
@given(network=networks(), batch=st.sampled_from([1, 2, 5]))
def test_any_network_has_the_outputs_of_dense_matrices(network: NetworkArrays, batch: int) -> None:
    x = np.random.default_rng(batch).normal(size=(batch, network.n_features)).astype(np.float32)
    outputs = predictor(network)(x)
    logits = expected(network, x)
    unit = max(1.0, float(np.abs(logits).max()))
    assert np.abs(outputs["logits"] - logits).max() <= 2e-5 * unit
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    assert np.abs(outputs["probabilities"] - exponentials / exponentials.sum(1, keepdims=True)).max() <= 2e-5 * unit


def test_a_layer_may_take_another_matrix_than_the_one_before_gives() -> None:
    """The kernel hands matrices on with padded rows, so that (6, 4) must not be read as (4, 6) or (3, 8)."""
    rng = np.random.default_rng(4)
    sizes = [((5, 7), (6, 4)), ((4, 6), (20, 18)), ((18, 20), (1, 40)), ((8, 5), (3, 2))]
    layers = [
        random_kronecker(rng, before, after, right)
        for (before, after), right in zip(sizes, ([False], [True, False], [False, True], [True]), strict=True)
    ]
    network = classifier(*layers)
    x = rng.normal(size=(65, 35)).astype(np.float32)
    logits = expected(network, x)
    unit = float(np.sqrt(np.mean(logits**2)))
    assert np.abs(predictor(network)(x)["logits"] - logits).max() <= 2e-5 * unit
    assert np.sqrt(np.mean((predictor(network, x)(x)["logits"] - logits) ** 2)) <= 0.05 * unit


def test_preprocessing_and_postprocessing_are_those_of_the_network() -> None:
    rng = np.random.default_rng(0)
    network = replace(
        classifier(random_kronecker(rng, (5, 7), (2, 3), [False, True], activation="none")),
        input_shape=(3, 11),
        mean=rng.normal(size=33).astype(np.float32),
        inverse=rng.uniform(0.5, 2, 33).astype(np.float32),
        scale=rng.uniform(10, 20, 6).astype(np.float32),
        offset=rng.normal(size=6).astype(np.float32),
        outputs={"prediction": False},
    )
    x = rng.normal(size=(130, 3, 11)).astype(np.float32)
    for samples, tolerance in ((None, 1e-3), (x, 2.0)):
        outputs = predictor(network, samples)(x)
        assert list(outputs) == ["prediction"]
        assert np.abs(outputs["prediction"] - expected(network, x)).max() <= tolerance


def test_inputs_of_other_types_and_layouts_are_converted() -> None:
    network = classifier(random_kronecker(np.random.default_rng(0), (4, 5), (2, 3), [False]))
    run = predictor(network)
    x = np.random.default_rng(1).normal(size=(6, 20)).astype(np.float32)
    want = run(x)["logits"]
    read_only = x.copy()
    read_only.flags.writeable = False
    misaligned = np.frombuffer(b"." + x.tobytes(), np.float32, offset=1).reshape(6, 20)
    doubled = np.repeat(x, 2, axis=1)[:, ::2]
    others: list[Any] = [x.astype(np.float64), x.tolist(), np.asfortranarray(x), read_only, misaligned, doubled]
    for same in (*others, x.astype(">f4")):
        np.testing.assert_array_equal(run(same)["logits"], want)
    assert run(x[:0])["probabilities"].shape == (0, 6)
    wrongs: list[Any] = [x[0], x[:, :19], x[None], np.float32(3), np.array(3, np.float32)]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=re.escape("x must have the shape (batch, 20), got")):
            run(wrong)


def test_threads_may_share_a_predictor() -> None:
    rng = np.random.default_rng(0)
    layers = [random_kronecker(rng, (28, 28), (28, 28), [False, True]), random_kronecker(rng, (28, 28), (2, 5), [True])]
    x = rng.normal(size=(40, 784)).astype(np.float32)
    for samples in (None, x):
        run = predictor(classifier(*layers), samples)
        want = [run(row[None])["logits"] for row in x]
        barrier = threading.Barrier(4)

        def work(start: int, run: Predictor = run, want: list[Any] = want, barrier: Any = barrier) -> bool:
            barrier.wait()
            order = np.roll(np.arange(40), start)
            return all((run(x[i : i + 1])["logits"] == want[i]).all() for _ in range(20) for i in order)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))


def exported(config: Any, features: int | None = None, scaling: Any = None, target: Any = None) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    samples = np.random.default_rng(0).normal(size=(8, features or network.in_features)).astype(np.float32)
    return export_network(network, {"name": "test"}, samples, scaling, target)


def scaling(columns: int) -> Scaling:
    rng = np.random.default_rng(columns)
    std = rng.uniform(0.5, 2, columns).astype(np.float32)
    return Scaling(mean=rng.normal(size=columns).astype(np.float32), std=std, inverse=(1 / std).astype(np.float32))


SHAPES: dict[str, Any] = {"in_shape": (4, 5), "hidden": ((3, 7),), "out_shape": (2, 5)}
TABLE = (18, scaling(18))


@pytest.mark.parametrize(
    ("config", "table"),
    [
        (KroneckerConfig(**SHAPES, rank=2, activation="relu"), None),
        (KroneckerConfig(**SHAPES, rank=2, order="right", activation="relu"), (*TABLE, scaling(10))),
        (KroneckerConfig(**SHAPES, rank=3, order=("left", "right", "left"), activation="gelu"), TABLE),
        (KroneckerConfig(**SHAPES, rank=2, layer="linear", activation="tanh"), None),
        (KroneckerConfig(in_shape=(4, 5), hidden=((21, 70),), out_shape=(20, 15), rank=1), None),
        (DenseConfig(in_features=20, hidden=(30,), out_features=10, activation="relu"), TABLE),
    ],
    ids=["left", "right", "mixed", "linear", "wide", "dense"],
)
def test_an_exported_file_gives_onnxruntime_s_outputs(config: Any, table: Any, tmp_path: Path) -> None:
    model = exported(config, *(table or ()))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    x = np.random.default_rng(1).normal(size=(37, session.get_inputs()[0].shape[1])).astype(np.float32)
    run = kronmodel.native.load(path)
    assert (run.input_name, run.output_names) == ("input", names)
    outputs = run(x)
    for name, want in zip(names, session.run(names, {"input": x}), strict=True):
        np.testing.assert_allclose(outputs[name], want, rtol=1e-4, atol=1e-5)
    np.savez(tmp_path / "samples.npz", inputs=x)
    quantized = kronmodel.native.load(path, "int8")(x)
    for name, want in outputs.items():
        assert np.abs(quantized[name] - want).max() <= 0.1 * max(1.0, np.abs(want).max())
        assert not np.array_equal(quantized[name], want)


def graph(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (4,), **constants: Any) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    initializers = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(list(nodes), "g", infos[:1], infos[1:], initializers))


W = np.ones((4, 3), np.float32)
GEMM = helper.make_node("Gemm", ["input", "w"], ["h"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (graph(helper.make_node("Conv", ["input", "w"], ["y"]), w=W), "the Conv node that gives 'y'"),
        (graph(helper.make_node("Sigmoid", ["input"], ["y"])), "the Sigmoid node that gives 'y'"),
        (graph(GEMM, helper.make_node("Sin", ["h"], ["y"]), w=W), "the Sin node that gives 'y'"),
        (graph(helper.make_node("Gelu", ["input"], ["y"])), "expected an activation behind a product"),
        (graph(helper.make_node("Gemm", ["input", "w"], ["y"], alpha=2.0), w=W), "got transA, alpha or beta"),
        (graph(helper.make_node("MatMul", ["input", "w"], ["y"]), w=W[:3]), "doesn't fit"),
        (
            graph(GEMM, helper.make_node("Gelu", ["h"], ["y"], approximate="tanh"), w=W),
            "approximate is tanh, expected none",
        ),
        (graph(GEMM, helper.make_node("Relu", ["h"], ["z"]), w=W), "the output 'y' is not what the last layer gives"),
        (graph(GEMM, helper.make_node("Add", ["h", "input"], ["y"]), w=W), "the branches of one layer"),
        (
            graph(helper.make_node("Mul", ["a", "b"], ["y"]), a=np.ones((1 << 14, 1)), b=np.ones((1, 1 << 14))),
            "more than 67,108,864 elements",
        ),
    ],
)
def test_another_graph_is_refused_by_the_name_of_its_operator(model: Any, message: str, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(LoadError, match=re.escape(message)) as caught:
        kronmodel.native.load(tmp_path / "model.onnx")
    assert str(tmp_path / "model.onnx") in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"missing\.onnx can't be read: No such file"):
        kronmodel.native.load(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(LoadError, match=r"text\.onnx is not an ONNX file"):
        kronmodel.native.load(tmp_path / "text.onnx")


def test_samples_for_8_bits_are_checked(tmp_path: Path) -> None:
    onnx.save(graph(helper.make_node("Gemm", ["input", "w"], ["y"]), w=W), tmp_path / "model.onnx")
    with pytest.raises(LoadError, match=r"samples.npz can't be read .*; pass `samples`"):
        kronmodel.native.load(tmp_path / "model.onnx", "int8")
    for wrong in (np.ones((2, 5)), np.full((2, 4), np.nan), np.ones((0, 4))):
        with pytest.raises(ValueError, match=re.escape("samples must be finite numbers of the shape ('n', 4)")):
            kronmodel.native.load(tmp_path / "model.onnx", "int8", wrong.astype(np.float32))
    with pytest.raises(ValueError, match="precision must be float32 or int8, got 'int4'"):
        kronmodel.native.load(tmp_path / "model.onnx", "int4")  # type: ignore[arg-type]


def test_without_the_library_the_error_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "_status", build.Status(None, "switched off by KRONMODEL_NATIVE=0"))
    with pytest.raises(NativeError, match="the native library is not available: switched off by KRONMODEL_NATIVE=0"):
        kronmodel.native.load(tmp_path / "model.onnx")


@pytest.mark.skipif("x86" not in __import__("platform").machine(), reason="needs an x86 processor")
def test_processors_without_new_instructions_compute_the_same(tmp_path: Path) -> None:
    path = tmp_path / "portable.so"
    build.compile_library(path, ["cc"], "-march=x86-64", "-O1")
    library = ctypes.CDLL(str(path))
    rng = np.random.default_rng(0)
    network = classifier(
        random_kronecker(rng, (7, 13), (9, 17), [False, False, True]), random_kronecker(rng, (9, 17), (2, 5), [True])
    )
    x = rng.normal(size=(9, 91)).astype(np.float32)
    for samples, tolerance in ((None, 1e-5), (x, 0.02)):  # with 8 bits, a few values round to the other side
        outputs = Predictor(network, library, samples)(x)["logits"]
        assert np.abs(outputs - predictor(network, samples)(x)["logits"]).max() <= tolerance


@pytest.mark.parametrize("activation", EVERY)
def test_dense_layers_give_a_sample_the_same_bits_alone_and_in_a_batch(activation: Activation) -> None:
    rng = np.random.default_rng(5)
    sizes = [(37, 61), (61, 7), (7, 33)]
    network = classifier(*(random_dense(rng, n, m, activation) for n, m in sizes))
    x = rng.normal(size=(131, 37)).astype(np.float32)  # more than are computed at once
    run = predictor(network)
    together = run(x)["logits"]
    assert np.abs(together - expected(network, x)).max() <= 2e-5 * max(1.0, float(np.abs(together).max()))
    assert np.array_equal(together, np.concatenate([run(sample[None])["logits"] for sample in x]))
