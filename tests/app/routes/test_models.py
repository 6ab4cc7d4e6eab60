"""Served models and their samples, at a real server."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from app.system.cpus import available_cpus
from tests.app.conftest import PADDING, ROWS, serving
from tests.app.graphs import CARD, LABELS, classifier, publish, weights


def test_the_list_of_models_has_every_model_and_the_default_twin(client: httpx.Client) -> None:
    answer = client.get("/api/models").json()
    assert [model["name"] for model in answer["models"]] == [
        "heavy",
        "padded",
        "plain",
        "small-dense",
        "small-kronecker",
    ]
    assert answer["default"] == ["small-kronecker", "small-dense"]
    assert answer["cpus"] == available_cpus()
    assert answer["devices"] == ["cpu"]  # these machines have no GPU


def test_model_with_a_card(client: httpx.Client) -> None:
    info = client.get("/api/models/small-kronecker").json()
    assert info["card"] == CARD
    assert info["version"] == "10"  # the highest as a number, not as a string
    assert info["provider"] == "CPUExecutionProvider"
    assert info["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 6]}]
    assert [output["name"] for output in info["outputs"]] == ["logits", "probabilities"]
    assert info["parameters"] == CARD["parameters"]
    assert info["initializer_bytes"] == 4 * 18
    assert info["samples"] == len(ROWS)
    assert info["dispatch"].keys() == {"run_us", "threaded_us", "inline_rows"}
    assert client.get("/api/models/heavy").json()["dispatch"]["inline_rows"] == 0


def test_model_without_a_card(client: httpx.Client) -> None:
    info = client.get("/api/models/padded").json()
    assert info["card"] is None
    assert info["samples"] == 0
    assert info["initializer_bytes"] == 4 * (18 + 1) + PADDING
    assert info["parameters"] == 18 + 1 + PADDING // 4
    assert info["file_bytes"] > info["initializer_bytes"]


def test_samples(client: httpx.Client) -> None:
    answer = client.get("/api/models/small-kronecker/samples", params={"offset": 38, "limit": 5}).json()
    assert (answer["total"], answer["offset"], answer["version"]) == (40, 38, "10")
    np.testing.assert_array_equal(np.float32(answer["inputs"]), ROWS[38:])
    assert answer["labels"] == [LABELS[38 % 3], LABELS[39 % 3]]
    assert len(client.get("/api/models/small-kronecker/samples").json()["inputs"]) == 20
    assert client.get("/api/models/plain/samples").json()["inputs"] == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("offset=-1", "offset: got '-1', expected greater than or equal to 0"),
        ("limit=0", "limit: got '0', expected greater than or equal to 1"),
        ("limit=101", "limit: got '101', expected less than or equal to 100"),
        ("limit=many", "limit: got 'many', expected a valid integer"),
    ],
)
def test_wrong_ranges_of_samples_are_400_with_the_reason(client: httpx.Client, query: str, message: str) -> None:
    answer = client.get(f"/api/models/plain/samples?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


def test_the_others_are_served_beside_a_broken_model(tmp_path: Path) -> None:
    publish(tmp_path, "bad", b"not a model")
    publish(tmp_path, "good", classifier(weights([6, 3])))
    with serving(tmp_path) as server:
        answer = server.client.get("/api/models").json()
        assert [model["name"] for model in answer["models"]] == ["good"]
        assert answer["default"] == ["good"]
        assert server.client.post("/api/predict", json={"inputs": [[0.0] * 6]}).is_success
        answer = server.client.post("/api/compare", json={})
        assert answer.status_code == 400
        assert answer.json() == {"error": "models: got good, expected 2 to 6 different ones"}
