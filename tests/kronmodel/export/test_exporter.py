"""Exported files against torch, by onnxruntime: an implementation that the export's own check doesn't use."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from kronmodel import KroneckerConfig, build
from kronmodel.data.dataset import Dataset
from kronmodel.errors import ExportError, KronmodelError
from kronmodel.export.card import make_card, read_card
from kronmodel.export.parity import check_parity
from kronmodel.export.published import publish_members
from kronmodel.export.served_network import export_network
from kronmodel.training.config import TrainConfig
from kronmodel.training.loop import train
from kronmodel.training.members import make_members, train_member
from kronmodel.training.recipes import RECIPES

CONFIG = KroneckerConfig(
    in_shape=(28, 28), hidden=((12, 20), (9, 16)), out_shape=(2, 5), rank=3, order=("left", "right", "left")
)


@pytest.fixture(scope="module")
def exported(digits: Dataset) -> dict[str, tuple[Any, dict[str, Any], onnx.ModelProto]]:
    made = {}
    for role, config in (("kronecker", CONFIG), ("dense", replace(CONFIG, activation="tanh").dense())):
        network = build(config)
        training = TrainConfig(epochs=1)
        result = train(network, digits, training)
        card = make_card(
            twin="toy",
            role=role,  # type: ignore[arg-type]  # one of the two
            network=network,
            data=digits,
            config=training,
            result=result,
            recipe="default",
            threads=1,
        )
        made[role] = (network, card, export_network(network, card, digits.x_test[:100]))
    return made


@pytest.mark.parametrize("role", ["kronecker", "dense"])
@pytest.mark.parametrize("batch", [1, 2, 7, 64, 1000])
def test_onnxruntime_computes_what_torch_computes(exported: Any, digits: Dataset, role: str, batch: int) -> None:
    network, _, model = exported[role]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = digits.x_test[:batch]
    logits, probabilities = session.run(["logits", "probabilities"], {"input": x})
    with torch.inference_mode():
        want = network(torch.from_numpy(x))
    np.testing.assert_allclose(logits, want.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probabilities, want.softmax(-1).numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("role", ["kronecker", "dense"])
def test_the_file_is_what_the_design_says(exported: Any, role: str) -> None:
    network, card, model = exported[role]
    (x,), outputs = model.graph.input, {output.name: output for output in model.graph.output}
    assert x.name == "input"
    assert x.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert x.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert x.type.tensor_type.shape.dim[1].dim_value == 784
    assert list(outputs) == ["logits", "probabilities"]
    assert outputs["probabilities"].type.tensor_type.shape.dim[1].dim_value == 10
    assert all(not initializer.external_data for initializer in model.graph.initializer)
    written = dict(read_card(model) or {})
    in_c = written.pop("c")
    assert (in_c["bits"], in_c["weight_bytes"]) == (32, 4 * network.parameter_count)
    assert in_c["scratch_bytes"] >= 4 * 2 * 144  # of the hidden features
    assert written == json.loads(json.dumps(card))
    # All the weights and next to nothing else: file sizes are compared.
    weights = sum(numpy_helper.to_array(each).nbytes for each in model.graph.initializer)
    assert 4 * network.parameter_count <= weights
    assert model.ByteSize() < weights + 12_000


def test_nothing_of_this_machine_is_in_the_file(exported: Any) -> None:
    for _, _, model in exported.values():
        content = model.SerializeToString()
        for word in (b"/site-packages", b".py", b"stack_trace", b"/home", b"/root"):
            assert word not in content, word


def test_the_card_says_what_was_trained(exported: Any, digits: Dataset) -> None:
    network, card, _ = exported["kronecker"]
    assert (card["name"], card["twin"], card["role"], card["task"]) == (
        "toy-kronecker",
        "toy",
        "kronecker",
        "classification",
    )
    assert card["parameters"] == network.parameter_count == sum(layer["parameters"] for layer in card["layers"])
    assert card["macs_per_sample"] == sum(layer["macs_per_sample"] for layer in card["layers"])
    assert [layer["in_shape"] for layer in card["layers"]] == [[28, 28], [12, 20], [9, 16]]
    assert card["layers"][0]["order"] == ["left", "right", "left"]
    assert card["data"] == {
        "name": "mnist-5k",
        "sha256": digits.sha256,
        "train_samples": 4000,
        "test_samples": 1000,
        "split": "as published",
    }
    with torch.inference_mode():
        right = network(torch.from_numpy(digits.x_test)).argmax(1).numpy() == digits.y_test
    assert card["test_metric"] == {
        "name": "accuracy",
        "value": pytest.approx(right.mean()),
        "higher_is_better": True,
        "samples": 1000,
    }
    assert card["input"] == {"kind": "image", "shape": [28, 28], "range": [0.0, 1.0]}
    assert card["versions"]["torch"] == torch.__version__


def test_a_file_that_computes_something_else_is_refused(exported: Any, digits: Dataset) -> None:
    network, _, model = exported["kronecker"]

    class Reference(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = network(x)
            return logits, logits.softmax(-1)

    check_parity(model, Reference(), [torch.from_numpy(digits.x_test[:10])])
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    weights = numpy_helper.to_array(wrong.graph.initializer[0]) + np.float32(1e-2)
    wrong.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, wrong.graph.initializer[0].name))
    with pytest.raises(ExportError, match="logits at batch 1 differs from torch by up to"):
        check_parity(wrong, Reference(), [torch.from_numpy(digits.x_test[:10])])


def test_a_batch_dimension_that_the_export_fixed_is_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["input", "shape"], ["out"])],
        "fixed",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, -1]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x,)

    with pytest.raises(ExportError, match=r"out at batch 7 has shape \(1, 21\), torch gives \(7, 3\)"):
        check_parity(model, Same(), [torch.ones(4, 3)])


def test_a_network_with_infinite_weights_is_refused(exported: Any, digits: Dataset) -> None:
    _, card, _ = exported["kronecker"]
    network = build(CONFIG)
    with torch.no_grad():
        network.layers[0].factors[0].fill_(torch.inf)  # type: ignore[index]  # it is a Kronecker layer
    with pytest.raises(ExportError, match="logits at batch 1"):
        export_network(network, card, digits.x_test[:10])


def test_a_failed_check_publishes_neither_member(exported: Any, digits: Dataset, tmp_path: Path) -> None:
    members = make_members("toy", digits, "default", replace(RECIPES["default"], hidden=((12, 20),)), {"epochs": 1})
    trained = [(member, *train_member(member, digits)) for member in members.values()]
    with torch.no_grad():
        trained[1][1].layers[0].weight.fill_(torch.nan)  # type: ignore[operator]  # the dense one is the second
    with pytest.raises(ExportError, match="logits at batch 1"):
        publish_members(trained, digits, tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{", "[1]", "12"])
def test_a_card_that_is_no_card(exported: Any, text: str) -> None:
    model = onnx.ModelProto()
    assert read_card(model) is None
    model.metadata_props.add(key="kronmodel", value=text)
    with pytest.raises(KronmodelError, match="the model card"):
        read_card(model)
