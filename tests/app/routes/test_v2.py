"""The Open Inference Protocol but for inference, at a real server with models of every datatype and shape."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.app.graphs import forward
from tests.app.oip_calls import ROWS, tensor, values_of
from tests.app.oip_models import LAYERS, OLD_LAYERS


def test_server_metadata(oip: httpx.Client) -> None:
    answer = oip.get("/v2").json()
    assert answer["name"] == "kronmodel"
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} < set(answer["extensions"])
    assert not {"sequence", "trace", "logging", "system_shared_memory"} & set(answer["extensions"])


def test_health(oip: httpx.Client) -> None:
    assert oip.get("/v2/health/live").json() == {"live": True}
    assert oip.get("/v2/health/ready").json() == {"ready": True}


def test_model_metadata_and_readiness(oip: httpx.Client) -> None:
    expected = {
        "name": "digits",
        "versions": ["9", "10"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 6]}],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }
    assert oip.get("/v2/models/digits").json() == expected
    assert oip.get("/v2/models/digits/versions/9").json() == expected
    assert oip.get("/v2/models/digits/ready").json() == {"name": "digits", "ready": True}
    assert oip.get("/v2/models/digits/versions/10/ready").json() == {"name": "digits", "ready": True}
    assert oip.get("/v2/models/scalar").json()["inputs"] == [{"name": "x", "datatype": "INT32", "shape": []}]
    assert [entry["datatype"] for entry in oip.get("/v2/models/two").json()["inputs"]] == ["FP32", "INT64"]


def test_model_config_leaves_the_batch_axis_out_of_dims(oip: httpx.Client) -> None:
    def config(model: str) -> tuple[int, list[int]]:
        answer = oip.get(f"/v2/models/{model}/config").json()
        return answer["max_batch_size"], answer["input"][0]["dims"]

    assert config("digits") == (1024, [6])
    assert config("fixed") == (0, [4, 6])
    assert config("vector") == (0, [5])
    assert config("outer") == (0, [-1, 4])
    assert config("centred") == (1024, [2])  # rows that depend on each other are rows nonetheless
    answer = oip.get("/v2/models/echo-BYTES/versions/1/config").json()
    assert answer["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [3]}]


def test_versions(oip: httpx.Client) -> None:
    body = {"inputs": [tensor("input", ROWS, "FP32")], "id": "seven"}
    for path, version, layers in (
        ("digits", "10", LAYERS),
        ("digits/versions/10", "10", LAYERS),
        ("digits/versions/9", "9", OLD_LAYERS),
    ):
        answer = oip.post(f"/v2/models/{path}/infer", json=body).json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", version, "seven")
        logits = next(output for output in answer["outputs"] if output["name"] == "logits")
        np.testing.assert_allclose(values_of(logits), forward(layers, ROWS), atol=1e-5)
    assert "id" not in oip.post("/v2/models/digits/infer", json={"inputs": body["inputs"]}).json()


def test_statistics_add_up(oip: httpx.Client) -> None:
    def read(path: str = "digits/versions/9") -> dict[str, Any]:
        stats = oip.get(f"/v2/models/{path}/stats").json()["model_stats"]
        assert len(stats) == 1
        found: dict[str, Any] = stats[0]
        return found

    before = read()
    for rows in (1, 3, 3):
        oip.post("/v2/models/digits/versions/9/infer", json={"inputs": [tensor("input", ROWS[:rows], "FP32")]})
    oip.post("/v2/models/digits/versions/9/infer", json={"inputs": []})
    after = read()
    assert (after["name"], after["version"]) == ("digits", "9")
    assert after["last_inference"] >= before["last_inference"]
    assert after["inference_count"] - before["inference_count"] == 7
    assert after["execution_count"] - before["execution_count"] == 3
    inference = after["inference_stats"]
    counts = {key: stage["count"] - before["inference_stats"][key]["count"] for key, stage in inference.items()}
    assert counts == {
        "success": 3, "fail": 1, "queue": 3, "compute_input": 3, "compute_infer": 3, "compute_output": 3,
        "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    assert inference["success"]["ns"] == pytest.approx(sum(inference[stage]["ns"] for stage in stages), abs=4)
    assert all(inference[stage]["ns"] > 0 for stage in stages if stage != "queue")  # no queue on the event loop
    sizes = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in after["batch_stats"]}
    assert sizes[1] >= 1
    assert sizes[3] >= 2
    assert {stats["version"] for stats in oip.get("/v2/models/digits/stats").json()["model_stats"]} == {"9", "10"}
    names = {stats["name"] for stats in oip.get("/v2/models/stats").json()["model_stats"]}
    assert {"digits", "scalar", "echo-BYTES"} < names


def test_index(oip: httpx.Client) -> None:
    for content in (b"", b"{}", b'{"ready": false}', b'{"ready": true}'):
        index = oip.post("/v2/repository/index", content=content).json()
        ours = [entry for entry in index if entry["name"] == "digits"]
        assert ours == [
            {"name": "digits", "version": version, "state": "READY", "reason": ""} for version in ("9", "10")
        ]


def test_the_api_lists_models_without_rows_with_the_reason_why_it_cannot_use_them(oip: httpx.Client) -> None:
    models = {model["name"]: model for model in oip.get("/api/models").json()["models"]}
    assert "unusable" not in models["digits"]
    assert models["two"]["unusable"] == "got 2 inputs, expected 1"
    assert models["echo-BYTES"]["unusable"].startswith("input 'x': got BYTES, expected one of FP32")
    for path, body, message in (
        (
            "predict",
            {"inputs": [[0] * 6], "models": ["digits", "two"]},
            "models: two cannot be used here, only at /v2: got 2 inputs, expected 1",
        ),
        (
            "compare",
            {"models": ["digits", "two"]},
            "models: got the inputs input of digits and a, b of two, expected models with the same inputs",
        ),
    ):
        answer = oip.post(f"/api/{path}", json=body)
        assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_openapi_has_the_protocol_with_working_examples(oip: httpx.Client) -> None:
    paths = oip.get("/openapi.json").json()["paths"]
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        content = paths[path]["post"]["requestBody"]["content"]
        assert content.keys() == {"application/json", "application/octet-stream"}
        for example in content["application/json"]["examples"].values():
            image = example["value"]["inputs"][0]
            assert len(image["data"]) == np.prod(image["shape"]) == 784
    for path in ("/v2", "/v2/models/{name}/stats", "/v2/repository/index", "/v2/repository/models/{name}/load"):
        assert path in paths
