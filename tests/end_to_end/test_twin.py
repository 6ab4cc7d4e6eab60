"""The default twin, trained, exported, served and compared: the served models are those that were trained."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from kronmodel.data.registry import load
from tests.app.conftest import Serving, environment, serving
from tests.conftest import Twin


@pytest.fixture(scope="module")
def server(trained_twin: Twin) -> Iterator[Serving]:
    with serving(trained_twin.repository) as running:
        yield running


def test_the_served_models_have_the_test_accuracy_that_training_reported(server: Serving, trained_twin: Twin) -> None:
    """Accuracy over the whole test set, by predictions through the API."""
    card = server.client.get("/api/models/mnist-dense").json()["card"]
    data = load(card["data"]["name"], lambda line: None)
    assert card["data"]["sha256"] == data.sha256
    correct = {"mnist-kronecker": 0, "mnist-dense": 0}
    agreed = 0.0
    for start in range(0, len(data.x_test), 500):
        rows, truth = data.x_test[start : start + 500], data.y_test[start : start + 500]
        answer = server.client.post("/api/predict", json={"inputs": rows.tolist()}).json()
        agreed += answer["agreement"] * len(rows)
        for result in answer["results"]:
            labels = np.array([output["label"] for output in result["outputs"]], dtype=int)
            correct[result["model"]] += int((labels == truth).sum())
    for role in ("kronecker", "dense"):
        reported = trained_twin.summary["models"][role]["test_accuracy"]
        # Rounding may change the class of a sample whose two largest logits are almost equal.
        assert correct[f"mnist-{role}"] / len(data.x_test) == pytest.approx(reported, abs=3 / len(data.x_test))
    assert 0.9 < agreed / len(data.x_test) <= 1


def test_the_exported_graph_reshapes_at_most_once_per_factor(trained_twin: Twin) -> None:
    """One Reshape before the first layer, one after the last, and one between the two factors of each layer."""
    model = onnx.load(trained_twin.repository / "mnist-kronecker" / "1" / "model.onnx")
    layers = sum(node.op_type == "MatMul" for node in model.graph.node) // 2
    assert sum(node.op_type == "Reshape" for node in model.graph.node) <= 2 + layers


def test_samples_are_from_the_test_set_and_cover_every_class(server: Serving) -> None:
    answer = server.client.get("/api/models/mnist-kronecker/samples", params={"limit": 10}).json()
    assert answer["labels"] == list("0123456789")
    assert answer["total"] == 100
    image = np.array(answer["inputs"][3], dtype=np.float32)
    data = load(server.client.get("/api/models/mnist-kronecker").json()["card"]["data"]["name"], lambda line: None)
    (matches,) = np.nonzero((data.x_test == image).all(1))
    assert data.y_test[matches].tolist() == [3]


def test_predict_uses_both_models_of_the_twin_by_default_and_accepts_shaped_images(server: Serving) -> None:
    sample = server.client.get("/api/models/mnist-kronecker/samples", params={"limit": 1}).json()["inputs"][0]
    flat = server.client.post("/api/predict", json={"inputs": [sample]}).json()
    shaped = server.client.post("/api/predict", json={"inputs": [np.reshape(sample, (28, 28)).tolist()]}).json()
    assert [result["model"] for result in flat["results"]] == ["mnist-kronecker", "mnist-dense"]
    for one, other in zip(flat["results"], shaped["results"], strict=True):
        assert one["outputs"] == other["outputs"]


@pytest.mark.alone
def test_the_comparison_shows_the_kronecker_model_to_be_smaller_and_faster(trained_twin: Twin) -> None:
    command = [sys.executable, "-m", "app", "compare", "mnist-kronecker", "mnist-dense", "--json"]
    command += ["--models", str(trained_twin.repository)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment())
    report = json.loads(done.stdout)
    kronecker, dense = report["models"]
    assert (kronecker["role"], dense["role"]) == ("kronecker", "dense")
    assert dense["parameters"] == 1_238_730
    assert kronecker["parameters"] < dense["parameters"] / 100
    assert kronecker["file_bytes"] < dense["file_bytes"] / 40
    assert kronecker["macs_per_sample"] < dense["macs_per_sample"] / 6
    assert kronecker["test_metric"]["value"] == trained_twin.summary["models"]["kronecker"]["test_accuracy"]
    added = [model["memory"]["loaded_rss_bytes"] - model["memory"]["baseline_rss_bytes"] for model in report["models"]]
    assert added[1] - added[0] > 3_000_000  # the dense model has 4.9 MB of weights
    assert [pair["batch_size"] for pair in report["pairs"]] == [1, 32]
    assert report["pairs"][0]["verdict"] == "faster"


def test_health(server: Serving) -> None:
    assert httpx.get(f"{server.address}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{server.address}/v2/health/ready").json() == {"ready": True}


def test_the_curl_commands_of_the_serving_page_run(server: Serving) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    (block,) = [each for each in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL) if "curl" in each]
    commands = block.replace("\\\n", " ").replace("localhost:8000", server.address).splitlines()
    answers = []
    for command in commands:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=True)
        answers.append(json.loads(done.stdout))
    models, prediction, report = answers
    assert models["default"] == ["mnist-kronecker", "mnist-dense"]
    assert [result["outputs"][0]["label"] for result in prediction["results"]] == ["0", "0"]
    assert [pair["batch_size"] for pair in report["pairs"]] == [1, 32]
