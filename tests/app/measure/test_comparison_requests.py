"""Requests of comparisons that are refused, with the reason."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper

from app.measure.comparison import compare
from app.measure.comparison_schemas import CompareRequest
from app.measure.inputs.uploaded import UploadedInputs
from app.models.scan import read_folder
from app.settings import Settings
from tests.app.conftest import serving
from tests.app.graphs import classifier, publish, weights
from tests.app.oip_models import Spec, graph


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"models": ["plain"]}, 400, "models: got ['plain'], expected"),
        ({"models": ["plain", "plain"]}, 400, "models: got plain, plain, expected 2 to 6 different ones"),
        ({"models": ["plain", "nobody"]}, 404, "models: got 'nobody', expected one of: heavy"),
        ({"models": "plain"}, 400, "models: got 'plain', expected a valid list"),
        ({"batch_sizes": []}, 400, "batch_sizes: got [], expected"),
        ({"batch_sizes": [0]}, 400, "batch_sizes[0]: got 0, expected greater than or equal to 1"),
        ({"batch_sizes": [1, 2.5]}, 400, "batch_sizes[1]: got 2.5, expected a valid integer"),
        ({"batch_sizes": [1, 1]}, 400, "batch_sizes: got [1, 1], expected different ones"),
        ({"batch_sizes": [1025]}, 400, "batch_sizes: got 1025, expected at most 1024"),
        ({"batch_sizes": list(range(1, 10))}, 400, "batch_sizes: got [1, 2"),
        ({"threads": 0}, 400, "threads: got 0, expected greater than or equal to 1"),
        ({"threads": 256}, 400, "threads: got 256, expected at most"),
        ({"seconds": 0}, 400, "seconds: got 0, expected greater than or equal to 0.1"),
        ({"seconds": 200.1}, 400, "seconds: got 200.1, expected at most 200, of KRON_COMPARE_SECONDS"),
        ({"depths": ["socket"]}, 400, "depths[0]: got 'socket', expected 'session', 'queue' or 'http'"),
        ({"device": "tpu"}, 400, "device: got 'tpu', expected 'cpu' or 'cuda'"),
        (
            {"seed": 1},
            400,
            "body: got the unknown key 'seed', expected batch_sizes, depths, device, models, nodes, seconds, threads",
        ),
    ],
)
def test_a_bad_comparison_is_refused_with_the_reason(
    client: httpx.Client, body: Any, status: int, message: str
) -> None:
    for accept in ("application/json", "text/event-stream"):
        answer = client.post("/api/compare", json=body, headers={"Accept": accept})
        assert answer.status_code == status
        assert answer.json()["error"].startswith(message)


def test_an_unavailable_device_is_refused_with_the_available_ones(client: httpx.Client) -> None:
    answer = client.post("/api/compare", json={"device": "cuda"})
    if answer.status_code == 200:
        pytest.skip("there is a GPU here")
    assert answer.status_code == 400
    assert "device: got 'cuda', expected one of: cpu (" in answer.json()["error"]
    assert "CPUExecutionProvider" in answer.json()["error"]


def test_models_with_infinite_outputs_or_other_shapes_are_refused_by_name(tmp_path: Path) -> None:
    publish(tmp_path, "good", classifier(weights([6, 3])))
    publish(tmp_path, "infinite", classifier([np.full((6, 3), 3e38, np.float32)]))
    publish(tmp_path, "wide", classifier(weights([7, 3])))
    publish(tmp_path, "four", classifier(weights([6, 4])))
    with serving(tmp_path) as server:
        for other, message in (
            ("infinite", "inputs: got none, and the models fail on generated ones: infinite: the output "),
            ("wide", "models: got the input 'input' as [batch, 6] of good and [batch, 7] of wide, expected"),
            ("four", "models: got the output 'logits' as [batch, 3] of good and [batch, 4] of four, expected the same"),
        ):
            answer = server.client.post("/api/compare", json={"models": ["good", other], "batch_sizes": [2]})
            assert answer.status_code == 400
            assert answer.json()["error"].startswith(message)
        server.wait_until_childless()


def test_batch_sizes_at_which_a_model_fails_are_left_out(tmp_path: Path) -> None:
    """Its shapes declare any batch, its Reshape takes three rows."""
    for name in ("one", "two"):
        nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
        x: Spec = ("x", TensorProto.FLOAT, ["batch", 4])
        publish(tmp_path, name, graph(nodes, [x], [("y", TensorProto.FLOAT, [2, 6])], {"shape": np.array([2, 6])}))
    rows = np.arange(28, dtype=np.float32).reshape(7, 4)
    settings = Settings(models=tmp_path, threads=1)
    artifacts = list(asyncio.run(read_folder(settings)).artifacts.values())
    request = CompareRequest(batch_sizes=[1, 3, 8], seconds=0.1)
    uploaded = UploadedInputs("mine.npy", {"inputs": rows}, None)
    report = asyncio.run(compare(artifacts, request, settings, lambda *_: None, uploaded=uploaded))
    assert report.settings.batch_sizes == [3]
    assert report.inputs is not None
    first, second = report.inputs.notes
    assert first.startswith("Batch size 1 was not measured: one: onnxruntime failed: ")
    assert second.startswith("Batch size 8 was not measured: one: onnxruntime failed: ")
    assert [(each.rows, each.largest) for each in report.differences] == [(7, 0.0)]


def test_a_model_of_a_fixed_batch_is_measured_at_its_own_size(tmp_path: Path) -> None:
    publish(tmp_path, "fixed", classifier(weights([6, 3]), batch=3))
    publish(tmp_path, "good", classifier(weights([6, 3])))
    with serving(tmp_path) as server:
        body = {"models": ["good", "fixed"], "batch_sizes": [1, 3, 8], "seconds": 0.2}
        answer = server.client.post("/api/compare", json=body)
        assert answer.status_code == 200, answer.text
        report = answer.json()
        assert report["settings"]["batch_sizes"] == [3]
        assert report["inputs"]["notes"] == [
            "fixed takes batches of 3 only: all models were measured at that size, not at batch sizes 1, 8."
        ]
        for model in report["models"]:
            assert [latency["batch_size"] for latency in model["latency"]] == [3]
        assert {each["largest"] for each in report["differences"]} == {0.0}
        answer = server.client.post("/api/predict", json={"inputs": [[1.0] * 6] * 2, "models": ["fixed"]})
        assert answer.status_code == 400
        assert answer.json()["error"] == "inputs: got 2 rows, expected exactly 3: fixed has a fixed batch size"
        assert server.client.post("/api/predict", json={"inputs": [[1.0] * 6] * 3, "models": ["fixed"]}).is_success
