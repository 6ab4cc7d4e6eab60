"""Predictions of a real server, compared with numpy; wrong requests; overload."""

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from app.models.novelty import edge_histograms
from tests.app.conftest import DENSE, KRONECKER, ROWS, Serving, serving
from tests.app.graphs import CARD, LABELS, classifier, forward, probabilities, publish, weights


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


def test_predict_by_a_regression_model_gives_values(client: httpx.Client) -> None:
    row = np.arange(512, dtype=np.float32) / 512
    answer = client.post("/api/predict", json={"inputs": [row.tolist()], "models": ["heavy"]}).json()
    np.testing.assert_allclose(answer["results"][0]["outputs"][0]["value"], row)
    assert answer["agreement"] is None


def test_a_receipt_has_the_provenance_of_an_answer(client: httpx.Client, models: Path) -> None:
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
        ({"inputs": [row()], "model": "plain"}, "body: got the unknown key 'model', expected inputs, models, novelty"),
        ({"inputs": [row()], "models": "plain"}, "models: got 'plain', expected a list of 1 to 16 names"),
        ({"inputs": [row()], "models": []}, "models: got [], expected a list of 1 to 16 names"),
        ({"inputs": [row()], "models": [1]}, "models: got [1], expected a list of 1 to 16 names"),
        ({"inputs": [row()], "models": ["plain", "plain"]}, "models: got plain, plain, expected different names"),
        ({"inputs": [row()], "receipt": 1}, "receipt: got a number, expected true or false"),
        ({"inputs": [row()], "novelty": 1}, "novelty: got a number, expected true or false"),
        ([1], "body: got a list, expected a JSON object"),
        (None, "body: got null, expected a JSON object"),
    ],
)
def test_wrong_requests_are_400_with_the_reason(client: httpx.Client, body: Any, message: str) -> None:
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
def test_predict_refuses_invalid_json(client: httpx.Client, body: bytes, message: str) -> None:
    answer = client.post("/api/predict", content=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_an_unknown_model_is_404_and_the_known_ones_are_named(client: httpx.Client) -> None:
    expected = "models: got 'nobody', expected one of: heavy, padded, plain, small-dense, small-kronecker"
    for answer in (
        client.get("/api/models/nobody"),
        client.get("/api/models/nobody/samples"),
        client.post("/api/predict", json={"inputs": [row()], "models": ["nobody"]}),
    ):
        assert answer.status_code == 404
        assert answer.json() == {"error": expected}


def test_unknown_paths_and_methods_are_errors_of_the_same_shape(client: httpx.Client) -> None:
    answer = client.get("/api/nothing/here")
    assert (answer.status_code, answer.json()) == (404, {"error": "no such path: /api/nothing/here"})
    answer = client.get("/api/predict")
    assert (answer.status_code, answer.json()) == (405, {"error": "method: got GET, expected POST"})
    assert answer.headers["allow"] == "POST"
    answer = client.get("/static/nothing.js")
    assert (answer.status_code, answer.json()) == (404, {"error": "no such path: /static/nothing.js"})


def test_statistics_count_failures_as_well_as_successes(client: httpx.Client) -> None:
    """At the parsing and after the run, for each model of the request."""

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


@pytest.fixture(scope="module")
def queueless(http_mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that runs one request at a time and queues none."""
    folder = tmp_path_factory.mktemp("queueless")
    publish(folder, "plain", classifier(weights([6, 3])))
    publish(folder, "slow", classifier(weights([64, 3000, 3000, 3])))
    with serving(folder, http=http_mode, instances=1, queue=0, max_batch=200) as running:
        yield running


def test_overload_is_503_with_retry_after(queueless: Serving) -> None:
    body = {"inputs": [[1] * 64] * 70, "models": ["slow"]}
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client() as client:
            answers.extend(client.post(f"{queueless.address}/api/predict", json=body) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json() == {"error": "got 1 waiting requests for this model, expected at most 0 (KRON_QUEUE)"}
    assert refused.headers["Retry-After"] == "1"
    assert queueless.client.post("/api/predict", json=body).is_success


def test_the_event_loop_is_not_blocked_while_a_heavy_model_runs(server: Serving) -> None:
    ended = threading.Event()
    answers: list[httpx.Response] = []

    def predict() -> None:
        body = {"inputs": [[0.0] * 512] * 1024, "models": ["heavy"]}
        answers.append(httpx.post(f"{server.address}/api/predict", json=body, timeout=60))
        ended.set()

    thread = threading.Thread(target=predict)
    thread.start()
    lively = 0
    while not ended.is_set():
        assert server.client.get("/v2/health/live").is_success
        lively += not ended.is_set()
    thread.join()
    compute_us = answers[0].json()["results"][0]["compute_us"]
    # A blocked loop would answer once before the run and once after it.
    assert lively > 5, f"{lively} answers during {compute_us / 1e6:.2f} s"


CARD_OF_BARS = CARD | {"input": {"kind": "image", "shape": [16, 16], "range": [0.0, 1.0]}}
BARS = np.repeat(np.arange(16) % 8 // 4, 16).reshape(1, 16, 16).astype(np.float32)


@pytest.fixture(scope="module")
def image_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Service of models of images of 16x16 whose training images are horizontal bars.

    The detector of `bars` marks images far from these, that of `learned` by its network images like upright bars.
    """
    folder = tmp_path_factory.mktemp("images")
    histograms = edge_histograms(np.concatenate([BARS, BARS.transpose(0, 2, 1)]))
    for name, distance, output in (("bars", 0.1, 0), ("learned", 1e6, 1)):
        path = publish(folder, name, classifier(weights([256, 3]), card=CARD_OF_BARS))
        arrays: dict[str, NDArray[Any]] = {
            "means": histograms[:1],
            "components": np.zeros((1, 0, 200)),
            "limits": np.full(1, distance),
            "hidden": histograms[1:].T,
            "bias": np.full(1, -0.25),
            "output": np.full(1, output),
            "limit": np.array(0.5),
        }
        stored: dict[str, Any] = {key: array.astype(np.float32) for key, array in arrays.items()}
        np.savez(path.with_name("novelty.npz"), **stored)
    damaged = publish(folder, "damaged", classifier(weights([256, 3]), card=CARD_OF_BARS))
    damaged.with_name("novelty.npz").write_bytes(b"PK")
    with serving(folder) as running:
        yield running


def test_images_unlike_the_training_images_are_marked_on_request(image_server: Serving) -> None:
    upright = BARS.transpose(0, 2, 1)
    rows = np.concatenate([BARS, upright]).reshape(2, -1).tolist()
    with httpx.Client(base_url=image_server.address) as client:
        for name, expected in (("bars", [False, True]), ("learned", [False, True]), ("damaged", [None, None])):
            body = {"inputs": rows, "models": [name], "novelty": True}
            outputs = client.post("/api/predict", json=body).json()["results"][0]["outputs"]
            assert [output.get("unlike") for output in outputs] == expected
            silent = client.post("/api/predict", json=body | {"novelty": False}).json()["results"][0]["outputs"]
            assert all("unlike" not in output for output in silent)
        many = client.post("/api/predict", json={"inputs": [rows[0]] * 257, "models": ["bars"], "novelty": True})
        assert many.status_code == 400
        assert "novelty: got 65,792 numbers in all rows, expected at most 65,536" in many.json()["error"]
