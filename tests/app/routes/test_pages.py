"""The server as a process: limits, overload, loading, the page, and that it never blocks."""

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import ROWS, Serving, serving
from tests.app.graphs import classifier, publish, weights


def test_the_event_loop_goes_on_while_a_heavy_model_runs(server: Serving) -> None:
    run_to_completion = threading.Event()
    answers: list[httpx.Response] = []

    def predict() -> None:
        body = {"inputs": [[0.0] * 512] * 1024, "models": ["heavy"]}
        answers.append(httpx.post(f"{server.address}/api/predict", json=body, timeout=60))
        run_to_completion.set()

    thread = threading.Thread(target=predict)
    thread.start()
    lively = 0
    while not run_to_completion.is_set():
        assert server.client.get("/v2/health/live").is_success
        lively += not run_to_completion.is_set()
    thread.join()
    compute_us = answers[0].json()["results"][0]["compute_us"]
    # Were the loop blocked, one answer would come before the run and one after it.
    assert lively > 5, f"{lively} answers during {compute_us / 1e6:.2f} s"


def chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // 1000):
        yield b" " * 1000


@pytest.fixture(scope="module")
def strict(http_mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with small limits: 10,000 bytes, two seconds for a body, one worker and nobody waiting."""
    folder = tmp_path_factory.mktemp("strict")
    publish(folder, "plain", classifier(weights([6, 3])))
    publish(folder, "slow", classifier(weights([64, 3000, 3000, 3])))
    limits = {"max_body_bytes": 10_000, "body_seconds": 2, "instances": 1, "queue": 0, "max_batch": 200}
    with serving(folder, http=http_mode, **limits) as running:
        yield running


@pytest.mark.parametrize("path", ["/api/predict", "/api/compare"])
def test_a_body_that_is_too_long_is_refused_however_it_is_sent(strict: Serving, path: str) -> None:
    for content in (b" " * 10_001, chunks(20_000), chunks(5_000_000), b" " * 5_000_000):
        answer = strict.client.post(path, content=content)
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("body: got ")
        assert answer.json()["error"].endswith("expected at most 10000 (KRON_MAX_BODY_BYTES)")
    # What is just not too long gets as far as the parser.
    assert "expected a JSON object" in strict.client.post(path, content=b" " * 10_000).json()["error"]
    assert "expected a JSON object" in strict.client.post(path, content=chunks(10_000)).json()["error"]


def test_a_body_that_does_not_come_is_given_up(strict: Serving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(strict.address).port or 0, timeout=30)
    connection.putrequest("POST", "/api/predict")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    answer = connection.getresponse()
    assert answer.status == 408
    assert answer.read() == b'{"error":"body: not received within 2 s (KRON_BODY_SECONDS)"}'
    connection.close()


def test_a_body_that_came_while_the_service_was_away_is_taken(strict: Serving) -> None:
    body = json.dumps({"inputs": [[0.5] * 6] * 50, "models": ["plain"]}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(strict.address).port or 0, timeout=30)
    connection.putrequest("POST", "/api/predict")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:100])
    strict.client.get("/v2/health/live")  # it has been read by then
    strict.process.send_signal(signal.SIGSTOP)
    connection.send(body[100:])
    time.sleep(2.5)
    strict.process.send_signal(signal.SIGCONT)
    assert connection.getresponse().status == 200
    connection.close()


def test_a_body_within_the_limits_is_read_in_pieces(strict: Serving) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"inputs": [[1, 2, 3,'
        time.sleep(0.05)
        yield b' 4, 5, 6]], "models": ["plain"]}'

    assert strict.client.post("/api/predict", content=pieces()).is_success


def test_overload_is_503_and_says_when_to_come_back(strict: Serving) -> None:
    body = {"inputs": [[1] * 64] * 70, "models": ["slow"]}
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client() as client:
            answers.extend(client.post(f"{strict.address}/api/predict", json=body) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json() == {"error": "the queue of this model is full: 0 requests wait already (KRON_QUEUE)"}
    assert refused.headers["Retry-After"] == "1"
    assert strict.client.post("/api/predict", json=body).is_success


def test_the_page_and_its_headers(client: httpx.Client) -> None:
    answer = client.get("/")
    if answer.status_code == 404:
        assert answer.json()["error"].startswith("the page is not installed")
    else:
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/api/models").headers["cache-control"] == "no-store"


def test_the_documentations_files_come_from_their_package_and_are_kept_by_the_browser(client: httpx.Client) -> None:
    answer = client.get("/static/vendor/swagger-ui-bundle.js")
    assert answer.status_code == 200
    assert "javascript" in answer.headers["content-type"]
    assert len(answer.content) > 1_000_000
    assert answer.headers["cache-control"] == "public, max-age=604800"
    assert answer.headers["etag"]
    answer = client.get("/static/vendor/other.js")
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("no such file: got 'other.js'")


def test_the_documentation_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert "https://" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/static/vendor/{name}" in answer.text
        assert client.get(f"/static/vendor/{name}").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../pyproject.toml",
        "/static/%2e%2e/pyproject.toml",
        "/static/..%2f..%2fetc/passwd",
        "/static//etc/passwd",
    ],
)
def test_static_files_stay_in_their_folder(server: Serving, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(server.address).port or 0, timeout=30)
    connection.request("GET", path)  # httpx would tidy the path up
    answer = connection.getresponse()
    assert answer.status == 404
    assert b'{"error":' in answer.read()
    connection.close()


def test_nonsense_on_the_wire_does_not_hurt(server: Serving) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(server.address).port or 0), timeout=30) as wire:
        wire.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        wire.recv(1000)
    assert server.client.post("/api/predict", json={"inputs": ROWS[:1].tolist()}).is_success


def test_a_bad_model_does_not_keep_the_others_from_being_served(tmp_path: Path) -> None:
    publish(tmp_path, "bad", b"not a model")
    publish(tmp_path, "good", classifier(weights([6, 3])))
    with serving(tmp_path) as server:
        answer = server.client.get("/api/models").json()
        assert [model["name"] for model in answer["models"]] == ["good"]
        assert answer["default"] == ["good"]
        assert server.client.post("/api/predict", json={"inputs": [[0.0] * 6]}).is_success
        answer = server.client.post("/api/compare", json={})
        assert answer.status_code == 400
        assert answer.json() == {"error": "models: got good, expected 2 to 6 different ones"}
