"""Served models and their samples, at a real server."""

import hashlib
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


def test_the_file_is_the_model_that_is_served(client: httpx.Client) -> None:
    info = client.get("/api/models/small-kronecker").json()
    assert info["downloadable"]
    answer = client.get("/api/models/small-kronecker/file?version=10")
    rows = {"models": ["small-kronecker"], "inputs": ROWS[:3].tolist(), "receipt": True}
    (result,) = client.post("/api/predict", json=rows).json()["results"]
    digest = hashlib.sha256(answer.content).hexdigest()
    assert digest == result["receipt"]["model_sha256"]
    assert len(answer.content) == info["file_bytes"]
    assert answer.headers["etag"] == f'"{digest}"'
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["content-type"] == "application/onnx"
    again = client.get("/api/models/small-kronecker/file", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]
    other = client.get("/api/models/small-kronecker/file", headers={"If-None-Match": '"another"'})
    assert other.content == answer.content


def test_files_that_are_not_there_or_not_in_service_are_404(client: httpx.Client) -> None:
    for path in ("none/file", "small-kronecker/file?version=3", "small-kronecker/file?version=..%2F10"):
        answer = client.get(f"/api/models/{path}")
        assert answer.status_code == 404, path
        assert "expected one of" in answer.json()["error"]


def test_large_files_and_changed_ones_are_not_handed_out(tmp_path: Path) -> None:
    path = publish(tmp_path, "small", classifier(weights([6, 3])))
    publish(tmp_path, "large", classifier(weights([6, 400, 3])))
    with serving(tmp_path, max_download_bytes=5000) as server:
        assert not server.client.get("/api/models/large").json()["downloadable"]
        answer = server.client.get("/api/models/large/file")
        assert answer.status_code == 404
        assert "expected at most 5000 (KRON_MAX_DOWNLOAD_BYTES)" in answer.json()["error"]
        assert server.client.get("/api/models/small/file").is_success
        path.write_bytes(classifier(weights([6, 3], seed=1)).SerializeToString())
        answer = server.client.get("/api/models/small/file")
        assert answer.status_code == 500
        assert "small: the file was changed after it was loaded" in answer.json()["error"]


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
