"""Twins with convolutional layers, trained by the library or the command, exported, served and compared."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from app.cli import main as kronserve
from kronmodel import Network
from kronmodel.cli import main as cli
from kronmodel.data.dataset import Dataset
from kronmodel.export.published import publish_members
from kronmodel.training.members import make_members, train_member
from kronmodel.training.recipes import RECIPES
from tests.app.conftest import Serving, serving
from tests.kronmodel.nn.test_conv import coloured

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class ColourTwin:
    """Twin trained on three-channel images, its data, and a model repository that also has a grey-scale twin."""

    data: Dataset
    networks: dict[str, Network]
    accuracies: dict[str, float]
    repository: Path


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> ColourTwin:
    repository = tmp_path_factory.mktemp("convolutions")
    data = coloured(shape=(3, 32, 32))
    recipe = replace(RECIPES["paper-cifar10"], features=(4, 8, 16), hidden=((8, 8),))
    members = make_members(
        "colour", data, "paper-cifar10", recipe, {"epochs": 8, "batch_size": 10, "learning_rate": 1e-2}
    )
    trained = [(member, *train_member(member, data)) for member in members.values()]
    publish_members(trained, data, repository)
    options = ["--features", "4,8", "--hidden", "8x8", "--epochs", "1", "--batch-size", "500", "--json"]
    assert cli.main(["train", "--data", "mnist-5k", "--name", "grey", *options, "--out", str(repository)]) == 0
    networks = {member.name: network.eval() for member, network, _ in trained}
    return ColourTwin(data, networks, {member.name: result.test_score for member, _, result in trained}, repository)


@pytest.fixture(scope="module")
def server(colour: ColourTwin) -> Iterator[Serving]:
    with serving(colour.repository, twin="colour") as running:
        yield running


def predict(server: Serving, rows: Any, **options: Any) -> list[dict[str, Any]]:
    answer = server.client.post("/api/predict", json={"inputs": rows.tolist(), **options})
    assert answer.is_success, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_predictions_for_flat_and_shaped_rows_equal_those_of_torch(server: Serving, colour: ColourTwin) -> None:
    rows = colour.data.x_test
    shaped = rows.reshape(-1, 3, 32, 32)
    for flat, image in zip(predict(server, rows), predict(server, shaped), strict=True):
        assert flat["outputs"] == image["outputs"]
        with torch.inference_mode():
            want = colour.networks[flat["model"]](torch.from_numpy(shaped)).softmax(1).numpy()
        got = np.array([output["probabilities"] for output in flat["outputs"]])
        np.testing.assert_allclose(got, want, atol=1e-5)
        labels = [output["label"] for output in flat["outputs"]]
        assert labels == ["abcdef"[index] for index in want.argmax(1)]
        right = [label == "abcdef"[truth] for label, truth in zip(labels, colour.data.y_test, strict=True)]
        assert np.mean(right) == colour.accuracies[flat["model"]] > 0.5


def test_rows_of_a_wrong_shape_are_rejected(server: Serving) -> None:
    for shape, message in (
        ((32, 32, 3), "inputs[0]: got 32 values, expected 3"),
        ((32, 96), "inputs[0]: got lists nested 2 deep, expected 3072 numbers or 3×32×32 numbers"),
        ((3071,), "inputs[0]: got 3071 values, expected 3072"),
    ):
        answer = server.client.post("/api/predict", json={"inputs": [np.zeros(shape).tolist()]})
        assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_card_and_samples(server: Serving, colour: ColourTwin) -> None:
    model = server.client.get("/api/models/colour-kronecker").json()
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]
    assert model["card"]["input"] == {"kind": "image", "shape": [3, 32, 32], "range": [0.0, 1.0]}
    assert model["card"]["parameters_with_branch_biases"] == colour.networks["colour-kronecker"].parameter_count
    kinds = [(layer["kind"], layer.get("kernel")) for layer in model["card"]["layers"]]
    assert kinds == [("Conv2d", [3, 3])] * 3 + [("KroneckerDual", None)] * 2
    answer = server.client.get("/api/models/colour-kronecker/samples", params={"limit": 6}).json()
    assert (answer["total"], answer["labels"]) == (60, list("abcdef"))
    inputs = np.array(answer["inputs"], dtype=np.float32)
    assert inputs.shape == (6, 3, 32, 32)
    np.testing.assert_array_equal(inputs.reshape(6, -1), colour.data.x_test[:6])
    assert predict(server, inputs)[0]["outputs"] == predict(server, colour.data.x_test[:6])[0]["outputs"]


def test_a_grey_image_is_accepted_flat_and_with_or_without_its_channel_axis(server: Serving) -> None:
    answer = server.client.get("/api/models/grey-dense/samples", params={"limit": 2}).json()
    inputs = np.array(answer["inputs"])
    assert inputs.shape == (2, 1, 28, 28)
    names = ["grey-kronecker", "grey-dense"]
    outputs = [
        [result["outputs"] for result in predict(server, inputs.reshape(2, *shape), models=names)]
        for shape in ((784,), (28, 28), (1, 28, 28))
    ]
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_comparison_uses_samples_of_the_first_model_as_inputs(
    colour: ColourTwin, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["colour-kronecker", "colour-dense"]
    options = ["--models", str(colour.repository), "--batch-sizes", "1,4", "--seconds", "0.4"]
    assert kronserve.main(["compare", *names, *options]) == 0
    out = capsys.readouterr().out
    assert "inputs: samples of colour-kronecker" in out
    macs = {name: f"{network.macs_per_sample:,}" for name, network in colour.networks.items()}
    assert all(text in out for text in macs.values())


def test_the_exported_graph_has_common_operators_and_one_transposition(colour: ColourTwin) -> None:
    """Blocks of Conv, Relu and MaxPool, which every ONNX runtime supports; the image is reordered once."""
    graph = onnx.load(colour.repository / "colour-dense" / "1" / "model.onnx").graph
    kinds = [node.op_type for node in graph.node if node.op_type != "Identity"]  # Identity: runtimes remove it
    assert kinds[:9] == ["Conv", "Relu", "MaxPool"] * 3
    assert kinds.count("Transpose") == 1
