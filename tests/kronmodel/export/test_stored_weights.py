"""Exported quantised networks: what stands in the file, and that onnxruntime gives the numbers of the training."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from kronmodel import native
from kronmodel.errors import ExportError, LoadError
from kronmodel.export.card import read_card, set_card
from kronmodel.export.float_weights import with_float_weights
from kronmodel.export.served_network import export_network
from kronmodel.nn.conv import ConvConfig
from kronmodel.nn.networks import DenseConfig, KroneckerConfig, build
from kronmodel.quantization.aware import QuantizationAwareNetwork
from kronmodel.quantization.config import QuantizationConfig
from kronmodel.quantization.network import QuantizedNetwork

BITS: dict[int, int] = {
    TensorProto.INT2: 2, TensorProto.INT4: 4, TensorProto.INT8: 8, TensorProto.FLOAT16: 16, TensorProto.FLOAT: 32,
}  # fmt: skip
KRONECKER = KroneckerConfig(
    in_shape=(6, 5), hidden=((4, 7), (3, 8)), out_shape=(2, 5), rank=(3, 3, 3), order=("left", "right", "left")
)
CONVOLUTIONS = KroneckerConfig(
    in_shape=(6, 8),
    hidden=((4, 7),),
    out_shape=(1, 3),
    rank=2,
    activation="relu",
    features=ConvConfig(image_shape=(1, 8, 8), channels=(5, 12), dropout=0.0),
)
LINEAR = KroneckerConfig(in_shape=(6, 5), hidden=((4, 7),), out_shape=(2, 5), rank=2, layer="linear", activation="tanh")
DENSE = DenseConfig(in_features=30, hidden=(9,), out_features=4)
CASES: dict[str, tuple[KroneckerConfig | DenseConfig, QuantizationConfig]] = {
    "kronecker": (KRONECKER, QuantizationConfig(bits=(8, 4, 2), bias_form="row-column")),
    "kronecker-activations": (KRONECKER, QuantizationConfig(bits=4, activation_bits=8)),
    "convolutions": (CONVOLUTIONS, QuantizationConfig(bits=4, bias_form="row-column", activation_bits=8)),
    "linear": (LINEAR, QuantizationConfig(bits=(4, 32), bias_bits=32)),
    "dense": (DENSE, QuantizationConfig(bits=2)),
}


@dataclass(frozen=True)
class Exported:
    network: QuantizedNetwork
    model: onnx.ModelProto
    rows: NDArray[np.float32]
    measured: NDArray[np.float32]

    def run(self, model: onnx.ModelProto, *, folded: bool = False) -> NDArray[np.float32]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if folded:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        result: NDArray[np.float32] = session.run(["logits"], {"input": self.rows})[0]
        return result


def quantized(config: KroneckerConfig | DenseConfig, quantization: QuantizationConfig) -> tuple[Any, torch.Tensor]:
    """Train the network for a few steps, so that biases and step sizes are no round numbers."""
    torch.manual_seed(5)
    network = build(config)
    rows = torch.rand(200, network.in_features)
    aware = QuantizationAwareNetwork(network, quantization)
    aware.start_epoch(1, 1, rows)
    optimizer = torch.optim.AdamW(aware.parameters(), lr=0.02)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(aware(rows), torch.arange(200) % 3).backward()
        optimizer.step()
    return aware.eval(), rows


@pytest.fixture(scope="module", params=list(CASES))
def exported(request: pytest.FixtureRequest) -> Exported:
    aware, rows = quantized(*CASES[request.param])
    with torch.inference_mode():
        measured = aware(rows).numpy()
    network = aware.quantized().eval()
    shaped = rows.numpy().reshape(len(rows), *network.input_shape)
    return Exported(network, export_network(network, {}, shaped), shaped, measured)


def test_onnxruntime_gives_the_numbers_of_the_training(exported: Exported) -> None:
    rounded = bool(exported.network.scales)
    for folded in (False, True):
        got = exported.run(exported.model, folded=folded)
        difference = np.abs(got - exported.measured)
        if not rounded:
            np.testing.assert_allclose(got, exported.measured, rtol=1e-5, atol=2e-5)
        else:  # a feature beside the middle of two levels may go to the other one
            assert (difference.max(axis=1) < 1e-4).mean() > 0.9
            assert (got.argmax(1) == exported.measured.argmax(1)).mean() > 0.99


def test_the_bytes_of_weights_are_those_of_the_initializers(exported: Exported) -> None:
    learned = {each.tensor.name for each in exported.network.stored}
    size = 4 * len(exported.network.scales)
    found = set()
    for tensor in exported.model.graph.initializer:
        name = tensor.name.removesuffix(".levels").removesuffix(".steps").removesuffix(".values")
        if name in learned:
            found.add(name)
            size += math.ceil(math.prod(tensor.dims) * BITS[tensor.data_type] / 8)
            if tensor.HasField("raw_data"):
                assert len(tensor.raw_data) == math.ceil(math.prod(tensor.dims) * BITS[tensor.data_type] / 8)
    assert found == learned
    assert size == exported.network.weight_bytes


def test_no_weight_is_left_as_float(exported: Exported) -> None:
    stored = exported.network.stored
    floats = {f"{each.tensor.name}.values" for each in stored if each.tensor.bits == 32}
    others = [
        numpy_helper.to_array(each)
        for each in exported.model.graph.initializer
        if each.data_type == TensorProto.FLOAT and each.name not in floats
    ]
    # What remains are scales of activations, and the identity matrix that a last factor is multiplied by.
    assert [array for array in others if array.ndim and set(array.ravel().tolist()) - {0.0, 1.0}] == []


def test_each_layer_has_its_own_bits() -> None:
    config, quantization = CASES["kronecker"]
    network = quantized(config, quantization)[0].quantized()
    assert [card["bits"] for card in network.layer_cards()] == [8, 4, 2]
    assert sum(card["weight_bytes"] for card in network.layer_cards()) == network.weight_bytes
    model = export_network(network.eval(), {}, np.random.default_rng(0).random((9, 30), np.float32))
    types = {each.name: each.data_type for each in model.graph.initializer}
    assert [types[f"layers.{layer}.factors.{index}.levels"] for layer in range(3) for index in range(2)] == [
        *[TensorProto.INT8] * 2, *[TensorProto.INT4] * 2, *[TensorProto.INT2] * 2,
    ]  # fmt: skip
    assert next(each.version for each in model.opset_import) == 25  # the first with INT2


@pytest.mark.parametrize("case", ["linear", "dense"])
def test_a_float_export_has_the_same_values(case: str) -> None:
    aware, rows = quantized(*CASES[case])
    with torch.inference_mode():
        measured = aware(rows).numpy()
    network = aware.quantized().eval()
    exported = Exported(network, export_network(network, {}, rows.numpy(), as_float=True), rows.numpy(), measured)
    assert {each.data_type for each in exported.model.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    np.testing.assert_allclose(exported.run(exported.model), measured, rtol=1e-5, atol=2e-5)


def test_the_native_code_reads_the_weights(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(exported.model, path)
    if exported.network.scales or exported.network.features is not None:
        with pytest.raises(LoadError, match="native code can't run"):
            native.load(path)
        return
    np.testing.assert_allclose(native.load(path)(exported.rows)["logits"], exported.measured, rtol=1e-4, atol=1e-4)


def test_the_network_is_unchanged_by_its_export(exported: Exported) -> None:
    with torch.inference_mode():
        now = exported.network.eval()(torch.from_numpy(exported.rows.reshape(len(exported.rows), -1))).numpy()
    np.testing.assert_allclose(now, exported.measured, rtol=1e-5, atol=1e-5)


def with_card(model: onnx.ModelProto, card: dict[str, Any]) -> onnx.ModelProto:
    """Copy a model, with another card."""
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    set_card(copied, card)
    return copied


def test_float_weights_give_the_same_outputs_and_counts(exported: Exported) -> None:
    network = exported.network
    card = {
        "layers": network.layer_cards(),
        "parameters": network.parameter_count,
        "training": {"bits": 4},
        "c": {"bits": 4},
    }
    described = with_card(exported.model, card)
    made = with_float_weights(described, "toy.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert {each.data_type for each in made.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    assert not {node.op_type for node in made.graph.node} & {"QuantizeLinear", "DequantizeLinear", "Cast"}
    for folded in (False, True):
        got, expected = exported.run(made, folded=folded), exported.run(described, folded=True)
        if not network.scales:
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)
        else:  # a feature beside the middle of two levels may go to the other one
            assert (np.abs(got - expected).max(axis=1) < 1e-4).mean() > 0.98
    stated = read_card(made)
    assert stated is not None
    parameters = {name: values.numel() for name, values in network.state_dict().items()}
    assert stated["parameters"] == sum(parameters.values())
    assert stated["weight_bytes"] == 4 * stated["parameters"]
    for index, layer in enumerate(stated["layers"][::-1]):
        own = f"layers.{len(network.layers) - 1 - index}."
        if index < len(network.layers):
            assert layer["parameters"] == sum(size for name, size in parameters.items() if name.startswith(own))
        assert layer["weight_bytes"] == 4 * layer["parameters"]
        assert "bits" not in layer
    assert stated["training"] == {"bits": 4}
    assert "c" not in stated
    with pytest.raises(ExportError, match=r"toy.onnx has no quantised weights; expected a file that"):
        with_float_weights(made, "toy.onnx")


def test_float_weights_of_a_damaged_file_are_refused(exported: Exported) -> None:
    damaged = onnx.ModelProto()
    damaged.CopyFrom(exported.model)
    for node in damaged.graph.node:
        if node.op_type == "DequantizeLinear" and "levels" in node.input[0]:
            node.attribute.append(onnx.helper.make_attribute("block_size", 3))
    with pytest.raises(ExportError, match="can't be computed: it dequantises in blocks"):
        with_float_weights(damaged, "toy.onnx")
    with pytest.raises(ExportError, match="no list of layers"):
        with_float_weights(with_card(exported.model, {"layers": [1]}), "toy.onnx")
