"""Errors of the Open Inference Protocol, at a real server."""

import gzip
import http.client
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.app.conftest import Serving
from tests.app.oip_calls import LENGTH, ROWS, infer, tensor


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
def test_wrong_bodies(oip: httpx.Client, content: bytes, headers: dict[str, str], status: int, message: str) -> None:
    answer = oip.post("/v2/models/digits/infer", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert message in answer.json()["error"]


def test_values_that_the_model_itself_refuses(oip: httpx.Client) -> None:
    answer = oip.post("/v2/models/lookup/infer", json={"inputs": [tensor("ids", np.array([1, 5]), "INT64")]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("inputs: onnxruntime refuses them: ")
    rows = infer(oip, "lookup", tensor("ids", np.array([4, 0]), "INT64"))["rows"]
    assert rows["data"] == [8, 9, 0, 1]
    zero = [tensor("x", np.array([[0.0, 2.0]]), "FP32")]
    answer = oip.post("/v2/models/reciprocal/infer", json={"inputs": zero})
    assert answer.status_code == 400
    assert "not finite, which JSON cannot express; ask for binary_data" in answer.json()["error"]
    binary = {"inputs": zero, "parameters": {"binary_data_output": True}}
    answer = oip.post("/v2/models/reciprocal/infer", json=binary)
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
        ("POST", "/v2", 405, "method: got POST, expected GET, HEAD"),
        ("GET", "/v2/nothing", 404, "no such path: /v2/nothing"),
        ("GET", "/v2/logging", 501, "log settings: not supported by this server"),
        ("POST", "/v2/trace/setting", 501, "trace settings: not supported"),
        ("GET", "/v2/models/digits/trace/setting", 501, "trace settings: not supported"),
        ("GET", "/v2/systemsharedmemory/status", 501, "shared memory: not supported"),
        ("POST", "/v2/cudasharedmemory/region/r/register", 501, "send tensors in the request, as binary data (binary_"),
        (
            "POST",
            "/v2/models/digits/generate",
            501,
            "not supported by this server; send tensors to /v2/models/NAME/infer",
        ),
        ("POST", "/v1/models/digits:predict", 404, "POST /v2/models/NAME/infer, or POST /api/predict"),
        ("GET", "/v1/models", 404, "no such path: /v1/models; this service speaks version 2 of the protocol"),
        ("POST", "/v2/models/digits/generate", 501, "generate: not supported"),
    ],
)
def test_every_error_has_the_same_shape(oip: httpx.Client, method: str, path: str, status: int, message: str) -> None:
    answer = oip.request(method, path)
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
def test_wrong_repository_requests(oip: httpx.Client, path: str, body: bytes, status: int, message: str) -> None:
    answer = oip.post(f"/v2/repository/{path}", content=body)
    assert (answer.status_code, answer.json().keys()) == (status, {"error"})
    assert message in answer.json()["error"]
    assert oip.get("/v2/models/digits/ready").is_success


def test_a_chunked_body_and_a_client_that_disconnects(oip_server: Serving) -> None:
    body = json.dumps({"inputs": [tensor("input", ROWS, "FP32")]}).encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    assert oip_server.client.post("/v2/models/plain/infer", content=pieces()).is_success
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(oip_server.address).port or 0, timeout=30)
    connection.putrequest("POST", "/v2/models/plain/infer")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    connection.close()
    assert oip_server.client.get("/v2/health/ready").is_success
