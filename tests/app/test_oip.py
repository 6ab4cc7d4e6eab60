"""The Open Inference Protocol over HTTP, of a real server with models of every datatype and shape."""

import gzip
import hashlib
import http.client
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.oip.datatypes import BINARY_ONLY, DTYPES
from tests.app.conftest import Serving, serving
from tests.app.graphs import LABELS, Array, classifier, forward, probabilities
from tests.app.oip_models import DIGITS, LAYERS, OLD_LAYERS, TYPES, publish_all

ROWS: Array = np.random.default_rng(5).random((4, 6)).astype(np.float32)
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("oip")
    publish_all(folder)
    with serving(folder, version_policy="latest:2", max_body_bytes=200_000) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Serving) -> httpx.Client:
    return server.client


def tensor(name: str, values: Array, datatype: str) -> dict[str, Any]:
    data = [value.item() if hasattr(value, "item") else value for value in values.ravel()]
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "data": data}


def infer(client: httpx.Client, model: str, *inputs: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """Outputs by name, as they stand in the response."""
    answer = client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **rest})
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def values_of(output: dict[str, Any]) -> Array:
    return np.array(output["data"]).reshape(output["shape"])


def test_server_metadata(client: httpx.Client) -> None:
    answer = client.get("/v2").json()
    assert answer["name"] == "kronmodel"
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} < set(answer["extensions"])
    assert not {"sequence", "trace", "logging", "system_shared_memory"} & set(answer["extensions"])


def test_health(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_model_metadata_and_readiness(client: httpx.Client) -> None:
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
    assert client.get("/v2/models/digits").json() == expected
    assert client.get("/v2/models/digits/versions/9").json() == expected
    assert client.get("/v2/models/digits/ready").json() == {"name": "digits", "ready": True}
    assert client.get("/v2/models/digits/versions/10/ready").json() == {"name": "digits", "ready": True}
    assert client.get("/v2/models/scalar").json()["inputs"] == [{"name": "x", "datatype": "INT32", "shape": []}]
    assert [entry["datatype"] for entry in client.get("/v2/models/two").json()["inputs"]] == ["FP32", "INT64"]


def test_model_config_has_dims_without_the_batch_where_there_is_one(client: httpx.Client) -> None:
    def config(model: str) -> tuple[int, list[int]]:
        answer = client.get(f"/v2/models/{model}/config").json()
        return answer["max_batch_size"], answer["input"][0]["dims"]

    assert config("digits") == (1024, [6])
    assert config("fixed") == (0, [4, 6])
    assert config("vector") == (0, [5])
    assert config("outer") == (0, [-1, 4])
    assert config("centred") == (0, [-1, 2])
    answer = client.get("/v2/models/echo-BYTES/versions/1/config").json()
    assert answer["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [3]}]


def test_versions(client: httpx.Client) -> None:
    body = {"inputs": [tensor("input", ROWS, "FP32")], "id": "seven"}
    for path, version, layers in (
        ("digits", "10", LAYERS),
        ("digits/versions/10", "10", LAYERS),
        ("digits/versions/9", "9", OLD_LAYERS),
    ):
        answer = client.post(f"/v2/models/{path}/infer", json=body).json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", version, "seven")
        logits = next(output for output in answer["outputs"] if output["name"] == "logits")
        np.testing.assert_allclose(values_of(logits), forward(layers, ROWS), atol=1e-5)
    assert "id" not in client.post("/v2/models/digits/infer", json={"inputs": body["inputs"]}).json()


SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "FP16": [0.5, -2.0, 65504.0],
    "BF16": [0.5, -2.0, 3.3895e38],
    "FP32": [0.1, -3.4e38, 1e-45],
    "FP64": [0.1, -1.7e308, 5e-324],
    "BYTES": ["", "grün", "\u0000\U0001f600"],
}


def sample(datatype: str) -> Array:
    """One row of three that has the extremes of its type."""
    if datatype == "BYTES":
        return np.array([SAMPLES[datatype]], object)
    dtype = DTYPES[datatype]
    if datatype in SAMPLES:
        return np.array([SAMPLES[datatype]], dtype)
    return np.array([[np.iinfo(dtype).min, 7, np.iinfo(dtype).max]], dtype)


@pytest.mark.parametrize("datatype", [datatype for datatype in TYPES if datatype not in BINARY_ONLY])
def test_every_datatype_by_json(client: httpx.Client, datatype: str) -> None:
    values = sample(datatype)
    output = infer(client, f"echo-{datatype}", tensor("x", values, datatype))["y"]
    assert (output["datatype"], output["shape"]) == (datatype, [1, 3])
    np.testing.assert_array_equal(np.array(output["data"], values.dtype), values[0])


def blob_of(values: Array, datatype: str) -> bytes:
    if datatype != "BYTES":
        return values.tobytes()
    texts = [text.encode() for text in values.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


@pytest.mark.parametrize("datatype", TYPES)
def test_every_datatype_by_binary_data(client: httpx.Client, datatype: str) -> None:
    values = sample(datatype)
    blob = blob_of(values, datatype)
    entry = {"name": "x", "shape": [1, 3], "datatype": datatype, "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    path = f"/v2/models/echo-{datatype}/infer"
    answer = client.post(path, content=head + blob, headers={LENGTH: str(len(head))})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    output = json.loads(answer.content[:length])["outputs"][0]
    assert output == {
        "name": "y",
        "datatype": datatype,
        "shape": [1, 3],
        "parameters": {"binary_data_size": len(blob)},
    }
    assert answer.content[length:] == blob


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_half_precision_is_for_binary_data_only(client: httpx.Client, datatype: str) -> None:
    data = {"name": "x", "shape": [1, 3], "datatype": datatype, "data": [0.5, 1, 2]}
    for body in (
        {"inputs": [data], "parameters": {"binary_data_output": True}},
        {"inputs": [{"name": "x", "shape": [1, 3], "datatype": datatype, "parameters": {"binary_data_size": 6}}]},
    ):
        answer = client.post(f"/v2/models/echo-{datatype}/infer", content=json.dumps(body))
        assert answer.status_code == 400
        reason = answer.json()["error"]
        assert f"{datatype} has no JSON form" in reason or "bytes of binary data" in reason


def test_several_inputs_and_outputs_in_the_order_asked_for(client: httpx.Client) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[3, -4, 5], [6, 7, -8]])
    inputs = [tensor("b", b, "INT64"), tensor("a", a, "FP32")]
    outputs = infer(client, "two", *inputs)
    np.testing.assert_array_equal(values_of(outputs["sum"]), a + b)
    np.testing.assert_array_equal(values_of(outputs["product"]), a * b)
    assert list(outputs) == ["sum", "product"]
    assert list(infer(client, "two", *inputs, outputs=[{"name": "product"}, {"name": "sum"}])) == ["product", "sum"]
    assert list(infer(client, "two", *inputs, outputs=[{"name": "product"}])) == ["product"]


def test_binary_and_json_side_by_side(client: httpx.Client) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[3, -4, 5], [6, 7, -8]])
    entry = {"name": "b", "shape": [2, 3], "datatype": "INT64", "parameters": {"binary_data_size": b.nbytes}}
    outputs = [{"name": "sum"}, {"name": "product", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor("a", a, "FP32"), entry], "outputs": outputs}).encode()
    answer = client.post("/v2/models/two/infer", content=head + b.tobytes(), headers={LENGTH: str(len(head))})
    length = int(answer.headers[LENGTH])
    by_json, binary = json.loads(answer.content[:length])["outputs"]
    np.testing.assert_array_equal(values_of(by_json), a + b)
    assert binary["parameters"] == {"binary_data_size": 24}
    np.testing.assert_array_equal(np.frombuffer(answer.content[length:], np.float32).reshape(2, 3), a * b)


def test_models_without_a_batch_axis_or_with_a_fixed_one(client: httpx.Client) -> None:
    fixed = infer(client, "fixed", tensor("input", ROWS, "FP32"))["probabilities"]
    np.testing.assert_allclose(values_of(fixed), probabilities(LAYERS, ROWS), atol=1e-5)
    vector = infer(client, "vector", tensor("x", np.arange(5.0), "FP32"))["y"]
    assert (vector["shape"], vector["data"]) == ([5], [0, 1, 2, 3, 4])
    scalar = infer(client, "scalar", {"name": "x", "shape": [], "datatype": "INT32", "data": [-7]})["y"]
    assert (scalar["shape"], scalar["data"]) == ([], [-7])
    outer = infer(client, "outer", tensor("x", ROWS[:3, :4], "FP32"), tensor("y", ROWS[:2, :4], "FP32"))["out"]
    np.testing.assert_allclose(values_of(outer), ROWS[:3, :4] @ ROWS[:2, :4].T, rtol=1e-5)
    centred = infer(client, "centred", tensor("x", ROWS[:, :2], "FP32"))["y"]
    np.testing.assert_allclose(values_of(centred), ROWS[:, :2] - ROWS[:, :2].mean(axis=0), atol=1e-6)
    ragged = infer(client, "ragged", tensor("x", ROWS, "FP32"))["y"]
    np.testing.assert_array_equal(values_of(ragged).astype(np.float32), ROWS)
    empty = infer(client, "ragged", {"name": "x", "shape": [2, 0], "datatype": "FP32", "data": [[], []]})["y"]
    assert (empty["shape"], empty["data"]) == ([2, 0], [])


def test_raw_mode(client: httpx.Client) -> None:
    answer = client.post("/v2/models/digits/infer", content=ROWS[0].tobytes(), headers={LENGTH: "0"})
    length = int(answer.headers[LENGTH])
    outputs = json.loads(answer.content[:length])["outputs"]
    assert [output["shape"] for output in outputs] == [[1, 3], [1, 3]]
    values = np.frombuffer(answer.content[length:], np.float32)
    np.testing.assert_allclose(values[:3], forward(LAYERS, ROWS[:1])[0], atol=1e-5)
    answer = client.post("/v2/models/word/infer", content="grün".encode(), headers={LENGTH: "0"})
    assert answer.content.endswith(b"\5\0\0\0" + "grün".encode())
    answer = client.post("/v2/models/two/infer", content=b"1234", headers={LENGTH: "0"})
    assert (answer.status_code, "expected one" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_compression_both_ways(client: httpx.Client, name: str) -> None:
    rows = np.tile(ROWS, (50, 1))
    blob = rows.tobytes()
    entry = {"name": "input", "shape": [200, 6], "datatype": "FP32", "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    compress = gzip.compress if name == "gzip" else zlib.compress
    headers = {LENGTH: str(len(head)), "Content-Encoding": name, "Accept-Encoding": name}
    answer = client.post("/v2/models/plain/infer", content=compress(head + blob), headers=headers)
    assert answer.headers["content-encoding"] == name
    assert int(answer.headers["content-length"]) < len(answer.content)
    logits = np.frombuffer(answer.content[int(answer.headers[LENGTH]) :], np.float32).reshape(200, 3)
    np.testing.assert_allclose(logits, forward(LAYERS, rows), atol=1e-5)
    small = client.post(
        "/v2/models/plain/infer",
        json={"inputs": [tensor("input", ROWS, "FP32")]},
        headers={"Accept-Encoding": name},
    )
    assert "content-encoding" not in small.headers  # too short to be worth it


def test_classification_with_the_cards_labels_and_without(client: httpx.Client) -> None:
    wanted = {"name": "probabilities", "parameters": {"classification": 2}}
    output = infer(client, "digits", tensor("input", ROWS, "FP32"), outputs=[wanted])["probabilities"]
    expected = probabilities(LAYERS, ROWS)
    assert (output["datatype"], output["shape"]) == ("BYTES", [4, 2])
    for row, classes in zip(expected, np.array(output["data"]).reshape(4, 2), strict=True):
        best = row.argsort()[::-1][:2]
        for element, index in zip(classes, best, strict=True):
            value, its_index, label = element.split(":")
            assert (int(its_index), label) == (index, LABELS[index])
            assert float(value) == pytest.approx(row[index], abs=1e-5)
    wanted = {"name": "logits", "parameters": {"classification": 99}}
    output = infer(client, "plain", tensor("input", ROWS[:1], "FP32"), outputs=[wanted])["logits"]
    assert output["shape"] == [1, 3]
    assert all(element.count(":") == 1 for element in output["data"])
    wanted = {"name": "y", "parameters": {"classification": 2}}
    output = infer(client, "vector", tensor("x", np.array([0.5, 4, 2, 3, 1]), "FP32"), outputs=[wanted])["y"]
    assert (output["shape"], output["data"]) == ([2], ["4.0:1", "3.0:3"])


def test_a_receipt_says_how_the_answer_came_about(client: httpx.Client) -> None:
    body = {"inputs": [tensor("input", ROWS, "FP32")], "parameters": {"receipt": True}}
    answer = client.post("/v2/models/digits/infer", json=body).json()
    receipt = answer["parameters"]
    assert receipt["model_sha256"] == hashlib.sha256(classifier(LAYERS, card=DIGITS).SerializeToString()).hexdigest()
    assert (receipt["provider"], receipt["batch_size"]) == ("CPUExecutionProvider", 4)
    assert receipt["threads"] >= 1
    assert receipt["queue_us"] >= 0
    assert receipt["compute_us"] > 0
    body = body | {"parameters": {"receipt": 1}}
    answer = client.post("/v2/models/digits/infer", json=body)
    assert answer.json() == {"error": "request: receipt: got 1, expected true or false"}


def test_statistics_add_up(client: httpx.Client) -> None:
    def read(path: str = "digits/versions/9") -> dict[str, Any]:
        stats = client.get(f"/v2/models/{path}/stats").json()["model_stats"]
        assert len(stats) == 1
        found: dict[str, Any] = stats[0]
        return found

    before = read()
    for rows in (1, 3, 3):
        client.post("/v2/models/digits/versions/9/infer", json={"inputs": [tensor("input", ROWS[:rows], "FP32")]})
    client.post("/v2/models/digits/versions/9/infer", json={"inputs": []})
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
    assert {stats["version"] for stats in client.get("/v2/models/digits/stats").json()["model_stats"]} == {"9", "10"}
    names = {stats["name"] for stats in client.get("/v2/models/stats").json()["model_stats"]}
    assert {"digits", "scalar", "echo-BYTES"} < names


def test_index(client: httpx.Client) -> None:
    for content in (b"", b"{}", b'{"ready": false}', b'{"ready": true}'):
        index = client.post("/v2/repository/index", content=content).json()
        ours = [entry for entry in index if entry["name"] == "digits"]
        assert ours == [
            {"name": "digits", "version": version, "state": "READY", "reason": ""} for version in ("9", "10")
        ]


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"", {}, 400, "body: got nothing, expected a JSON object"),
        (b"[]", {}, 400, "body: got a list, expected a JSON object"),
        (b'{"inputs": [NaN]}', {}, 400, "expected finite numbers"),
        (b"{}", {LENGTH: "-1"}, 400, "Inference-Header-Content-Length: got '-1', expected a number of bytes"),
        (b"{}", {LENGTH: "two"}, 400, "Inference-Header-Content-Length: got 'two'"),
        (b"{}", {LENGTH: "3"}, 400, "Inference-Header-Content-Length: got 3, expected 0 to 2"),
        (b"{}", {LENGTH: "9" * 100}, 400, "Inference-Header-Content-Length: got '99999"),
        (b"{}", {"Content-Encoding": "br"}, 415, "Content-Encoding: got 'br', expected gzip, deflate or identity"),
        (b"{}", {"Content-Encoding": "gzip"}, 400, "body: not gzip: "),
        (gzip.compress(bytes(10**6)), {"Content-Encoding": "gzip"}, 413, "got more than 200000 bytes once inflated"),
        (b" " * 200_001, {}, 413, "body: got 200001 bytes or more, expected at most 200000 (KRON_MAX_BODY_BYTES)"),
    ],
)
def test_what_is_wrong_with_a_body(
    client: httpx.Client, content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    answer = client.post("/v2/models/digits/infer", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert message in answer.json()["error"]


def test_values_that_only_the_model_can_refuse(client: httpx.Client) -> None:
    answer = client.post("/v2/models/lookup/infer", json={"inputs": [tensor("ids", np.array([1, 5]), "INT64")]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("inputs: onnxruntime refuses them: ")
    rows = infer(client, "lookup", tensor("ids", np.array([4, 0]), "INT64"))["rows"]
    assert rows["data"] == [8, 9, 0, 1]
    zero = [tensor("x", np.array([[0.0, 2.0]]), "FP32")]
    answer = client.post("/v2/models/reciprocal/infer", json={"inputs": zero})
    assert answer.status_code == 400
    assert "not finite, which JSON cannot say; ask for binary_data" in answer.json()["error"]
    binary = {"inputs": zero, "parameters": {"binary_data_output": True}}
    answer = client.post("/v2/models/reciprocal/infer", json=binary)
    np.testing.assert_array_equal(
        np.frombuffer(answer.content[int(answer.headers[LENGTH]) :], np.float32), [np.inf, 0.5]
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        (
            "GET",
            "/v2/models/nobody",
            404,
            "Request for unknown model: got 'nobody', expected one of: centred, digits, ",
        ),
        ("GET", "/v2/models/nobody/ready", 404, "Request for unknown model: got 'nobody'"),
        ("GET", "/v2/models/nobody/stats", 404, "Request for unknown model: got 'nobody'"),
        ("POST", "/v2/models/nobody/infer", 404, "Request for unknown model: got 'nobody'"),
        ("GET", "/v2/models/digits/versions/8", 404, "version of digits: got '8', expected one of: 10, 9"),
        ("POST", "/v2/models/digits/versions/x/infer", 404, "version of digits: got 'x'"),
        ("POST", "/v2/repository/models/nobody/load", 404, "failed to load 'nobody': expected the name of a folder"),
        ("POST", "/v2/repository/models/..%2Fdigits/load", 404, ""),
        ("POST", "/v2/repository/models/.hidden/load", 404, "failed to load '.hidden'"),
        ("POST", "/v2/repository/models/nobody/unload", 404, "models: got 'nobody'"),
        ("GET", "/v2/models/digits/infer", 405, "method: got GET, expected POST"),
        ("DELETE", "/v2/models/digits/versions/9/infer", 405, "method: got DELETE, expected POST"),
        ("GET", "/v2/repository/index", 405, "method: got GET, expected POST"),
        ("POST", "/v2", 405, "method: got POST, expected GET"),
        ("GET", "/v2/nothing", 404, "no such path: /v2/nothing"),
        ("GET", "/v2/logging", 501, "log settings: not supported by this server"),
        ("POST", "/v2/trace/setting", 501, "trace settings: not supported"),
        ("GET", "/v2/models/digits/trace/setting", 501, "trace settings: not supported"),
        ("GET", "/v2/systemsharedmemory/status", 501, "shared memory: not supported"),
        ("POST", "/v2/cudasharedmemory/region/r/register", 501, "shared memory: not supported"),
        ("POST", "/v2/models/digits/generate", 501, "generate: not supported"),
    ],
)
def test_every_error_is_of_one_shape(client: httpx.Client, method: str, path: str, status: int, message: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("index", b'{"ready": 1}', 400, "ready: got 1, expected true or false"),
        ("index", b"[]", 400, "body: got a list, expected a JSON object"),
        ("models/digits/load", b"{", 400, "expected a JSON object"),
        ("models/digits/load", b'{"parameters": {"config": "{}"}}', 501, "load: parameter 'config': models are loaded"),
        ("models/digits/load", b'{"parameters": {"file:1/model.onnx": "QQ=="}}', 501, "load: parameter 'file:1/model"),
        ("models/digits/load", b'{"parameters": {"other": 1}}', 400, "load: got the unknown parameter 'other'"),
        ("models/digits/load", b'{"parameters": [1]}', 400, "parameters: got [1], expected an object"),
        ("models/digits/unload", b'{"parameters": {"unload_dependents": 1}}', 400, "expected a boolean"),
    ],
)
def test_repository_requests_that_are_wrong(
    client: httpx.Client, path: str, body: bytes, status: int, message: str
) -> None:
    answer = client.post(f"/v2/repository/{path}", content=body)
    assert (answer.status_code, answer.json().keys()) == (status, {"error"})
    assert message in answer.json()["error"]
    assert client.get("/v2/models/digits/ready").is_success


def test_a_body_in_chunks_and_a_client_that_goes_away(server: Serving) -> None:
    body = json.dumps({"inputs": [tensor("input", ROWS, "FP32")]}).encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    assert server.client.post("/v2/models/plain/infer", content=pieces()).is_success
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(server.address).port or 0, timeout=30)
    connection.putrequest("POST", "/v2/models/plain/infer")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    connection.close()
    assert server.client.get("/v2/health/ready").is_success


def test_the_api_lists_such_models_and_says_why_it_cannot_use_them(client: httpx.Client) -> None:
    models = {model["name"]: model for model in client.get("/api/models").json()["models"]}
    assert "unusable" not in models["digits"]
    assert models["two"]["unusable"] == "got 2 inputs, expected 1"
    assert models["echo-BYTES"]["unusable"].startswith("input 'x': got BYTES, expected one of FP32")
    message = "models: two cannot be used here, only at /v2: got 2 inputs, expected 1"
    for path, body in (
        ("predict", {"inputs": [[0] * 6], "models": ["digits", "two"]}),
        ("compare", {"models": ["digits", "two"]}),
    ):
        answer = client.post(f"/api/{path}", json=body)
        assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_openapi_has_the_protocol_with_examples_that_hold(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        content = paths[path]["post"]["requestBody"]["content"]
        assert content.keys() == {"application/json", "application/octet-stream"}
        for example in content["application/json"]["examples"].values():
            image = example["value"]["inputs"][0]
            assert len(image["data"]) == np.prod(image["shape"]) == 784
    for path in ("/v2", "/v2/models/{name}/stats", "/v2/repository/index", "/v2/repository/models/{name}/load"):
        assert path in paths
