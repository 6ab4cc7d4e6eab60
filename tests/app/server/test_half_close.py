"""Clients that have ended their side: those that wait are answered, and work for those that are gone is dropped."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.server.connection_state import State
from app.server.half_close import STATUS_LINE_START
from tests.app.conftest import Serving, serving, wait_until
from tests.app.graphs import classifier, forward, heavy, publish, weights
from tests.app.server.driver import Driver, drive, turn
from tests.app.sockets import GET, connect, rest, until

LAYERS = weights([6, 3])
POST = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
FAST = POST.replace(b"/a", b"/fast")


def responses(written: bytes) -> list[bytes]:
    """The last two bytes of each response, all of which have to be whole."""
    parts = written.split(b"HTTP/1.1 ")[1:]
    assert b"".join(b"HTTP/1.1 " + part for part in parts) == written
    assert all(part.startswith(b"200 OK\r\n") for part in parts)
    return [part[-2:] for part in parts]


def test_what_is_complete_is_answered_and_then_the_connection_closes() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(POST + b"body" + GET)
        assert driver.connection.eof_received() is True
        assert driver.state() is State.LAST_RESPONSES
        assert driver.transport.written == STATUS_LINE_START
        await driver.app.respond(0)
        assert not driver.transport.closing
        await driver.app.respond(1)
        assert (driver.transport.closing, driver.state()) == (True, State.DRAINING)
        assert responses(driver.transport.take()) == [b"00", b"01"]

    drive(test)


@pytest.mark.parametrize("incomplete", [GET[:9], POST, POST + b"bo"], ids=["headers", "no body", "part of a body"])
def test_what_is_incomplete_is_dropped_after_the_answers_before_it(incomplete: bytes) -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(GET + incomplete)
        assert driver.connection.eof_received() is True
        await driver.app.respond(0)
        assert (driver.transport.closing, driver.state()) == (True, State.DRAINING)
        await turn()
        assert len(driver.app.scopes) == 1
        assert responses(driver.transport.take()) == [b"00"]

    drive(test)


@pytest.mark.parametrize("sent", [b"", GET[:9], POST, POST + b"bo"], ids=str)
def test_without_a_complete_request_the_connection_closes_at_once(sent: bytes) -> None:
    async def test(driver: Driver) -> None:
        if sent:
            await driver.feed(sent)
        assert driver.connection.eof_received() is False  # the transport closes itself
        assert driver.state() is State.DRAINING
        assert driver.transport.take() == b""

    drive(test)


@pytest.mark.parametrize("answers", [True, False])
def test_the_fast_path_answers_or_leaves_the_request_to_the_application(answers: bool) -> None:
    async def test(driver: Driver) -> None:
        driver.fast_path.answers = answers
        await driver.feed(FAST + b"body")
        assert driver.connection.eof_received() is not answers
        if not answers:
            await turn()
            await driver.app.respond(0)
        assert responses(driver.transport.take()) == [b"st" if answers else b"00"]

    drive(test)


def test_an_interim_response_and_a_begun_one_are_left_whole() -> None:
    async def expecting(driver: Driver) -> None:
        await driver.feed(POST[:-2] + b"Expect: 100-continue\r\n\r\nbody")
        driver.connection.eof_received()
        assert (await driver.app.receives[0]())["body"] == b"body"
        assert driver.transport.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await driver.app.respond(0)
        assert responses(driver.transport.take()) == [b"00"]

    async def begun(driver: Driver) -> None:
        await driver.feed(GET)
        await driver.app.start(0)
        driver.connection.eof_received()
        await driver.app.end(0)
        assert responses(driver.transport.take()) == [b"00"]

    drive(expecting)
    drive(begun)


def test_a_reset_ends_the_request() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(GET)
        driver.connection.eof_received()
        await asyncio.sleep(0.1)
        too_early = driver.transport.aborted
        assert not too_early
        driver.transport.socket.error = 32
        while not driver.transport.aborted:
            await asyncio.sleep(0.01)
        driver.lose()
        while (message := await driver.app.receives[0]())["type"] != "http.disconnect":
            assert message["type"] == "http.request"

    drive(test)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("half-close")
    publish(folder, "plain", classifier(LAYERS))
    publish(folder, "same", classifier(LAYERS))
    publish(folder, "heavy", heavy(width=512, products=300))
    with serving(folder, instances=1) as running:
        yield running


def post(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        len(content),
        content,
    )


@pytest.mark.parametrize("model", ["plain", "heavy"])
@pytest.mark.parametrize("count", [1, 400])
def test_predictions_of_any_size_are_answered(server: Serving, model: str, count: int) -> None:
    width = 6 if model == "plain" else 512
    rows = np.random.default_rng(count).random((count, width)).astype(np.float32)
    expected = forward(LAYERS, rows) if model == "plain" else rows
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    outputs = [{"name": "logits" if model == "plain" else "out"}]
    request = post(f"/v2/models/{model}/infer", {"inputs": [tensor], "outputs": outputs})
    with connect(server) as opened:
        opened.settimeout(60)
        opened.sendall(request + GET)
        opened.shutdown(socket.SHUT_WR)
        received = rest(opened)
    first, second = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    data = json.loads(first.partition(b"\r\n\r\n")[2])["outputs"][0]["data"]
    np.testing.assert_allclose(np.reshape(data, (count, -1)), expected, atol=1e-4)
    assert second.endswith(b'{"live":true}')


def test_a_stream_of_events_goes_on_to_its_end(server: Serving) -> None:
    body = {"models": ["plain", "same"], "batch_sizes": [1], "seconds": 0.2, "depths": ["session"]}
    request = post("/api/compare", body).replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n", 1)
    with connect(server) as opened:
        opened.settimeout(120)
        opened.sendall(request)
        begun = opened.recv(65536)
        opened.shutdown(socket.SHUT_WR)
        received = begun + rest(opened)
    assert b"event: started" in received
    assert b"event: report\n" in received
    assert received.endswith(b"0\r\n\r\n")


def test_work_for_a_client_that_has_closed_its_socket_is_dropped(server: Serving) -> None:
    """It has sent the same FIN; only its system's answer to the first bytes says that it is gone."""

    def value(series: str) -> float:
        lines = httpx.get(f"{server.address}/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " ")), 0)

    canceled = 'nv_inference_request_failure{model="heavy",version="1",reason="CANCELED"}'
    pending = 'nv_inference_pending_request_count{model="heavy",version="1"}'
    before = value(canceled)
    slow = post("/api/predict", {"inputs": [[0.0] * 512] * 1010, "models": ["heavy"]})
    small = post("/api/predict", {"inputs": [[0.0] * 512] * 20, "models": ["heavy"]})
    with connect(server) as first, connect(server) as second:
        for opened in (first, second):
            opened.settimeout(120)
            opened.sendall(slow)
        wait_until(lambda: value(pending) == 1)
        waiting, gone = connect(server), connect(server)
        for opened in (waiting, gone):
            opened.settimeout(120)
            opened.sendall(small)
        wait_until(lambda: value(pending) == 3)
        waiting.shutdown(socket.SHUT_WR)
        gone.close()
        for opened in (first, second):
            assert b" 200 OK" in until(opened, b"}")
    assert rest(waiting).startswith(b"HTTP/1.1 200 OK\r\n")
    wait_until(lambda: value(canceled) == before + 1)
