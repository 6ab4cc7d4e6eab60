"""Chunked bodies, at a real service: framing and trailers are bounded, and trailers are no headers."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import Serving, serving
from tests.app.graphs import classifier, publish, weights
from tests.app.sockets import GET, answer, connect, failures, pour, rest, until

MAX_HEAD = 4096
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LIVE = GET[:-2] + CHUNKED
POST = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED
ENDLESS = {
    "trailers": (b"0\r\n", b"a:b\r\n" * 99),
    "trailer": (b"0\r\nX-Endless: ", b"a" * 500),
    "name": (b"0\r\n", b"a" * 500),
    "extension": (b"1;x=", b"a" * 500),
    "extensions": (b"", b"1;x=" + b"a" * 490 + b"\r\n \r\n"),
    "length": (b"", b"0" * 500),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("chunked")
    publish(folder, "plain", classifier(weights([6, 3])))
    with serving(folder, max_head_bytes=MAX_HEAD, keep_alive_seconds=0.5, reports="off") as running:
        yield running


@pytest.mark.parametrize(("begin", "piece"), ENDLESS.values(), ids=ENDLESS)
def test_framing_and_trailers_are_bounded(server: Serving, begin: bytes, piece: bytes) -> None:
    before = failures(server, "HeadTooLarge")
    opened = connect(server)
    opened.sendall(POST)
    httpx.get(f"{server.address}/v2/health/live")  # the headers have been read by then
    opened.sendall(b"1\r\n{\r\n" + begin)
    assert answer(pour(opened, piece, most=100 * MAX_HEAD)) == (
        431,
        f"body: got more than {MAX_HEAD} bytes besides it, in lengths and extensions of chunks and in trailers, "
        f"expected at most {MAX_HEAD} (KRON_MAX_HEAD_BYTES)",
    )
    assert failures(server, "HeadTooLarge") == before + 1


@pytest.mark.parametrize(("begin", "piece"), ENDLESS.values(), ids=ENDLESS)
def test_framing_and_trailers_are_bounded_after_an_early_answer(server: Serving, begin: bytes, piece: bytes) -> None:
    """The connection is closed without a refusal, which would be taken for the answer to another request."""
    before = failures(server, "HeadTooLarge")
    opened = connect(server)
    opened.sendall(LIVE)
    until(opened, b'{"live":true}')
    opened.sendall(begin)
    assert pour(opened, piece, most=100 * MAX_HEAD) == b""
    assert failures(server, "HeadTooLarge") == before + 1


def test_a_body_may_come_byte_by_byte_with_extensions_and_trailers(server: Serving) -> None:
    body = json.dumps({"inputs": [[0.25] * 6] * 300, "models": ["plain"]}).encode()
    assert len(body) > 2 * MAX_HEAD
    chunks = b"".join(b"%08x\r\n%c\r\n" % (1, byte) for byte in body)
    for size in (1000, len(chunks)):
        opened = connect(server)
        opened.sendall(POST)
        for start in range(0, len(chunks), size):
            opened.sendall(chunks[start : start + size])
        opened.sendall(b"0;last=yes\r\nX-Check: 1\r\nX-Other: 2\r\n\r\n" + GET)
        received = rest(opened)
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert received.endswith(b'{"live":true}')


def test_a_trailer_is_no_header(server: Serving) -> None:
    for piece in (LIVE + b"0\r\nX-Request-ID: trailer\r\n\r\n", POST + b"1\r\n{\r\n0\r\nX-Request-ID: trailer\r\n\r\n"):
        opened = connect(server)
        opened.sendall(piece)
        received = rest(opened)
        assert b"\r\nx-request-id: " in received
        assert b"\r\nx-request-id: trailer" not in received
