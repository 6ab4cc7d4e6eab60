"""Networks computed by the page's own module, in Node.js and in the browser, compared with onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from kronmodel import KroneckerConfig, build
from kronmodel.export.served_network import export_network
from kronmodel.quantization.aware import QuantizationAwareNetwork
from kronmodel.quantization.config import QuantizationConfig
from tests.browser.conftest import Visitor
from tests.browser.networks import FEATURES, Engine, every_network, graph, reference

node = onnx.helper.make_node
RNG = np.random.default_rng(7)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def networks() -> bytes:
    return every_network()


@pytest.fixture(params=["node", "browser"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "node":
        return Engine(None)
    visitor: Visitor = request.getfixturevalue("visitor")
    return Engine(visitor().load())


def assert_equal(engine: Engine, model: bytes, rows: NDArray[np.float32], tolerance: float = 1e-5) -> None:
    expected = reference(model, rows)
    got = engine.run(model, rows)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values.reshape(len(rows), -1), rtol=1e-5, atol=tolerance, err_msg=name)


def test_every_activation_order_and_layer(engine: Engine, networks: bytes) -> None:
    assert_equal(engine, networks, normal(40, FEATURES))


@pytest.mark.parametrize("role", ["kronecker", "dense"])
def test_the_default_twin_on_images(engine: Engine, twin_repository: Path, role: str) -> None:
    path = twin_repository / f"mnist-{role}" / "1" / "model.onnx"
    images = np.load(path.with_name("samples.npz"))["inputs"]
    rows = np.concatenate([images, np.roll(images, 3, axis=1), np.flip(images, axis=1), images * 0.5])
    assert_equal(engine, path.read_bytes(), np.ascontiguousarray(np.resize(rows, (1000, 784))))


@pytest.mark.parametrize("bits", [(8, 4, 2), 4])
def test_quantised_weights_and_activations(engine: Engine, bits: int | tuple[int, ...]) -> None:
    torch.manual_seed(1)
    config = KroneckerConfig(
        in_shape=(7, 4), hidden=((5, 6), (3, 8)), out_shape=(2, 5), rank=2, order=("left", "right")
    )
    rounded = isinstance(bits, int)
    chosen = QuantizationConfig(bits=bits, bias_form="row-column", activation_bits=8 if rounded else 32)
    aware = QuantizationAwareNetwork(build(config), chosen)
    rows = normal(40, FEATURES)
    with torch.no_grad():
        aware.values.add_(0.1 * torch.randn_like(aware.values))  # biases are zeros at first
    aware.start_epoch(1, 1, torch.from_numpy(rows))
    model = export_network(aware.quantized().eval(), {}, rows).SerializeToString()
    if not rounded:
        assert_equal(engine, model, rows)
        return
    # A feature beside the middle of two levels may go to the other one.
    difference = np.abs(np.array(engine.run(model, rows)["logits"]) - reference(model, rows)["logits"]).max(axis=1)
    assert (difference < 1e-5).mean() > 0.9


OPERATORS: dict[str, tuple[list[onnx.NodeProto], list[int], dict[str, NDArray[Any]]]] = {
    "both gelus": (
        [node("Gelu", ["x"], ["a"]), node("Gelu", ["x"], ["b"], approximate="tanh"), node("Sub", ["a", "b"], ["y"])],
        [501],
        {},
    ),
    "broadcast": (
        [node("Mul", ["x", "a"], ["b"]), node("Div", ["b", "c"], ["d"]), node("Max", ["d", "e"], ["y"])],
        [3, 1, 5],
        {"a": normal(4, 1), "c": normal(1) + 9, "e": normal(3, 1, 1)},
    ),
    "gemm": (
        [node("Gemm", ["x", "w", "c"], ["a"], alpha=0.5, beta=2.0), node("Gemm", ["a", "v"], ["y"], transB=1)],
        [7],
        {"w": normal(7, 9), "c": normal(1, 9), "v": normal(5, 9)},
    ),
    "turned gemm": (
        [node("Reshape", ["x", "s"], ["a"]), node("Gemm", ["a", "w"], ["b"], transA=1), node("Flatten", ["b"], ["y"])],
        [15],
        {"s": np.array([3, -1]), "w": normal(3, 6)},
    ),
    "batched product": (
        [node("MatMul", ["w", "x"], ["a"]), node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
         node("Relu", ["b"], ["y"])],
        [3, 6, 5],
        {"w": normal(1, 1, 7, 6)},
    ),
    "padding": (
        [node("Pad", ["x", "p", "v"], ["a"]), node("Reshape", ["a", "s"], ["b"]), node("Tanh", ["b"], ["y"])],
        [4, 3],
        {"p": np.array([0, 1, 2, 0, 0, 1]), "v": np.array(0.25, np.float32), "s": np.array([0, 2, -1])},
    ),
    "convolution": (
        [node("Conv", ["x", "w", "b"], ["y"], strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 3])],
        [3, 9, 11],
        {"w": normal(5, 3, 3, 2), "b": normal(5)},
    ),
    "pooling": (
        [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 3], pads=[1, 0, 1, 1])],
        [2, 8, 7],
        {},
    ),
    "quantised weights": (
        [node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=1), node("MatMul", ["x", "w"], ["y"])],
        [6],
        {
            "q": RNG.integers(-128, 128, (6, 5)).astype(np.int8),
            "s": np.abs(normal(5)) / 100,
            "z": RNG.integers(-9, 9, 5).astype(np.int8),
        },
    ),
    "constants": (
        [node("Mul", ["i", "f"], ["w"]), node("Flatten", ["w"], ["m"], axis=2), node("Gemm", ["x", "m"], ["a"]),
         node("Softmax", ["a"], ["b"]), node("Identity", ["b"], ["y"])],
        [6],
        {"i": np.eye(2, dtype=np.float32).reshape(2, 1, 2, 1), "f": normal(1, 3, 1, 4)},
    ),
}  # fmt: skip


def test_operators(engine: Engine) -> None:
    for nodes, shape, weights in OPERATORS.values():
        assert_equal(engine, graph(nodes, shape, weights), normal(3, *shape))


@pytest.mark.parametrize(
    ("nodes", "shape", "weights", "message"),
    [
        ([node("Sinh", ["x"], ["y"])], [4], {}, "the operator Sinh is not supported"),
        ([node("Gelu", ["x"], ["y"], domain="com.microsoft")], [4], {}, "the operator com.microsoft.Gelu is not supp"),
        ([node("Conv", ["x", "w"], ["y"], group=2)], [2, 5, 5], {"w": normal(2, 1, 3, 3)}, "Conv in groups is"),
        ([node("Softmax", ["x"], ["y"], axis=1)], [4, 3], {}, "Softmax along axis 1 is not supported"),
        ([node("Add", ["x", "w"], ["y"])], [4], {"w": normal(4).astype(np.float64)}, "the weights w are of type 11"),
        ([node("Add", ["x", "w"], ["y"])], [3000, 1], {"w": normal(1, 3000)}, "a tensor of 1×3000×3000 values"),
        (
            [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "v"], ["y"])],
            [2000, 3],
            {"w": normal(3, 2000), "v": normal(2000, 16)},
            "more than 20 million multiply-adds are not supported",
        ),
    ],
)  # fmt: skip
def test_other_graphs_are_refused(
    nodes: list[onnx.NodeProto], shape: list[int], weights: dict[str, NDArray[Any]], message: str
) -> None:
    error = Engine(None).error(graph(nodes, shape, weights), normal(1, *shape))
    assert error.startswith(f"UnsupportedModel: {message}")


def test_damaged_files_are_refused(networks: bytes) -> None:
    engine, row = Engine(None), normal(1, FEATURES)
    assert engine.error(networks[: len(networks) // 2], row).startswith("RangeError: not a")
    assert engine.error(b"", row) == "RangeError: not an ONNX file: it has no graph"
    assert engine.error(b"\x0f", row).startswith("RangeError: not a protobuf message")
    assert engine.error(networks, row[:, :-1]).startswith("RangeError: got 27 values, expected 28")
