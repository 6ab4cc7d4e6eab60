"""What HTTP asks of every request's headers: read from bytes, and over raw sockets at a real service."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import BadRequest, HttpVersionNotSupported, NotSupported
from app.http.request_headers import check_headers, read_headers
from tests.app.conftest import Serving, serving
from tests.app.graphs import classifier, publish, weights
from tests.app.sockets import connect, rest

HOST = b"Host: localhost\r\n"
ROWS = [[0.5] * 6] * 2
TENSOR = {"name": "input", "shape": [2, 6], "datatype": "FP32", "data": [0.25] * 12}
INFER = json.dumps({"inputs": [TENSOR], "outputs": [{"name": "logits"}]}).encode()
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(INFER), INFER)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, http_mode: str) -> Iterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("headers")
    publish(folder, "plain", classifier(weights([6, 3])))
    with serving(folder, http=http_mode, reports="off") as running:
        yield running


def ask(server: Serving, head: bytes, body: bytes = b"") -> bytes:
    """Everything that comes back for one request, which has to be the connection's last one."""
    with connect(server) as opened:
        opened.sendall(head + b"Connection: close\r\n\r\n" + body)
        return rest(opened)


def post(headers: bytes, version: bytes = b"1.1") -> bytes:
    return b"POST /v2/models/plain/infer HTTP/%b\r\n" % version + headers


def status(received: bytes) -> int:
    assert received.count(b"HTTP/1.1 ") == 1, received
    return int(received.split()[1])


def test_values_lose_the_blanks_around_them_and_lists_are_joined() -> None:
    raw = [(b"accept", b"a/b "), (b"x", b"\t1 2 \t"), (b"accept", b"c/d"), (b"empty", b" \t"), (b"accept", b"e/f")]
    assert read_headers(raw) == {b"accept": b"a/b, c/d, e/f", b"x": b"1 2", b"empty": b""}
    assert read_headers([(b"x", b"\x0b\x851\xa0")]) == {b"x": b"\x0b\x851\xa0"}  # no blanks in HTTP


@pytest.mark.parametrize(
    ("version", "raw", "error", "message"),
    [
        ("1.1", [(b"host", b"h")], None, ""),
        ("2", [(b"host", b"h")], None, ""),  # of another ASGI server
        ("1.0", [], None, ""),
        ("1.1", [(b"host", b"h"), (b"transfer-encoding", b"Chunked")], None, ""),
        ("1.1", [(b"host", b"h"), (b"accept", b"a"), (b"accept", b"a")], None, ""),
        ("1.1", [], BadRequest, "Host: got no such header, expected the name or the address of this service"),
        ("1.1", [(b"host", b"h")] * 2, BadRequest, "Host: got this header 2 times, expected it once"),
        ("1.0", [(b"x-api-key", b"k")] * 3, BadRequest, "X-Api-Key: got this header 3 times, expected it once"),
        ("2.0", [(b"host", b"h")], HttpVersionNotSupported, "request line: got HTTP/2.0, expected HTTP/1.1"),
        ("0.9", [], HttpVersionNotSupported, "request line: got HTTP/0.9, expected HTTP/1.1"),
        ("1.1", [(b"host", b"h"), (b"transfer-encoding", b"gzip"), (b"transfer-encoding", b"chunked")], NotSupported,
         "Transfer-Encoding: got 'gzip, chunked', expected chunked; Content-Encoding compresses a body"),
    ],
)  # fmt: skip
def test_headers_that_are_missing_repeated_or_not_supported(
    version: str, raw: list[tuple[bytes, bytes]], error: type[Exception] | None, message: str
) -> None:
    if error is None:
        check_headers(version, raw, read_headers(raw))
        return
    with pytest.raises(error) as raised:
        check_headers(version, raw, read_headers(raw))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("expected", "head", "body"),
    [
        (400, post(b"Content-Length: %d\r\n" % len(INFER)), INFER),
        (200, b"GET /v2/health/live HTTP/1.0\r\n", b""),
        (400, b"GET /v2/health/live HTTP/1.1\r\n", b""),
        (400, post(HOST + HOST + b"Content-Length: %d\r\n" % len(INFER)), INFER),
        (400, b"GET /v2/health/live HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n", b""),
        (400, post(HOST + b"Origin: http://evil.example\r\nOrigin: http://localhost\r\nContent-Length: 2\r\n"), b"{}"),
        (501, post(HOST + b"Transfer-Encoding: gzip, chunked\r\n"), CHUNKS),
        (501, post(HOST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), CHUNKS),
        (200, post(HOST + b"Transfer-Encoding: chunked \r\n"), CHUNKS),
        (505, b"GET /v2/health/live HTTP/2.0\r\n" + HOST, b""),
        (505, b"GET /v2/health/live HTTP/0.9\r\n" + HOST, b""),
        (200, post(HOST + b"Content-Length: %d\t \r\n" % len(INFER)), INFER),
        (200, post(HOST + b"Content-Length: %d\r\nInference-Header-Content-Length: %d \t\r\n" % ((len(INFER),) * 2)),
         INFER),
        (400, post(HOST + b"Content-Length: %d\r\nInference-Header-Content-Length: 1\r\nInference-Header-Content-Length"
                   b": %d\r\n" % ((len(INFER),) * 2)), INFER),
        (200, post(HOST + b"Content-Length: %d\r\nContent-Encoding: identity \r\n" % len(INFER)), INFER),
        (415, post(HOST + b"Content-Length: %d\r\nContent-Encoding: gzip\r\nContent-Encoding: br\r\n" % len(INFER)),
         INFER),
    ],
)  # fmt: skip
def test_one_request_at_a_service(server: Serving, expected: int, head: bytes, body: bytes) -> None:
    received = ask(server, head, body)
    assert status(received) == expected, received
    assert b'"error"' in received or expected == 200


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: +5\r\n",
        b"Content-Length: -5\r\n", b"Content-Length: 0x5\r\n", b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"X-A : 1\r\n",
        b" X-A: 1\r\n", b"X-A: 1\r\n folded\r\n", b"X-A: \0\r\n", b"X-\0: 1\r\n", b"X-A: a\rb\r\n",
        b"X-A: a\nX-B: b\r\n", b"X-A\r\n",
    ],
)  # fmt: skip
def test_framing_that_two_servers_could_read_differently_is_refused(server: Serving, headers: bytes) -> None:
    """What would let a request be hidden in another one's body (request smuggling)."""
    received = ask(server, post(HOST + headers), b"0\r\n\r\n")
    assert status(received) == 400, received


@pytest.mark.parametrize("more", [b"", b"Origin: http://localhost\r\n"], ids=["the fast path", "the middleware"])
def test_a_request_id_loses_the_blanks_behind_it(server: Serving, more: bytes) -> None:
    received = ask(server, post(HOST + more + b"X-Request-ID: mine \t\r\nContent-Length: %d\r\n" % len(INFER)), INFER)
    assert b"\r\nx-request-id: mine\r\n" in received


def test_a_client_of_http_1_0_gets_no_interim_response(server: Serving, http_mode: str) -> None:
    head = HOST + b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(INFER)
    assert ask(server, post(head), INFER).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    if http_mode == "fast":  # uvicorn's own protocol does not tell the versions apart
        assert ask(server, post(head, b"1.0"), INFER).startswith(b"HTTP/1.1 200 OK\r\n")
