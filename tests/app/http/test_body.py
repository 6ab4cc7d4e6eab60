"""Limits on request bodies, at a real server."""

import http.client
import json
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.app.conftest import Serving, serving
from tests.app.graphs import classifier, publish, weights


def chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // 1000):
        yield b" " * 1000


@pytest.fixture(scope="module")
def strict(http_mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with small limits: 10,000 bytes and two seconds for a body, one instance, and no queue."""
    folder = tmp_path_factory.mktemp("strict")
    publish(folder, "plain", classifier(weights([6, 3])))
    publish(folder, "slow", classifier(weights([64, 3000, 3000, 3])))
    limits = {"max_body_bytes": 10_000, "body_seconds": 2, "instances": 1, "queue": 0, "max_batch": 200}
    with serving(folder, http=http_mode, **limits) as running:
        yield running


@pytest.mark.parametrize("path", ["/api/predict", "/api/compare"])
def test_too_long_a_body_is_413_with_and_without_content_length(strict: Serving, path: str) -> None:
    for content in (b" " * 10_001, chunks(20_000), chunks(5_000_000), b" " * 5_000_000):
        answer = strict.client.post(path, content=content)
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("body: got ")
        assert answer.json()["error"].endswith("expected at most 10000 (KRON_MAX_BODY_BYTES)")
    # A body of the largest size reaches the parser.
    assert "expected a JSON object" in strict.client.post(path, content=b" " * 10_000).json()["error"]
    assert "expected a JSON object" in strict.client.post(path, content=chunks(10_000)).json()["error"]


def test_a_body_that_does_not_arrive_is_408(strict: Serving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(strict.address).port or 0, timeout=30)
    connection.putrequest("POST", "/api/predict")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    answer = connection.getresponse()
    assert answer.status == 408
    assert answer.read() == b'{"error":"body: not received within 2 s (KRON_BODY_SECONDS)"}'
    connection.close()


def test_a_body_that_arrived_while_the_process_was_stopped_is_accepted(strict: Serving) -> None:
    body = json.dumps({"inputs": [[0.5] * 6] * 50, "models": ["plain"]}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(strict.address).port or 0, timeout=30)
    connection.putrequest("POST", "/api/predict")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:100])
    strict.client.get("/v2/health/live")  # by then the first bytes have been read
    strict.process.send_signal(signal.SIGSTOP)
    connection.send(body[100:])
    time.sleep(2.5)
    strict.process.send_signal(signal.SIGCONT)
    assert connection.getresponse().status == 200
    connection.close()


def test_a_body_within_the_limits_may_arrive_in_pieces(strict: Serving) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"inputs": [[1, 2, 3,'
        time.sleep(0.05)
        yield b' 4, 5, 6]], "models": ["plain"]}'

    assert strict.client.post("/api/predict", content=pieces()).is_success
