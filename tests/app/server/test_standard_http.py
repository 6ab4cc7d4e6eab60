"""`--http standard` beside `--http fast`: the same answers, by plain uvicorn, in one worker and in several."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from app.server.connection import HttpConnection
from app.server.server import Server
from app.settings import Settings
from tests.app.conftest import Serving, repeated_predictions, serving, wait_until
from tests.app.graphs import classifier, heavy, publish, weights
from tests.app.sockets import GET, connect, rest

ROW = {"inputs": [[0.5] * 6], "models": ["plain"]}
SLOW = {"inputs": [[0.0] * 512] * 1000, "models": ["heavy"]}
LAST = GET[:-2] + b"Connection: close\r\n\r\n"


def post(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b" % (
        headers,
        len(body),
        body,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("standard")
    publish(folder, "plain", classifier(weights([6, 3])))
    publish(folder, "heavy", heavy(width=512, products=150))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, http_mode: str) -> Iterator[Serving]:
    options: dict[str, Any] = {"http": http_mode, "client_requests": 1, "trusted_proxies": "127.0.0.0/8"}
    with serving(folder, reports="off", max_body_bytes=2**24, **options) as running:
        yield running


def test_standard_is_uvicorns_own_protocol(folder: Path) -> None:
    def protocol(**options: Any) -> Any:
        config = Server(Settings(models=folder, **options), lambda _: None, None, up_when_loaded=False).config
        config.load()
        return config.http_protocol_class

    assert protocol(http="standard", trusted_proxies=("10.0.0.0/8",)) is AutoHTTPProtocol
    assert protocol(http="standard").__module__.startswith("uvicorn.")
    assert protocol().func is HttpConnection


def test_requests_sent_ahead_and_in_parts_are_answered_in_turn(server: Serving) -> None:
    body = json.dumps(ROW).encode()
    opened = connect(server)
    opened.sendall((GET + post(body)) * 3 + post(body)[:40])
    server.client.get("/v2/health/live")  # this much has been read by then
    opened.sendall(post(body)[40:] + LAST)
    received = rest(opened)
    assert received.count(b"HTTP/1.1 200 OK") == 8
    is_live = [b'{"live":true}' in part for part in received.split(b"HTTP/1.1 ")[1:]]
    assert is_live == [True, False, True, False, True, False, False, True]


def test_both_servers_give_the_same_headers_and_answers(folder: Path) -> None:
    answers = []
    for mode in ("fast", "standard"):
        with serving(folder, http=mode, reports="off") as running:
            given = [
                running.client.post("/api/predict", json=ROW),
                running.client.post("/api/predict", content=b"{"),
                running.client.get("/v2/models/plain"),
                running.client.get("/no/such/path"),
            ]
        for answer in given:
            assert re.fullmatch(r"[0-9a-f]{12}-\d+", answer.headers["x-request-id"])
        varying = {"date", "x-request-id", "content-length"}
        answers.append(
            [
                (answer.status_code, {name: answer.headers[name] for name in answer.headers if name not in varying})
                for answer in given
            ]
        )
    assert answers[0] == answers[1]


def test_requests_count_for_the_client_behind_a_trusted_proxy(server: Serving) -> None:
    def behind(client: str) -> dict[str, str]:
        return {"X-Forwarded-For": f"203.0.113.9, {client}, 127.0.0.2"}  # the first one is the client's own claim

    def status(client: str) -> int:
        return httpx.post(f"{server.address}/api/predict", json=ROW, headers=behind(client)).status_code

    with repeated_predictions(server, SLOW, behind("198.51.100.1")) as codes:
        wait_until(lambda: status("198.51.100.2") == 200 and status("198.51.100.1") == 429)
    assert 200 in codes


def test_several_workers_serve_and_stop_with_the_standard_server(folder: Path) -> None:
    with serving(folder, http="standard", workers=2, drain_seconds=0, expected_code=0) as server:
        assert len(server.children()) == 2
        for _ in range(10):
            assert httpx.post(f"{server.address}/api/predict", json=ROW).is_success
        server.client.close()
        server.process.terminate()
        _, errors = server.process.communicate(timeout=40)
    noted = [line for line in errors.splitlines() if not line.startswith("INFO: ")]
    assert not noted, f"uvicorn {uvicorn.__version__}"
