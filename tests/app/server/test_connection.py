"""Clients that send nothing, too slowly or too much, or do not read: over real sockets, at a real service."""

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.app.conftest import Serving, repeated_predictions, serving, wait_until
from tests.app.graphs import classifier, heavy, publish, weights
from tests.app.sockets import GET, answer, connect, connect_with_small_buffer, failures, is_open_at_service, rest

HEAD_SECONDS = 0.6
MAX_HEAD = 4096
LAST = GET[:-2] + b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("connections")
    publish(folder, "plain", classifier(weights([6, 3])))
    publish(folder, "heavy", heavy(width=512, products=150))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    """A server with short waits."""
    with serving(folder, head_seconds=HEAD_SECONDS, keep_alive_seconds=0.5, send_seconds=1, reports="off") as running:
        yield running


@pytest.fixture(scope="module")
def patient(folder: Path) -> Iterator[Serving]:
    """A server with longer waits, and small limits on sizes and counts."""
    options: dict[str, Any] = {
        "head_seconds": 3, "keep_alive_seconds": 3, "max_head_bytes": MAX_HEAD, "max_connections": 40,
        "client_requests": 1, "trusted_proxies": "127.0.0.0/8", "reports": "off",
    }  # fmt: skip
    with serving(folder, **options) as running:
        yield running


def test_a_connection_that_sends_nothing_is_closed(server: Serving) -> None:
    begun = time.monotonic()
    assert rest(connect(server)) == b""
    assert HEAD_SECONDS * 0.9 < time.monotonic() - begun < 5
    assert failures(server, "IdleConnection") >= 1


def test_a_connection_that_sends_nothing_further_is_closed(server: Serving) -> None:
    opened = connect(server)
    opened.sendall(GET)
    assert b'{"live":true}' in rest(opened)


def test_headers_that_never_end_are_refused_and_delay_no_other_client(server: Serving) -> None:
    """Slowloris: each of many connections sends a further header now and then, so that none is idle."""
    slow = [connect(server) for _ in range(30)]
    begun = time.monotonic()
    for opened in slow:
        opened.sendall(GET[:-2])
    waiting = list(slow)
    while waiting:
        assert time.monotonic() - begun < 10
        assert httpx.get(f"{server.address}/v2/health/live").is_success
        for opened in list(waiting):
            try:
                opened.sendall(b"X-More: 1\r\n")
            except OSError:
                waiting.remove(opened)
        time.sleep(0.05)
    for opened in slow:
        received = rest(opened)
        if received:  # the kernel may have dropped it, because more was sent after the connection was closed
            assert answer(received) == (408, f"headers: not received within {HEAD_SECONDS:g} s (KRON_HEAD_SECONDS)")
    assert failures(server, "HeadTimeout") >= 30


def test_incomplete_headers_are_a_408(server: Serving) -> None:
    opened = connect(server)
    opened.sendall(GET[:-2])
    assert answer(rest(opened))[0] == 408


def test_empty_lines_do_not_keep_a_connection_open(server: Serving) -> None:
    opened = connect(server)
    end = time.monotonic() + 10
    with opened, suppress(OSError):
        while time.monotonic() < end:
            opened.sendall(b"\r\n")
            time.sleep(0.05)
    assert time.monotonic() < end


@pytest.mark.parametrize(
    "head",
    [
        GET[:-2] + b"X-Long: " + b"a" * MAX_HEAD + b"\r\n\r\n",
        GET[:-2] + b"".join(b"X-%d: 1\r\n" % number for number in range(MAX_HEAD // 6)) + b"\r\n",
        b"GET /" + b"a" * MAX_HEAD + GET[4:],
        GET[:-2] + b"X-Endless: " + b"a" * 2 * MAX_HEAD,
    ],
    ids=["one", "many", "path", "endless"],
)
@pytest.mark.parametrize("size", [1000, 10**6], ids=["parts", "piece"])
def test_large_headers_are_refused(patient: Serving, head: bytes, size: int) -> None:
    opened = connect(patient)
    with suppress(OSError):
        for start in range(0, len(head), size):
            opened.sendall(head[start : start + size])
            time.sleep(0.01)
    status, error = answer(rest(opened))
    assert (status, error) == (
        431,
        f"headers: got more than {MAX_HEAD} bytes, expected at most {MAX_HEAD} (KRON_MAX_HEAD_BYTES)",
    )


def test_what_is_no_http_is_a_400(server: Serving) -> None:
    opened = connect(server)
    opened.sendall(b"hello, is anybody there?\r\n\r\n")
    assert answer(rest(opened)) == (400, "got something that is not HTTP/1.1")


def test_a_body_may_be_longer_and_take_longer_than_headers(server: Serving) -> None:
    rows = np.full((2000, 6), 0.25).tolist()
    body = json.dumps({"inputs": rows[:1000], "models": ["plain"]}).encode()
    assert len(body) > 5 * MAX_HEAD
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    opened = connect(server)
    opened.sendall(head)
    parts = 8
    for start in range(0, len(body), len(body) // parts + 1):
        opened.sendall(body[start : start + len(body) // parts + 1])
        time.sleep(1.5 * HEAD_SECONDS / parts)
    assert rest(opened).startswith(b"HTTP/1.1 200 OK")


def test_the_rest_of_a_body_after_an_early_answer_does_not_count_as_headers(patient: Serving, server: Serving) -> None:
    """A path that does not exist is answered before the body has arrived."""
    body = b"x" * 10 * MAX_HEAD
    for size in (MAX_HEAD, len(body)):
        opened = connect(patient)
        opened.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert opened.recv(65536).startswith(b"HTTP/1.1 404 ")
        for start in range(0, len(body), size):
            opened.sendall(body[start : start + size])
            time.sleep(0.01)
        opened.sendall(LAST)
        assert b'{"live":true}' in rest(opened)
    slow = connect(server)
    slow.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
    begun = time.monotonic()
    with slow, suppress(OSError):
        while time.monotonic() - begun < 10:
            slow.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() - begun < 10


def test_pipelined_requests_are_answered_in_their_order(patient: Serving) -> None:
    opened = connect(patient)
    body = json.dumps({"inputs": [[0.5] * 6], "models": ["plain"]}).encode()
    post = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    opened.sendall((GET + post) * 3 + LAST[:20])
    time.sleep(0.1)
    opened.sendall(LAST[20:])
    received = rest(opened)
    assert received.count(b"HTTP/1.1 200 OK") == 7
    assert received.count(b'{"live":true}') == 4


def test_too_many_connections_are_refused_until_some_are_closed(patient: Serving) -> None:
    wait_until(lambda: httpx.get(f"{patient.address}/v2/health/live").is_success)
    held = [connect(patient) for _ in range(45)]
    refused = 0
    for opened in held:
        with opened:
            received = rest(opened)
        if received:
            refused += 1
            status, message = answer(received)
            assert status == 503
            assert re.fullmatch(r"got 4[1-5] open connections, expected at most 40 \(KRON_MAX_CONNECTIONS\)", message)
    assert refused >= 5
    assert httpx.get(f"{patient.address}/v2/health/live").is_success


def test_a_client_that_does_not_read_is_cut_off(server: Serving) -> None:
    before = failures(server, "SlowReader")
    opened = connect(server)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with suppress(OSError):
        opened.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
    wait_until(lambda: failures(server, "SlowReader") > before, seconds=15)
    opened.close()


def test_a_client_that_does_not_read_its_last_answer_is_cut_off(server: Serving) -> None:
    """However few bytes of it are still in the service."""
    before = failures(server, "SlowReader")
    with ExitStack() as stack:
        opened = [stack.enter_context(connect_with_small_buffer(server)) for _ in range(24)]
        for count, one in enumerate(opened):
            asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
            one.sendall((asked + b"\r\n") * count + asked + b"Connection: close\r\n\r\n")
        wait_until(lambda: not any(is_open_at_service(server, one) for one in opened))
    assert failures(server, "SlowReader") > before


def test_a_client_that_has_ended_its_side_and_does_not_read_is_cut_off(server: Serving) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(connect_with_small_buffer(server)) for _ in range(24)]
        for count, one in enumerate(opened):
            one.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * (count + 1))
            one.recv(1, socket.MSG_PEEK)
            one.shutdown(socket.SHUT_WR)
        wait_until(lambda: not any(is_open_at_service(server, one) for one in opened))


def test_requests_count_for_the_client_behind_a_trusted_proxy(patient: Serving) -> None:
    """One request of a client may run at a time; the proxy, 127.0.0.1, forwards requests of two clients."""
    slow = {"inputs": [[0.0] * 512] * 1000, "models": ["heavy"]}
    quick = {"inputs": [[0.5] * 6], "models": ["plain"]}

    def behind(client: str) -> dict[str, str]:
        return {"X-Forwarded-For": f"203.0.113.9, {client}, 127.0.0.2"}  # the first one is the client's own claim

    def post(client: str) -> int:
        return httpx.post(f"{patient.address}/api/predict", json=quick, headers=behind(client)).status_code

    def only_one_is_refused() -> bool:
        assert post("198.51.100.2") == 200
        return post("198.51.100.1") == 429

    with repeated_predictions(patient, slow, behind("198.51.100.1")) as codes:
        wait_until(only_one_is_refused)
    assert 200 in codes
    assert post("198.51.100.1") == 200


def test_the_wait_for_headers_does_not_end_a_longer_wait_for_the_next_request(tmp_path: Path) -> None:
    publish(tmp_path, "plain", classifier(weights([6, 3])))
    body = json.dumps({"inputs": [[0.5] * 6], "models": ["plain"]}).encode()
    head = (
        b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    with serving(tmp_path, head_seconds=1, keep_alive_seconds=30) as server, connect(server) as opened:
        for request in (head % len(body) + body, GET, head % len(body) + body):
            opened.sendall(request)
            received = http.client.HTTPResponse(opened)
            received.begin()
            assert received.status == 200
            received.read()  # to its last byte: what is left would be read as part of the next response
            time.sleep(1.4)
        assert failures(server, "IdleConnection") == 0
