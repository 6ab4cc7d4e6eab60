"""Requests that are refused while their bodies arrive: the client reads its answer, and what it sends is bounded."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.access.keys import Role, make_key
from app.server import lingering_close
from app.server.connection_state import State
from tests.app.conftest import Serving, serving
from tests.app.graphs import classifier, publish, weights
from tests.app.server.driver import HASTY, Driver, drive
from tests.app.sockets import connect, rest

MOST = 2**16
HEAD_SECONDS = 1.0
CLOSING = b"POST /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4000\r\n\r\n"


def test_after_an_early_response_the_rest_is_dropped_until_the_client_closes() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(CLOSING + b"x")
        await driver.app.respond(0)
        assert driver.transport.take().endswith(b"00")
        assert driver.lingers()
        assert (driver.state(), driver.transport.closing) == (State.DRAINING, False)
        for _ in range(8):  # more than was announced
            await driver.feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        assert len(driver.app.scopes) == 1
        assert driver.transport.take() == b""
        driver.connection.shutdown()
        assert not driver.transport.closing

    drive(test)


def test_a_complete_request_is_not_waited_for() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(CLOSING + b"x" * 4000)
        await driver.app.respond(0)
        assert (driver.transport.closing, driver.transport.ended) == (True, False)

    drive(test)


def test_a_further_request_that_arrives_does_not_spoil_the_last_response() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        driver.connection.cycle.keep_alive = False  # as at the end of the service
        await driver.feed(CLOSING + b"x")
        await driver.app.respond(0)
        assert driver.lingers()
        assert len(driver.app.scopes) == 1
        assert driver.transport.take().count(b"HTTP/1.1 ") == 1

    drive(test)


@pytest.mark.parametrize("unread", [0, 100])
def test_the_wait_is_bounded_in_time(unread: int) -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(CLOSING)
        await driver.app.respond(0)
        driver.transport.unread = unread
        while not driver.transport.closing:
            await driver.feed(b"x")
            await asyncio.sleep(0.01)
        assert driver.transport.aborted is (unread > 0)

    drive(test, HASTY)


def test_the_wait_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_close, "MAX_BYTES", 1000)

    async def test(driver: Driver) -> None:
        await driver.feed(CLOSING)
        await driver.app.respond(0)
        await driver.feed(b"x" * 1000)
        assert not driver.transport.closing
        await driver.feed(b"x")
        assert driver.transport.closing

    drive(test)


def test_the_application_learns_that_a_refused_request_will_not_be_complete() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(b"POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert (await driver.app.receives[0]())["body"] == b"x"
        receiving = asyncio.ensure_future(driver.app.receives[0]())
        await driver.feed(b"?\r\n")
        assert driver.lingers()
        assert (await receiving) == {"type": "http.disconnect"}
        await driver.app.respond(0)
        assert driver.transport.take().startswith(b"HTTP/1.1 400 ")

    drive(test)


@pytest.fixture(scope="module")
def key() -> tuple[str, str]:
    return make_key("client", Role.predict)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, key: tuple[str, str]) -> Iterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("lingering")
    publish(folder / "models", "plain", classifier(weights([6, 3])))
    keys = folder / "keys"
    keys.write_text(key[1] + "\n")
    with serving(
        folder / "models", keys=keys, max_body_bytes=MOST, head_seconds=HEAD_SECONDS, reports="off"
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/predict", {}, 413),
        ("/v2/models/plain/infer", {}, 413),
        ("/api/predict", {"X-API-Key": "wrong"}, 401),
        ("/api/compare", {}, 403),
        ("/nowhere", {}, 403),
        ("/v2/models/other/infer", {}, 413),
        ("/v2/models/plain/infer", {"Transfer-Encoding": "gzip, chunked"}, 501),
        ("/v2/models/plain/infer", {"Host": "a@b"}, 400),
        ("/v2/models/plain/infer", {"X-Long": "a" * 40_000}, 431),
        ("/v2/models/plain/infer", {"X-Bad": "\x7f"}, 400),
    ],
)
def test_urllib_reads_the_answer_to_an_upload_that_is_refused(
    server: Serving, key: tuple[str, str], path: str, headers: dict[str, str], status: int
) -> None:
    """It sends everything before it reads, with `Connection: close`."""
    body = b"x" * (32 * 2**20)
    if "Transfer-Encoding" in headers:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    request = urllib.request.Request(server.address + path, body, {"X-API-Key": key[0]} | headers, method="POST")
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=60)
    assert raised.value.code == status
    assert "error" in json.loads(raised.value.read())


def test_a_client_that_goes_on_sending_is_cut_off(server: Serving) -> None:
    with connect(server) as opened:
        opened.sendall(
            b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 9999999\r\n\r\n"
        )
        begun = time.monotonic()
        with suppress(OSError):
            while time.monotonic() < begun + 20:
                opened.sendall(b"x")
                time.sleep(0.05)
        assert 0.5 * HEAD_SECONDS < time.monotonic() - begun < 20


def test_the_service_ends_its_side_after_the_answer(server: Serving) -> None:
    """A client that reads up to the end of the connection need not wait for the end of its own upload."""
    with connect(server) as opened:
        opened.sendall(b"POST /nowhere HTTP/1.0\r\nContent-Length: 9999999\r\n\r\n")
        received = rest(opened)
    assert received.startswith(b"HTTP/1.1 401 ")
    assert received.endswith(b"}")
