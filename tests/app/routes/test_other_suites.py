"""What the HTTP tests of Triton, KServe and MLServer check and the protocol requires, written anew for this service.

docs/conformance.md lists the tests of those suites, which of them apply, and the test here that does the same.
"""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest

from tests.app.conftest import Serving
from tests.app.oip_calls import LENGTH, tensor
from tests.app.sockets import answer as read_refusal
from tests.app.sockets import connect, rest

RAW = {LENGTH: "0"}
A = tensor("a", np.arange(3, dtype=np.float32).reshape(1, 3), "FP32")
B = tensor("b", np.array([[4, 5, 6]]), "INT64")
SUM, PRODUCT = [4.0, 6.0, 8.0], [0.0, 5.0, 12.0]


@pytest.fixture(autouse=True)
def alive(oip: httpx.Client) -> Iterator[None]:
    """After each test, whatever it sent, the service is live and right."""
    yield
    assert oip.get("/v2/health/live").status_code == 200
    answer = oip.post("/v2/models/two/infer", json={"inputs": [A, B]})
    assert [output["data"] for output in answer.json()["outputs"]] == [SUM, PRODUCT]


@pytest.mark.parametrize("count", [8, 32, 40_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_raw_binary(oip: httpx.Client, count: int, chunked: bool) -> None:
    body = np.arange(count, dtype=np.float32).tobytes()
    content = iter([body[:7], body[7:]]) if chunked else body
    answer = oip.post("/v2/models/ragged/infer", content=content, headers=RAW)
    assert answer.content[int(answer.headers[LENGTH]) :] == body


def test_raw_string(oip: httpx.Client) -> None:
    answer = oip.post("/v2/models/word/infer", content=b"427", headers=RAW)
    assert answer.content[int(answer.headers[LENGTH]) :] == struct.pack("<I", 3) + b"427"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("echo-BYTES", "expected one element"),  # more than one element
        ("ragged2", "expected at most one dimension to infer"),  # several free sizes beside the batch
        ("two", "expected one"),  # several inputs
    ],
)
def test_raw_requests_whose_shape_is_not_determined(oip: httpx.Client, model: str, message: str) -> None:
    answer = oip.post(f"/v2/models/{model}/infer", content=bytes(24), headers=RAW)
    assert (answer.status_code, message in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize("shape", [[2**4, 2**60 + 2], [2**2, 2**60 + 2], [2, -5], [1, 2**31], [1, 3.0], [True, 3], "3"])
def test_shapes_that_overflow_or_are_none(oip: httpx.Client, shape: Any) -> None:
    entry = {"name": "x", "shape": shape, "datatype": "FP32", "data": [1.0]}
    answer = oip.post("/v2/models/ragged/infer", json={"inputs": [entry]})
    assert (answer.status_code, answer.json()["error"].startswith("input 'x'")) == (400, True), answer.text


@pytest.mark.parametrize(("datatype", "value"), [("BYTES", '"hello"'), ("INT64", "123")])
def test_nested_json(oip: httpx.Client, datatype: str, value: str) -> None:
    def ask(depth: int, end: str) -> httpx.Response:
        data = "[" * depth + ",".join([value] * 3) + end * depth
        entry = f'{{"name": "x", "shape": [1, 3], "datatype": "{datatype}", "data": {data}}}'
        return oip.post(f"/v2/models/echo-{datatype}/infer", content=f'{{"inputs": [{entry}]}}')

    assert ask(50, "]").json()["outputs"][0]["data"] == [json.loads(value)] * 3
    assert ask(90_000, "]").status_code == 400
    assert ask(90_000, "").status_code == 400


def test_an_output_asked_for_twice(oip: httpx.Client) -> None:
    answer = oip.post("/v2/models/two/infer", json={"inputs": [A, B], "outputs": [{"name": "sum"}] * 2})
    assert (answer.status_code, "twice" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize("count", [2, 4])
def test_fewer_and_more_elements_than_the_shape_says(oip: httpx.Client, count: int) -> None:
    answer = oip.post("/v2/models/two/infer", json={"inputs": [A | {"data": [1.0] * count}, B]})
    assert answer.json() == {"error": f"input 'a': data: got {count} elements, expected 3 for shape [1, 3]"}


@pytest.mark.parametrize(
    ("everything", "first", "second", "binary"),
    [
        (None, None, None, (False, False)),
        (None, True, False, (True, False)),
        (None, True, None, (True, False)),
        (True, None, None, (True, True)),
        (True, False, None, (False, True)),
        (True, True, False, (True, False)),
        (False, True, None, (True, False)),
    ],
)
def test_which_outputs_are_binary(
    oip: httpx.Client, everything: bool | None, first: bool | None, second: bool | None, binary: tuple[bool, bool]
) -> None:
    request: dict[str, Any] = {"inputs": [A, B]}
    if everything is not None:
        request["parameters"] = {"binary_data_output": everything}
    if (first, second) != (None, None):
        request["outputs"] = [
            {"name": name} | ({} if flag is None else {"parameters": {"binary_data": flag}})
            for name, flag in (("sum", first), ("product", second))
        ]
    answer = oip.post("/v2/models/two/infer", json=request)
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    outputs, blob = json.loads(answer.content[:length])["outputs"], answer.content[length:]
    for output, is_binary, expected in zip(outputs, binary, (SUM, PRODUCT), strict=True):
        if is_binary:
            assert "data" not in output
            size = output["parameters"]["binary_data_size"]
            assert np.frombuffer(blob[:size], np.float32).tolist() == expected
            blob = blob[size:]
        else:
            assert output["data"] == expected
    assert blob == b""


def test_half_precision_is_binary_only(oip: httpx.Client) -> None:
    values = np.array([[6.8, 2.8, 4.8]], np.float16)
    entry = {"name": "x", "shape": [1, 3], "datatype": "FP16"}
    by_json = oip.post("/v2/models/echo-FP16/infer", json={"inputs": [entry | {"data": values.tolist()}]})
    assert by_json.status_code == 400
    binary = entry | {"parameters": {"binary_data_size": values.nbytes}}
    for wanted, status in ((True, 200), (False, 400)):
        head = json.dumps({"inputs": [binary], "parameters": {"binary_data_output": wanted}}).encode()
        headers = {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
        answer = oip.post("/v2/models/echo-FP16/infer", content=head + values.tobytes(), headers=headers)
        assert answer.status_code == status
        assert not wanted or answer.content.endswith(values.tobytes())


def test_an_id_comes_back_and_unknown_parameters_are_ignored(oip: httpx.Client) -> None:
    parameters = {"test-str": "dummy", "test-bool": True, "test-int": 100, "test-float": 1.3}
    request = {"id": "123", "parameters": parameters, "inputs": [A | {"parameters": parameters}, B]}
    answer = oip.post("/v2/models/two/infer", json=request).json()
    assert (answer["id"], answer["model_name"], answer["outputs"][0]["data"]) == ("123", "two", SUM)


def test_a_body_at_the_limit_and_beyond(oip: httpx.Client) -> None:
    for size, status in ((200_000, 200), (200_004, 413)):
        body = bytes(size)
        answer = oip.post("/v2/models/ragged/infer", content=body, headers=RAW)
        assert answer.status_code == status
        assert status == 413 or answer.content[int(answer.headers[LENGTH]) :] == body
    payload = {"parameters": {"config": "{}", "file:1/model.onnx": "A" * 300_000}}
    assert oip.post("/v2/repository/models/invalid/load", json=payload).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/two/infer", "/v2/repository/index", "/v2/repository/models/two/load", "/v2/models/two/generate",
        "/v2/repository/models/nobody/unload", "/v2/logging", "/v2/models/two/trace/setting",
        "/v2/systemsharedmemory/region/x/register", "/v2/cudasharedmemory/region/x/register",
    ],
)  # fmt: skip
def test_a_body_of_very_many_chunks(oip_server: Serving, path: str) -> None:
    opened = connect(oip_server)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{LENGTH}: 0\r\nTransfer-Encoding: chunked\r\nConnection: close"
    with suppress(BrokenPipeError, ConnectionResetError):  # the service may answer before it has read all
        opened.sendall(f"{head}\r\n\r\n".encode())
        for _ in range(200):
            opened.sendall(b"1\r\nA\r\n" * 1000)
        opened.sendall(b"0\r\n\r\n")
        opened.shutdown(socket.SHUT_WR)
    status, error = read_refusal(rest(opened))
    assert status in {400, 404, 413, 431, 501}
    assert error


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "X" * 40])
def test_every_method_on_every_path(oip: httpx.Client, method: str) -> None:
    paths = [
        "", "/models/two", "/models/two/infer", "/models/two/versions/v1", "/models/two/config", "/models/two/stats",
        "/models/two/ready", "/health/ready", "/health/live", "/repository/index", "/systemsharedmemory/status",
        "/systemsharedmemory/region/xx/status", "/cudasharedmemory/region/xx/unregister", "/models//infer", "/%00/%ff",
    ]  # fmt: skip
    for path in paths:
        answer = oip.request(method, f"/v2{path}")
        assert answer.status_code < 500 or answer.status_code == 501, (path, answer.text)
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.json().keys() == {"error"}, (path, answer.text)


def test_versions_and_unknown_models(oip: httpx.Client) -> None:
    for path in ("/v2/models/two/infer", "/v2/models/two/versions/1/infer"):
        assert oip.post(path, json={"inputs": [A, B]}).json()["outputs"][0]["data"] == SUM
    assert oip.get("/v2/models/two/versions/1/ready").status_code == 200
    for path in ("/v2/models/my-model/versions/v0/infer", "/v2/models/two/versions/v0/infer"):
        assert oip.post(path, json={"inputs": [A, B]}).status_code == 404
    assert oip.post("/v2/repository/models/my-model/load").status_code == 404
    answer = oip.post("/v2/models/two/infer", json={"inputs": [A | {"datatype": "FLOAT"}, B]})
    assert (answer.status_code, "datatype" in answer.json()["error"]) == (400, True)


def test_unload_and_load(oip: httpx.Client) -> None:
    entry = tensor("x", np.arange(5, dtype=np.float32), "FP32")
    assert oip.post("/v2/repository/models/vector/unload").status_code == 200
    try:
        assert oip.get("/v2/models/vector/ready").status_code == 400
        assert oip.post("/v2/models/vector/infer", json={"inputs": [entry]}).status_code in {400, 404, 503}
        states = {each["name"]: each["state"] for each in oip.post("/v2/repository/index", json={}).json()}
        assert (states["vector"], states["two"]) == ("UNAVAILABLE", "READY")
    finally:
        assert oip.post("/v2/repository/models/vector/load").status_code == 200
    assert oip.post("/v2/models/vector/infer", json={"inputs": [entry]}).json()["outputs"][0]["data"] == entry["data"]
