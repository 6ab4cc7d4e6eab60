"""The end of the service: answers say that the connection closes, and no request of a kept connection is lost."""

import asyncio
import http.client
import json
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from app.server import bounded_connection
from app.server.bounded_connection import IDLE_GRACE_SECONDS
from app.server.connection_state import State
from tests.app.conftest import Serving, serving, wait_until
from tests.app.graphs import classifier, heavy, publish, weights
from tests.app.server.driver import Driver, drive
from tests.app.sockets import GET, connect, rest, until

TENSOR = {"name": "input", "shape": [1, 6], "datatype": "FP32", "data": [0.25] * 6}
INFER = json.dumps({"inputs": [TENSOR], "outputs": [{"name": "logits"}]}).encode()
POST = b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b"
FAST, SLOW = POST % (b"", len(INFER), INFER), POST % (b"Origin: http://localhost\r\n", len(INFER), INFER)
ROWS = json.dumps({"inputs": [[0.0] * 512] * 1010, "models": ["heavy"]}).encode()
HEAVY = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(ROWS), ROWS)
FAST_BYTES = b"POST /fast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"  # of the stand-in
CLOSE = b"\r\nconnection: close\r\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish(tmp_path, "plain", classifier(weights([6, 3])))
    publish(tmp_path, "heavy", heavy(width=512, products=200))
    return tmp_path


def drains(server: Serving) -> bool:
    return httpx.get(f"{server.address}/v2/health/ready").status_code == 503


@pytest.mark.parametrize("workers", [1, 2])
def test_every_answer_says_that_the_connection_closes(folder: Path, http_mode: str, workers: int) -> None:
    asked = {
        "fast path": FAST,
        "application": GET,
        "long way": SLOW,
        "wrong": FAST.replace(b"[1, 6]", b"[1, 7]"),
        "no path": GET.replace(b"live", b"nowhere"),
        "cors": b"OPTIONS /api/models HTTP/1.1\r\nHost: localhost\r\nOrigin: http://page.example\r\n"
        b"Access-Control-Request-Method: GET\r\n\r\n",
    }
    options = {"http": http_mode, "workers": workers, "cors_origins": "http://page.example", "reports": "off"}
    with serving(folder, drain_seconds=5, expected_code=0, **options) as server:
        kept = {name: connect(server) for name in asked}
        for opened in kept.values():
            opened.sendall(FAST)
            assert CLOSE not in until(opened, b"}")
        running = connect(server)
        running.sendall(HEAVY)
        server.client.get("/v2/health/live")
        server.client.close()
        server.process.terminate()
        wait_until(lambda: drains(server))
        for name, opened in kept.items():
            opened.sendall(asked[name])
            received = rest(opened)  # to the end: the service closes
            assert CLOSE in received, (name, received)
            assert received.count(b"HTTP/1.1 ") == 1
        received = rest(running)  # accepted before SIGTERM
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert CLOSE in received
        _, errors = server.process.communicate(timeout=40)
    assert not [line for line in errors.splitlines() if not line.startswith("INFO: ")]


def test_requests_sent_ahead_before_the_end_are_all_answered(folder: Path) -> None:
    def waiting(server: Serving) -> float:
        lines = server.client.get("/metrics").text.splitlines()
        series = 'nv_inference_pending_request_count{model="heavy",version="1"} '
        return next(float(line.removeprefix(series)) for line in lines if line.startswith(series))

    rows = json.dumps({"inputs": [[0] * 512] * 20, "models": ["heavy"]}).encode()
    ahead = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(rows), rows)
    with serving(folder, instances=1, drain_seconds=0, expected_code=0, reports="off") as server:
        running = [connect(server) for _ in range(2)]
        for opened in running:  # one of them waits for the other, and the requests sent ahead for both
            opened.settimeout(120)
            opened.sendall(HEAVY)
        wait_until(lambda: waiting(server) == 1)
        opened = connect(server)
        opened.settimeout(120)
        opened.sendall(ahead + GET + FAST)
        wait_until(lambda: waiting(server) == 2)
        server.client.close()
        server.process.terminate()
        received = rest(opened)
        assert all(rest(each).startswith(b"HTTP/1.1 200 OK\r\n") for each in running)
        assert received.count(b"HTTP/1.1 200 OK\r\n") == 3
        assert received.count(CLOSE) == 1
        server.process.communicate(timeout=40)


def test_a_client_that_minds_what_it_is_told_loses_no_request(folder: Path) -> None:
    """Clients with kept connections, until new connections are refused: each request is answered or not accepted."""
    lost: list[BaseException] = []
    answered: list[bool] = []

    def ask(address: str) -> None:
        url = httpx.URL(address)
        try:
            while True:
                connection = http.client.HTTPConnection(url.host, url.port, timeout=30)
                try:
                    connection.connect()
                except OSError:
                    return  # the service has ended
                while True:
                    connection.request("POST", "/v2/models/plain/infer", INFER)
                    response = connection.getresponse()
                    response.read()
                    answered.append(response.status == 200)
                    if response.will_close:
                        break
                connection.close()
        except Exception as error:
            lost.append(error)

    with serving(folder, drain_seconds=1, expected_code=0, reports="off") as server:
        threads = [threading.Thread(target=ask, args=(server.address,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) > 50)
        server.client.close()
        server.process.terminate()
        for thread in threads:
            thread.join(60)
        server.process.communicate(timeout=40)
    assert all(answered)
    assert lost == []


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_that_the_system_has_accepted_are_answered(folder: Path, http_mode: str, workers: int) -> None:
    """Clients with a connection for each request keep the system's queue of connections filled until the end."""
    lost: list[str] = []
    answered = [0] * 16
    stopping = threading.Event()
    request = POST % (b"Connection: close\r\n", len(INFER), INFER)

    def ask(position: int, server: Serving) -> None:
        while True:
            try:
                opened = connect(server)
            except OSError as error:
                if not stopping.is_set():
                    lost.append(f"no connection while the service runs: {error}")
                return
            opened.settimeout(60)
            received = b""
            try:
                with opened:
                    opened.sendall(request)
                    while part := opened.recv(65536):
                        received += part
            except OSError as error:
                lost.append(repr(error))
            if received.startswith(b"HTTP/1.1 200 OK\r\n") and received.endswith(b"}"):
                answered[position] += 1
            else:
                lost.append(f"got {received!r}")

    options = {"http": http_mode, "workers": workers, "reports": "off"}
    with serving(folder, drain_seconds=0, expected_code=0, **options) as server:
        threads = [threading.Thread(target=ask, args=(position, server)) for position in range(len(answered))]
        for thread in threads:
            thread.start()
        wait_until(lambda: min(answered) > 3)
        server.client.close()
        stopping.set()
        server.process.terminate()
        for thread in threads:
            thread.join(90)
        server.process.communicate(timeout=40)
    assert lost == []


def test_a_new_connection_has_time_for_its_first_request(folder: Path) -> None:
    with serving(folder, drain_seconds=0, expected_code=0, reports="off") as server:
        server.client.close()
        new, used = connect(server), connect(server)
        used.sendall(GET)
        until(used, b"}")
        server.process.terminate()
        assert rest(used) == b""  # closed before
        new.sendall(FAST)
        received = rest(new)
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert CLOSE in received
        server.process.communicate(timeout=40)


def test_an_idle_connection_is_closed_at_the_end_and_does_not_delay_it(folder: Path) -> None:
    with serving(folder, drain_seconds=0, expected_code=0, keep_alive_seconds=60, reports="off") as server:
        opened = connect(server)
        opened.sendall(FAST)
        until(opened, b"}")
        server.client.close()
        begun = time.monotonic()
        server.process.terminate()
        assert rest(opened) == b""
        server.process.communicate(timeout=40)
        assert time.monotonic() - begun < 20  # far less than the keep-alive time


@pytest.mark.parametrize(
    ("sent", "attribute"),
    [
        (b"", "REQUEST_GRACE_SECONDS"),
        (GET[:9], "REQUEST_GRACE_SECONDS"),
        (FAST_BYTES + b"body", "IDLE_GRACE_SECONDS"),
        (FAST_BYTES + b"body" + GET[:9], "REQUEST_GRACE_SECONDS"),
    ],
    ids=["new", "part of a request", "used", "part of a further request"],
)
def test_the_end_of_the_server_on_an_idle_connection(
    sent: bytes, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_connection, "IDLE_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(bounded_connection, "REQUEST_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(bounded_connection, attribute, 0.3)

    async def test(driver: Driver) -> None:
        begun = driver.connection.loop.time()
        if sent:
            driver.connection.data_received(sent)
        driver.connection.shutdown()
        assert (b" 200 OK" in driver.transport.take()) is (b"body" in sent)
        while not driver.transport.closing:  # a request may be on its way
            await asyncio.sleep(0.01)
        assert driver.connection.loop.time() - begun >= 0.3
        assert driver.state() is State.DRAINING
        assert driver.transport.take() == b""

    drive(test)


def test_a_request_that_has_arrived_but_is_not_read_yet_keeps_the_connection_open() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(FAST_BYTES + b"body")
        driver.fast_path.finish()
        driver.transport.take()
        own, client = socket.socketpair()
        with own, client:
            driver.transport.socket.ends = own, client
            client.send(GET)
            driver.connection.shutdown()
            await asyncio.sleep(3 * IDLE_GRACE_SECONDS)  # as if this process had no time to read
            assert not driver.transport.closing
            await driver.feed(own.recv(1000))
            await driver.app.respond(0)
            await asyncio.sleep(2 * IDLE_GRACE_SECONDS)
        assert b" 200 OK" in driver.transport.take()
        assert driver.transport.closing

    drive(test)


@pytest.mark.parametrize("late", [False, True], ids=["before", "on its way"])
@pytest.mark.parametrize("request_", [GET, FAST_BYTES + b"body"], ids=["the application", "the fast path"])
def test_the_end_of_the_server_loses_no_request(late: bool, request_: bytes) -> None:
    async def test(driver: Driver) -> None:
        driver.fast_path.answers = False
        if not late:
            await driver.feed(request_)
        driver.connection.shutdown()
        if late:
            await driver.feed(request_)
        driver.fast_path.finish()
        await asyncio.sleep(IDLE_GRACE_SECONDS + 0.05)
        assert not driver.transport.closing
        await driver.app.respond(0)
        assert (driver.transport.closing, driver.state()) == (True, State.DRAINING)
        assert b" 200 OK" in driver.transport.take()

    drive(test)


def test_the_fast_path_closes_with_the_headers_that_say_so() -> None:
    async def test(driver: Driver) -> None:
        driver.fast_path.closes = True
        await driver.feed(FAST_BYTES + b"body" + FAST_BYTES + b"body" + GET)  # what is sent ahead is not run
        assert driver.transport.take().endswith(b"fast")
        assert (driver.transport.closing, driver.state()) == (True, State.DRAINING)
        assert driver.fast_path.deliver is None
        assert not driver.app.scopes
        assert driver.refused == []

    drive(test)
