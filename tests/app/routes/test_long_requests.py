"""A real server stays responsive whatever one client sends within the limits; compressed requests of all kinds."""

import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto

from app.http.compression import FREE_BYTES
from app.oip.request import MAX_STRINGS
from tests.app.conftest import KRONECKER, ROWS, Serving, serving
from tests.app.graphs import CARD, classifier, probabilities, publish
from tests.app.oip_models import echo
from tests.app.sockets import GET, connect, until

GZIP = {"Content-Encoding": "gzip"}
MANY_LISTS = b"[0]," * 2_000_000 + b"[0]"

# What parsing one such body at once takes on this machine, under its present load.
PARSE = """
import orjson, time
text = b"[" + b"[0]," * 2_000_000 + b"[0]]"
start = time.perf_counter()
orjson.loads(text)
print(time.perf_counter() - start)
"""


@pytest.fixture(scope="module")
def echoes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("echoes")
    publish(folder, "floats", echo(TensorProto.FLOAT, [None, None]))
    publish(folder, "strings", echo(TensorProto.STRING, [None, None]))
    publish(folder, "rows", classifier(KRONECKER, card=CARD))
    with serving(folder) as running:
        yield running


def _infer(model: str, shape: Sequence[int], datatype: str, data: bytes) -> tuple[str, dict[str, str], bytes]:
    entry = b'{"inputs":[{"name":"x","shape":%b,"datatype":"%b","data":[%b]}]}'
    return f"/v2/models/{model}/infer", {}, entry % (json.dumps(shape).encode(), datatype.encode(), data)


class Watch(threading.Thread):
    """Asks for the service's health again and again, and keeps the longest wait in seconds."""

    def __init__(self, server: Serving) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._ended = threading.Event()
        self.longest = 0.0
        self.count = 0

    def run(self) -> None:
        with connect(self._server) as opened:
            opened.settimeout(120)
            while not self._ended.is_set():
                start = time.perf_counter()
                opened.sendall(GET)
                until(opened, b"}")
                self.longest = max(self.longest, time.perf_counter() - start)
                self.count += 1
                self._ended.wait(0.002)

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def test_no_request_keeps_a_health_check_waiting(echoes: Serving) -> None:
    """The longest wait is far below the time that parsing one of the bodies at once takes, which is what it was."""
    lists = _infer("rows", [1, 6], "FP32", MANY_LISTS)
    path, _, text = lists
    rows = b",".join([b"[0.125,0.5,1,2,3,4]"] * 1000)
    numbers = b"0.5," * 999_999 + b"0.5"
    strings = b'"a,]",' * (MAX_STRINGS - 1) + b'"a,]"'
    requests: list[tuple[int, tuple[str, dict[str, str], bytes]]] = [
        (400, ("/api/predict", {}, b'{"inputs":[' + b"[0,0]," * 1_300_000 + b"[0,0]]}")),
        (400, ("/api/predict", {}, b'{"inputs":[[' + MANY_LISTS + b"]]}")),
        (200, ("/api/predict", {}, b'{"inputs":[' + rows + b" " * 5_000_000 + b'],"models":["rows"]}')),
        (200, _infer("floats", [1, 1_000_000], "FP32", numbers)),
        (200, _infer("strings", [1, MAX_STRINGS], "BYTES", strings)),
        (400, _infer("floats", [1, 9], "FP32", b"[" * 15_000_000)),
        (400, _infer("floats", [1, 9], "FP32", b"{}," * 2_000_000)),
        (400, _infer("strings", [1, 9], "BYTES", b'"\\"",' * 1_000_000 + b'"a"')),
        (413, ("/v2/models/rows/infer", {}, b'{"inputs":[' + b"[]," * 2_500_000 + b"[]]}")),
        (413, ("/api/compare", {}, b'{"models":[' + MANY_LISTS + b"]}")),
        (413, ("/v2/repository/index", {}, b'{"ready":[' + MANY_LISTS + b"]}")),
        *[(413, (path, GZIP, gzip.compress(text + b" " * FREE_BYTES, 1)))] * 4,
        *[(400, lists)] * 4,
    ]
    stall = float(subprocess.run([sys.executable, "-c", PARSE], capture_output=True, check=True, text=True).stdout)
    got: dict[int, int] = {}

    def send(index: int) -> None:
        path, headers, body = requests[index][1]
        with httpx.Client(base_url=echoes.address, timeout=120) as client:
            got[index] = client.post(path, headers=headers, content=body).status_code

    with Watch(echoes) as watch:
        for index in range(len(requests) - 8):
            send(index)
        for first in (len(requests) - 8, len(requests) - 4):  # four at the same time
            threads = [threading.Thread(target=send, args=(first + index,)) for index in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert watch.count > 50
    assert watch.longest < max(0.25, stall / 2), f"{watch.longest:.3f} s, while parsing at once takes {stall:.3f} s"
    assert [got[index] for index in range(len(requests))] == [status for status, _ in requests]


def test_long_and_short_requests_have_the_same_answers(echoes: Serving) -> None:
    values = np.random.default_rng(1).random((1, 30_000)).astype(np.float32)
    assert len(json.dumps(values.tolist())) > 2**18
    entry = {"name": "x", "shape": [1, 30_000], "datatype": "FP32", "data": values.tolist()}
    answer = echoes.client.post("/v2/models/floats/infer", json={"inputs": [entry], "id": "long"}).json()
    assert answer["id"] == "long"
    np.testing.assert_array_equal(np.array(answer["outputs"][0]["data"], np.float32), values.ravel())

    rows = np.resize(ROWS, (1000, 6))
    body = json.dumps({"inputs": rows.tolist(), "models": ["rows"]}, indent=4)
    assert len(body) > 100_000
    outputs = echoes.client.post("/api/predict", content=body).json()["results"][0]["outputs"]
    np.testing.assert_allclose([row["probabilities"] for row in outputs], probabilities(KRONECKER, rows), atol=1e-5)


def test_statistics_count_long_requests(echoes: Serving) -> None:
    def counts() -> tuple[int, int]:
        found = echoes.client.get("/v2/models/floats/stats").json()["model_stats"][0]["inference_stats"]
        return found["success"]["count"], found["fail"]["count"]

    success, fail = counts()
    path, _, body = _infer("floats", [1, 40_000], "FP32", b"1," * 39_999 + b"1")
    assert echoes.client.post(path, content=body).status_code == 200
    assert echoes.client.post(path, content=body[:-2]).status_code == 400
    assert counts() == (success + 1, fail + 1)


def _gzipped(value: object) -> dict[str, Any]:
    return {"content": gzip.compress(json.dumps(value).encode()), "headers": GZIP}


@pytest.mark.parametrize("count", [2, 1000])
def test_predict_takes_gzip_and_deflate(echoes: Serving, count: int) -> None:
    rows = np.resize(ROWS, (count, 6))
    expected = probabilities(KRONECKER, rows)
    answer = echoes.client.post("/api/predict", **_gzipped({"inputs": rows.tolist(), "models": ["rows"]}))
    assert answer.status_code == 200
    outputs = answer.json()["results"][0]["outputs"]
    np.testing.assert_allclose([row["probabilities"] for row in outputs], expected, atol=1e-5)
    wrong = echoes.client.post("/api/predict", content=b"{}", headers=GZIP)
    assert (wrong.status_code, wrong.json()["error"][:19]) == (400, "body: not gzip: Err")
    assert echoes.client.post("/api/predict", content=b"{}", headers={"Content-Encoding": "br"}).status_code == 415


@pytest.mark.parametrize("path", ["/api/compare", "/api/sweeps", "/api/trainings"])
def test_other_requests_take_gzip(echoes: Serving, path: str) -> None:
    answer = echoes.client.post(path, **_gzipped({"no such key": 1}))
    assert answer.status_code == 400
    assert "unknown key 'no such key'" in answer.json()["error"]
    answer = echoes.client.post(path, **_gzipped(["x" * (FREE_BYTES + 1)]))
    assert answer.status_code == 413
    assert "KRON_MAX_INFLATION" in answer.json()["error"]


def test_a_client_that_disconnects_does_not_stop_long_requests(echoes: Serving) -> None:
    """Its work ends, and the next long request is answered."""
    path, _, body = _infer("floats", [1, 2_000_000], "FP32", b"0.5," * 1_999_999 + b"0.5")
    url = httpx.URL(echoes.address)
    for _ in range(5):
        with socket.create_connection((url.host, url.port or 80)) as opened:
            opened.sendall(
                b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body))
            )
            opened.sendall(body)
    assert echoes.client.post(path, content=body).status_code == 200


def test_an_answer_of_many_megabytes_arrives_whole(echoes: Serving) -> None:
    values = np.arange(3_000_000, dtype=np.float32).reshape(1, -1)
    header = {
        "inputs": [
            {
                "name": "x",
                "shape": [1, 3_000_000],
                "datatype": "FP32",
                "parameters": {"binary_data_size": values.nbytes},
            }
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(header).encode()
    answer = echoes.client.post(
        "/v2/models/floats/infer",
        content=text + values.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(text))},
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    np.testing.assert_array_equal(np.frombuffer(answer.content[length:], np.float32), values[0])
