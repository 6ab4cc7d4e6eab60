"""The fast path of a real server, over raw sockets: batches, order, and the same answers as `RequestMiddleware`."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.app.conftest import Serving, serving
from tests.app.graphs import Array, classifier, forward, heavy, publish, weights
from tests.app.sockets import rest

NARROW, WIDE = weights([6, 3], seed=1), weights([4, 9, 5], seed=2)
RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("fast-path")
    publish(folder, "narrow", classifier(NARROW))
    publish(folder, "wide", classifier(WIDE))
    publish(folder, "heavy", heavy(width=512, products=150))
    with serving(folder) as running:
        yield running


def connect(server: Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", httpx.URL(server.address).port or 0), timeout=60)


def request(model: str, rows: Array, *, headers: str = "", **parameters: object) -> bytes:
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    body = json.dumps(
        {
            "inputs": [tensor],
            "outputs": [] if model == "heavy" else [{"name": "logits"}],
            "parameters": {"receipt": True} | parameters,
        }
    )
    return post(f"/v2/models/{model}/infer", body.encode(), headers)


def post(path: str, body: bytes, headers: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


Answer = tuple[int, dict[str, str], dict[str, Any]]


def receive(connection: socket.socket, count: int = 1) -> list[Answer]:
    """Status, headers and body of the next answers, which must be the last ones so far."""
    got = []
    with connection.makefile("rb") as file:
        for _ in range(count):
            status = int(file.readline().split()[1])
            headers = {}
            while line := file.readline().strip().decode():
                name, _, value = line.partition(": ")
                headers[name] = value
            got.append((status, headers, json.loads(file.read(int(headers["content-length"])))))
    return got


def logits(answer: dict[str, Any]) -> Array:
    (output,) = answer["outputs"]
    return np.reshape(output["data"], output["shape"])


def test_pipelined_requests_are_answered_in_their_order(server: Serving) -> None:
    """In one packet: requests for the fast path, long ones, refused ones and one for another endpoint."""
    a, b, long = RNG.random((2, 6)), RNG.random((3, 4)), RNG.random((3, 512))
    with connect(server) as connection:
        connection.sendall(
            request("narrow", a)
            + request("heavy", long)
            + request("wide", b)
            + request("wide", a)
            + b"GET /v2/models/narrow HTTP/1.1\r\nHost: localhost\r\n\r\n"
            + request("narrow", a * 2)
        )
        got = receive(connection, 6)
    assert [status for status, _, _ in got] == [200, 200, 200, 400, 200, 200], got[1]
    np.testing.assert_allclose(logits(got[0][2]), forward(NARROW, a), atol=1e-5)
    assert got[1][2]["model_name"] == "heavy"
    np.testing.assert_allclose(logits(got[2][2]), forward(WIDE, b), atol=1e-5)
    assert got[3][2] == {"error": "input 'input': shape: got [2, 6], expected [-1, 4]"}
    assert got[4][2]["name"] == "narrow"
    np.testing.assert_allclose(logits(got[5][2]), forward(NARROW, a * 2), atol=1e-5)
    assert len({headers["x-request-id"] for _, headers, _ in got}) == 6


def test_requests_that_arrive_together_share_runs_and_get_their_own_rows(server: Serving) -> None:
    """Many connections send while the event loop parses a long body: two models, several sizes, one wrong request."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(40)]
        busy = stack.enter_context(connect(server))
        long_body = json.dumps({"inputs": [[0.5] * 6] * 1024, "models": ["narrow"]}).encode()
        shared: set[str] = set()
        for _ in range(20):  # until the machine was quick enough for some to arrive together
            sent: list[tuple[str, list[Array], Array] | None] = []
            busy.sendall(post("/api/predict", long_body))
            for index, connection in enumerate(connections):
                if index == 7:
                    sent.append(None)
                    connection.sendall(request("narrow", RNG.random((1, 5))))
                    continue
                layers, name, width = (WIDE, "wide", 4) if index % 3 == 0 else (NARROW, "narrow", 6)
                rows = RNG.random((1 + index % 4, width))
                sent.append((name, layers, rows))
                connection.sendall(request(name, rows))
            receive(busy)
            for expected, connection in zip(sent, connections, strict=True):
                ((status, _, answer),) = receive(connection)
                if expected is None:
                    assert status == 400
                    continue
                assert status == 200
                name, layers, rows = expected
                np.testing.assert_allclose(logits(answer), forward(layers, rows), atol=1e-5)
                assert answer["parameters"]["batch_size"] >= len(rows)
                assert answer["parameters"]["queue_us"] >= 0
                if answer["parameters"]["batch_size"] > len(rows):
                    shared.add(name)
            if shared == {"narrow", "wide"}:
                break
        assert shared == {"narrow", "wide"}
    text = server.client.get("/metrics").text
    for name in ("narrow", "wide"):  # runs were shared, requests and rows were not
        runs, answered = (
            float(re.search(rf'^{metric}{{model="{name}",version="1"}} (\S+)$', text, re.MULTILINE)[1])  # type: ignore[index]
            for metric in ("nv_inference_exec_count", "nv_inference_request_success")
        )
        assert runs < answered


@pytest.mark.parametrize("at", [30, 60, -200, -1])
def test_a_request_in_two_packets_is_answered_as_in_one(server: Serving, at: int) -> None:
    rows = RNG.random((2, 6))
    message = request("narrow", rows, headers="X-Request-ID: mine\r\n")
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            connection.sendall(message[:at])
            server.client.get("/v2/health/live")  # the first part has been read by then
            connection.sendall(message[at:])
            ((status, headers, answer),) = receive(connection)
            assert (status, headers["x-request-id"]) == (200, "mine")
            np.testing.assert_allclose(logits(answer), forward(NARROW, rows), atol=1e-5)


def test_the_fast_path_and_the_middleware_give_the_same_headers_and_answer(server: Serving) -> None:
    """A request with an `Origin` is left to the middleware."""
    rows = RNG.random((1, 6))
    with connect(server) as connection:
        connection.sendall(request("narrow", rows))
        (fast,) = receive(connection)
        connection.sendall(request("narrow", rows, headers="Origin: http://localhost\r\n"))
        (other,) = receive(connection)
    for headers in (fast[1], other[1]):
        assert headers.pop("x-request-id")
        assert headers.pop("date")
        assert headers.pop("content-length")
    assert fast[1] == other[1]
    assert fast[2]["outputs"] == other[2]["outputs"]
    assert fast[2].keys() == other[2].keys()


@pytest.mark.parametrize("space", [" ", "\t ", ""])
def test_a_content_length_may_end_in_blanks(server: Serving, space: str) -> None:
    message = request("narrow", RNG.random((2, 6)))
    head, _, body = message.partition(b"\r\n\r\n")
    for more in (b"", b"\r\nOrigin: http://localhost"):
        with connect(server) as connection:
            connection.sendall(head + space.encode() + more + b"\r\n\r\n" + body)
            assert receive(connection)[0][0] == 200


def test_a_client_that_has_closed_its_sending_side_is_answered(server: Serving) -> None:
    rows = RNG.random((1, 6))
    with connect(server) as connection:
        connection.sendall(request("narrow", rows))
        connection.shutdown(socket.SHUT_WR)
        ((status, _, answer),) = receive(connection)
        assert status == 200
        np.testing.assert_allclose(logits(answer), forward(NARROW, rows), atol=1e-5)


def test_clients_that_reset_the_connection_before_their_answer_disturb_no_other(server: Serving) -> None:
    for _ in range(20):
        with connect(server) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by a reset
            connection.sendall(request("narrow", RNG.random((1, 6))))
    rows = RNG.random((1, 6))
    with connect(server) as connection:
        connection.sendall(request("narrow", rows))
        np.testing.assert_allclose(logits(receive(connection)[0][2]), forward(NARROW, rows), atol=1e-5)


def test_the_keep_alive_timeout_ends_with_the_first_byte_of_the_next_request(tmp_path: Path) -> None:
    """Loading takes longer than the timeout, which starts when the fast request before it has been answered."""
    publish(tmp_path, "narrow", classifier(NARROW))
    with serving(tmp_path, keep_alive_seconds=0.001) as server:
        connection = connect(server)
        connection.sendall(request("narrow", RNG.random((2, 6))) + post("/v2/repository/models/narrow/load", b""))
        assert rest(connection).count(b"HTTP/1.1 200 OK") == 2
