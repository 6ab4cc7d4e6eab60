"""The API of a real server, against numpy and against everything that clients get wrong."""

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.system.cpus import available_cpus
from tests.app.conftest import DENSE, KRONECKER, PADDING, ROWS
from tests.app.graphs import CARD, LABELS, forward, probabilities


def test_models_lists_every_model_and_the_default_twin(client: httpx.Client) -> None:
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
    assert info["version"] == "10"  # the highest as a number, not as text
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


def test_predict_agrees_with_numpy(client: httpx.Client) -> None:
    answer = client.post("/api/predict", json={"inputs": ROWS.tolist()}).json()
    kronecker, dense = answer["results"]
    assert (kronecker["model"], dense["model"]) == ("small-kronecker", "small-dense")
    labels = []
    for result, layers in ((kronecker, KRONECKER), (dense, DENSE)):
        expected = probabilities(layers, ROWS)
        np.testing.assert_allclose([row["probabilities"] for row in result["outputs"]], expected, atol=1e-5)
        labels.append([LABELS[index] for index in expected.argmax(axis=1)])
        assert [row["label"] for row in result["outputs"]] == labels[-1]
        assert result["provider"] == "CPUExecutionProvider"
        assert result["queue_us"] >= 0
        assert result["compute_us"] > 0
    assert answer["agreement"] == pytest.approx(np.mean(np.array(labels[0]) == np.array(labels[1])))


@pytest.mark.parametrize("shape", [(2, 6), (2, 2, 3)])
def test_predict_takes_rows_flat_or_in_the_cards_shape(client: httpx.Client, shape: tuple[int, ...]) -> None:
    rows = ROWS[:2].reshape(shape).tolist()
    answer = client.post("/api/predict", json={"inputs": rows, "models": ["small-kronecker"]}).json()
    outputs = [row["probabilities"] for row in answer["results"][0]["outputs"]]
    np.testing.assert_allclose(outputs, probabilities(KRONECKER, ROWS[:2]), atol=1e-5)
    assert answer["agreement"] is None


def test_predict_without_a_card_takes_the_softmax_of_logits_and_numbers_the_labels(client: httpx.Client) -> None:
    answer = client.post("/api/predict", json={"inputs": ROWS[:3].tolist(), "models": ["plain"]}).json()
    outputs = answer["results"][0]["outputs"]
    expected = probabilities(KRONECKER, ROWS[:3])
    np.testing.assert_allclose([row["probabilities"] for row in outputs], expected, atol=1e-5)
    assert [row["label"] for row in outputs] == [str(index) for index in forward(KRONECKER, ROWS[:3]).argmax(axis=1)]


def test_predict_of_a_model_that_is_no_classifier_gives_values(client: httpx.Client) -> None:
    row = np.arange(512, dtype=np.float32) / 512
    answer = client.post("/api/predict", json={"inputs": [row.tolist()], "models": ["heavy"]}).json()
    np.testing.assert_allclose(answer["results"][0]["outputs"][0]["value"], row)
    assert answer["agreement"] is None


def test_a_receipt_says_where_an_answer_comes_from(client: httpx.Client, models: Path) -> None:
    body = {"inputs": ROWS[:3].tolist(), "models": ["plain", "padded"], "receipt": True}
    for result in client.post("/api/predict", json=body).json()["results"]:
        file = models / result["model"] / "1" / "model.onnx"
        receipt = result["receipt"]
        assert receipt["model_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert (receipt["provider"], receipt["threads"]) == ("CPUExecutionProvider", 1)
        assert (receipt["queue_us"], receipt["compute_us"]) == (result["queue_us"], result["compute_us"])
        assert receipt["batch_size"] >= 3
    assert "receipt" not in client.post("/api/predict", json=body | {"receipt": False}).json()["results"][0]


def row(**changes: Any) -> list[Any]:
    values: list[Any] = [0.5] * 6
    for place, value in changes.items():
        values[int(place[1:])] = value
    return values


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "inputs: missing, expected a list of rows"),
        ({"inputs": 1}, "inputs: got a number, expected a list of rows"),
        ({"inputs": {"a": 1}}, "inputs: got an object, expected a list of rows"),
        ({"inputs": []}, "inputs: got 0 rows, expected 1 to 1024"),
        ({"inputs": [row()] * 1025}, "inputs: got 1025 rows, expected 1 to 1024"),
        ({"inputs": [row(), [1.0] * 5]}, "inputs[1]: got 5 values, expected 6"),
        ({"inputs": [row(), [[1.0] * 3, [1.0] * 4]]}, "inputs[1][1]: got 4 values, expected 3"),
        ({"inputs": [[[1.0] * 3]]}, "inputs[0]: got 1 values, expected 2"),
        ({"inputs": [[[[1.0]]]]}, "inputs[0]: got lists nested 3 deep, expected 6 numbers or 2×3 numbers"),
        ({"inputs": [row(), 3]}, "inputs[1]: got a number, expected 6 numbers or 2×3 numbers"),
        ({"inputs": [row(), None]}, "inputs[1]: got null, expected 6 numbers or 2×3 numbers"),
        ({"inputs": [row(), "text"]}, "inputs[1]: got a string, expected 6 numbers or 2×3 numbers"),
        ({"inputs": [row(_2="1.5")]}, "inputs[0]: value 2: got a string, expected a number"),
        ({"inputs": [row(_5=None)]}, "inputs[0]: value 5: got null, expected a number"),
        ({"inputs": [row(_5=True)]}, "inputs[0]: value 5: got a boolean, expected a number"),
        ({"inputs": [row(_1=[1.0])]}, "inputs[0]: value 1: got a list, expected a number"),
        ({"inputs": [row(_1={})]}, "inputs[0]: value 1: got an object, expected a number"),
        ({"inputs": [row(), row(_3=1e39)]}, "inputs[1]: value 3: got 1e+39, expected a finite number"),
        ({"inputs": [row()], "model": "plain"}, "body: got the unknown key 'model', expected inputs, models, receipt"),
        ({"inputs": [row()], "models": "plain"}, "models: expected a list of 1 to 16 names"),
        ({"inputs": [row()], "models": []}, "models: expected a list of 1 to 16 names"),
        ({"inputs": [row()], "models": [1]}, "models: expected a list of 1 to 16 names"),
        ({"inputs": [row()], "models": ["plain", "plain"]}, "models: got plain, plain, expected different names"),
        ({"inputs": [row()], "receipt": 1}, "receipt: got a number, expected true or false"),
        ([1], "body: got a list, expected a JSON object"),
        (None, "body: got null, expected a JSON object"),
    ],
)
def test_predict_says_what_is_wrong(client: httpx.Client, body: Any, message: str) -> None:
    answer = client.post("/api/predict", content=json.dumps(body))
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert message in answer.json()["error"]


def test_predict_names_the_row_that_has_no_finite_answer(client: httpx.Client) -> None:
    overflowing = np.where(KRONECKER[0][:, 0] > 0, 3e38, -3e38).tolist()
    answer = client.post("/api/predict", json={"inputs": [row(), overflowing]})
    assert answer.status_code == 400
    assert answer.json() == {"error": "inputs[1]: small-kronecker has no finite answer to it"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: got nothing, expected a JSON object"),
        (b"{", "expected a JSON object"),
        (b"\xff\xfe", "expected a JSON object"),
        (b'{"inputs": [[NaN, 0]]}', "body: got NaN at character 13, expected finite numbers"),
        (b'{"inputs": [[-Infinity, 0]]}', "expected finite numbers"),
        (b'{"inputs": [[Infinity, 0]]}', "body: got Infinity at character 13, expected finite numbers"),
        (b'{"inputs": [[1e999, 0]]}', "expected finite numbers"),
        (b"[" * 100_000, "expected a JSON object"),
    ],
)
def test_predict_refuses_what_is_not_json(client: httpx.Client, body: bytes, message: str) -> None:
    answer = client.post("/api/predict", content=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_unknown_model_is_404_and_names_those_that_are_there(client: httpx.Client) -> None:
    expected = "models: got 'nobody', expected one of: heavy, padded, plain, small-dense, small-kronecker"
    for answer in (
        client.get("/api/models/nobody"),
        client.get("/api/models/nobody/samples"),
        client.post("/api/predict", json={"inputs": [row()], "models": ["nobody"]}),
    ):
        assert answer.status_code == 404
        assert answer.json() == {"error": expected}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("offset=-1", "offset: got '-1', expected greater than or equal to 0"),
        ("limit=0", "limit: got '0', expected greater than or equal to 1"),
        ("limit=101", "limit: got '101', expected less than or equal to 100"),
        ("limit=many", "limit: got 'many', expected a valid integer"),
    ],
)
def test_samples_says_what_is_wrong(client: httpx.Client, query: str, message: str) -> None:
    answer = client.get(f"/api/models/plain/samples?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


def test_unknown_paths_and_methods_are_errors_of_the_same_shape(client: httpx.Client) -> None:
    answer = client.get("/api/nothing/here")
    assert (answer.status_code, answer.json()) == (404, {"error": "no such path: /api/nothing/here"})
    answer = client.get("/api/predict")
    assert (answer.status_code, answer.json()) == (405, {"error": "method: got GET, expected POST"})
    assert answer.headers["allow"] == "POST"
    answer = client.get("/static/nothing.js")
    assert (answer.status_code, answer.json()) == (404, {"error": "no such path: /static/nothing.js"})


def test_health_and_metrics(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}

    def value(series: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(series + " ")), "0"))

    plain = 'model="plain",version="1"'
    names = (
        f"nv_inference_request_success{{{plain}}}",
        f'nv_inference_request_failure{{{plain},reason="OTHER"}}',
        'kron_failures_total{reason="BadRequest"}',
        f"nv_inference_count{{{plain}}}",
        f"nv_inference_exec_count{{{plain}}}",
        f"kron_compute_seconds_count{{{plain}}}",
        f"kron_batch_rows_sum{{{plain}}}",
        f'kron_batch_rows_bucket{{{plain},le="2"}}',
        f'kron_batch_rows_bucket{{{plain},le="4"}}',
        f"kron_queue_seconds_count{{{plain}}}",
        f'kron_request_seconds_bucket{{{plain},le="+Inf"}}',
    )
    before = [value(name) for name in names]
    client.post("/api/predict", json={"inputs": [row()] * 3, "models": ["plain"]})
    client.post("/api/predict", json={"inputs": [row()[1:]], "models": ["plain"]})
    assert [value(name) - old for name, old in zip(names, before, strict=True)] == [1, 1, 1, 3, 1, 1, 3, 0, 1, 1, 1]
    for name in ("request", "queue", "compute_infer"):
        assert value(f"nv_inference_{name}_duration_us{{{plain}}}") >= 0
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    assert {"nv_inference_request_success", "kron_request_seconds", "process_resident_memory_bytes"} <= {
        family.name for family in families
    }
    info = 'kron_model_info{model="plain",provider="CPUExecutionProvider",threads='
    assert info in client.get("/metrics").text


def test_failures_are_in_the_statistics_as_successes_are(client: httpx.Client) -> None:
    """Whether there is an answer at once or only later, of every model that was asked for it."""

    def counts() -> list[tuple[int, int]]:
        stages = [
            client.get(f"/v2/models/{name}/stats").json()["model_stats"][0]["inference_stats"]
            for name in ("plain", "small-dense")
        ]
        return [(stage["success"]["count"], stage["fail"]["count"]) for stage in stages]

    overflowing = np.where(KRONECKER[0][:, 0] > 0, 3e38, -3e38).tolist()
    before = counts()
    for rows in ([row()], [row()[1:]], [row(), overflowing], [row()] * 3):
        client.post("/api/predict", json={"inputs": rows, "models": ["plain"]})
    client.post("/api/predict", json={"inputs": [row()[2:]], "models": ["plain", "small-dense"]})
    client.post("/api/predict", json={"inputs": [row()[2:]], "models": ["plain", "nobody"]})
    assert [(a - c, b - d) for (a, b), (c, d) in zip(counts(), before, strict=True)] == [(2, 3), (0, 1)]


def test_openapi_describes_requests_errors_and_examples(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v2/health/ready" in paths
    for path in ("/api/predict", "/api/compare", "/api/trainings"):
        operation = paths[path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        assert content["examples"]
        assert content["schema"]["additionalProperties"] is False
        assert "422" not in operation["responses"]
        assert operation["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
