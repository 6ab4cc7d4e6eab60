"""A twin with convolutional features, from the training command or library to the answers of the service."""

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


@dataclass(frozen=True)
class Colour:
    """Two trained networks on images of three channels, their data, and the folder with them and a grey twin."""

    data: Dataset
    networks: dict[str, Network]
    accuracies: dict[str, float]
    repository: Path


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Colour:
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
    return Colour(data, networks, {member.name: result.test_score for member, _, result in trained}, repository)


@pytest.fixture(scope="module")
def server(colour: Colour) -> Iterator[Serving]:
    with serving(colour.repository, twin="colour") as running:
        yield running


def ask(server: Serving, rows: Any, **options: Any) -> list[dict[str, Any]]:
    answer = server.client.post("/api/predict", json={"inputs": rows.tolist(), **options})
    assert answer.is_success, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_flat_and_shaped_rows_get_the_answers_of_torch(server: Serving, colour: Colour) -> None:
    rows = colour.data.x_test
    shaped = rows.reshape(-1, 3, 32, 32)
    for flat, image in zip(ask(server, rows), ask(server, shaped), strict=True):
        assert flat["outputs"] == image["outputs"]
        with torch.inference_mode():
            want = colour.networks[flat["model"]](torch.from_numpy(shaped)).softmax(1).numpy()
        got = np.array([output["probabilities"] for output in flat["outputs"]])
        np.testing.assert_allclose(got, want, atol=1e-5)
        labels = [output["label"] for output in flat["outputs"]]
        assert labels == ["abcdef"[index] for index in want.argmax(1)]
        right = [label == "abcdef"[truth] for label, truth in zip(labels, colour.data.y_test, strict=True)]
        assert np.mean(right) == colour.accuracies[flat["model"]] > 0.5


def test_rows_of_another_shape_are_refused(server: Serving) -> None:
    for shape, message in (
        ((32, 32, 3), "inputs[0]: got 32 values, expected 3"),
        ((32, 96), "inputs[0]: got lists nested 2 deep, expected 3072 numbers or 3×32×32 numbers"),
        ((3071,), "inputs[0]: got 3071 values, expected 3072"),
    ):
        answer = server.client.post("/api/predict", json={"inputs": [np.zeros(shape).tolist()]})
        assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_card_and_samples(server: Serving, colour: Colour) -> None:
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
    assert ask(server, inputs)[0]["outputs"] == ask(server, colour.data.x_test[:6])[0]["outputs"]


def test_a_grey_image_may_be_flat_plain_or_as_the_graph_takes_it(server: Serving) -> None:
    answer = server.client.get("/api/models/grey-dense/samples", params={"limit": 2}).json()
    inputs = np.array(answer["inputs"])
    assert inputs.shape == (2, 1, 28, 28)
    names = ["grey-kronecker", "grey-dense"]
    outputs = [
        [result["outputs"] for result in ask(server, inputs.reshape(2, *shape), models=names)]
        for shape in ((784,), (28, 28), (1, 28, 28))
    ]
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_comparison_runs_on_samples(colour: Colour, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["colour-kronecker", "colour-dense"]
    options = ["--models", str(colour.repository), "--batch-sizes", "1,4", "--seconds", "0.4"]
    assert kronserve.main(["compare", *names, *options]) == 0
    out = capsys.readouterr().out
    assert "inputs: samples of colour-kronecker" in out
    macs = {name: f"{network.macs_per_sample:,}" for name, network in colour.networks.items()}
    assert all(text in out for text in macs.values())


def test_the_graph_is_plain_onnx(colour: Colour) -> None:
    """No operator but those that every runtime knows; nothing but one transposition reorders the image."""
    graph = onnx.load(colour.repository / "colour-dense" / "1" / "model.onnx").graph
    kinds = [node.op_type for node in graph.node if node.op_type != "Identity"]  # which runtimes drop
    assert kinds[:9] == ["Conv", "Relu", "MaxPool"] * 3
    assert kinds.count("Transpose") == 1
