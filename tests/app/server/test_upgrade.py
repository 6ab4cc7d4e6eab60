"""Requests that offer another protocol, as each JDK client and `curl --http2` do: answered as if they did not."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.server.connection_state import State
from app.server.request_parser import headers_without_upgrade
from tests.app.conftest import Serving, serving
from tests.app.graphs import classifier, forward, publish, weights
from tests.app.server.driver import Driver, drive, turn
from tests.app.sockets import GET, connect, rest

LAYERS = weights([6, 3])
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
PATHS = {b"/a": "the application", b"/fast": "the fast path"}
BODIES = {
    "length": b"Content-Length: 4\r\n\r\nbody",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n3;x=y\r\nody\r\n0\r\nX-Trailer: 1\r\n\r\n",
}
OFFERS = {
    "h2c": OFFER,
    "websocket": b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n",
    "other": b"upgrade: TLS/1.0\r\nconnection: UPGRADE\r\n",
    "two": b"Upgrade: h2c\r\nUpgrade: foo/2\r\nConnection: upgrade\r\n",
    "expecting": OFFER + b"Expect: 100-continue\r\n",
}


async def answer(driver: Driver) -> list[tuple[str, bytes]]:
    """Answer all requests of the connection; the path and the body of each."""
    got = []
    driver.fast_path.finish()
    await turn()
    for number, receive in enumerate(driver.app.receives):
        body = b""
        while (message := await receive()).get("more_body", False):
            body += message["body"]
        got.append((driver.app.scopes[number]["path"], body + message["body"]))
        await driver.app.respond(number)
    return got


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("path", PATHS, ids=PATHS.values())
def test_the_body_is_read_in_any_pieces_and_what_follows_is_answered(path: bytes, offer: bytes, body: bytes) -> None:
    data = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b%b" % (path, offer, body)

    async def test(driver: Driver) -> None:
        driver.fast_path.answers = False
        step = len(data) // 3
        for size in (len(data), 1, step, data.index(b"\r\n\r\n") + 4):
            for start in range(0, len(data), size):
                await driver.feed(data[start : start + size])
            assert await answer(driver) == [(path.decode(), b"body")]
            assert driver.transport.take().count(b"HTTP/1.1 200 OK\r\n") == 1
            assert driver.state() is State.IDLE
            assert driver.refused == []
            for made in (driver.app.scopes, driver.app.receives, driver.app.sends, driver.app._ends):
                made.clear()

    drive(test)


@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from([*PATHS]), st.sampled_from([b"", *OFFERS.values()]), st.sampled_from([*BODIES.values()])
        ),
        min_size=1,
        max_size=5,
    ),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
)
def test_requests_with_and_without_offers_follow_each_other(
    requests: list[tuple[bytes, bytes, bytes]], cuts: list[int]
) -> None:
    data = b"".join(b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b%b" % request for request in requests)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})

    async def test(driver: Driver) -> None:
        driver.fast_path.accepts = False
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            driver.connection.data_received(data[begin:end])
        got = []
        for number in range(len(requests)):
            await driver.feed(b"")
            receive = driver.app.receives[number]
            body = b""
            while (message := await receive()).get("more_body", False):
                body += message["body"]
            got.append((driver.app.scopes[number]["path"], body + message["body"]))
            await driver.app.respond(number)
        assert got == [(path.decode(), b"body") for path, _, _ in requests]
        assert driver.state() is State.IDLE

    drive(test)


def test_the_application_sees_the_headers_but_not_the_offer() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(b"GET /a?b=1 HTTP/1.1\r\nHost: localhost\r\n" + OFFER + b"X-Empty:\r\nX-Text: \xe9 \r\n\r\n")
        (scope,) = driver.app.scopes
        assert (scope["path"], scope["query_string"], scope["method"]) == ("/a", b"b=1", "GET")
        assert scope["headers"] == [
            (b"host", b"localhost"), (b"connection", b"Upgrade, HTTP2-Settings"),
            (b"http2-settings", b"AAMAAABkAAQAAP__"), (b"x-empty", b""), (b"x-text", b"\xe9 "),
        ]  # fmt: skip
        await driver.app.respond(0)

    drive(test)


def test_http_1_0_and_connection_close_keep_their_meaning() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(
            b"POST /a HTTP/1.0\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 4\r\n\r\nbody" + GET
        )
        assert driver.app.scopes[0]["http_version"] == "1.0"
        assert await answer(driver) == [("/a", b"body")]
        assert driver.transport.closing
        assert len(driver.app.scopes) == 1

    drive(test)


def test_a_tunnel_is_refused_and_nothing_behind_it_is_read() -> None:
    async def test(driver: Driver) -> None:
        assert await driver.feed(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET) is State.DRAINING
        await driver.feed(GET)
        assert driver.transport.take().startswith(b"HTTP/1.1 400 ")
        assert driver.lingers()
        assert not driver.app.scopes

    drive(test)


def test_headers_are_written_as_they_were_read() -> None:
    headers = [(b"host", b"a"), (b"upgrade", b"h2c"), (b"x", b""), (b"upgrade", b"b"), (b"y", b"1, 2")]
    expected = b"PUT /p?q HTTP/1.0\r\nhost: a\r\nx: \r\ny: 1, 2\r\n\r\n"
    assert headers_without_upgrade(b"PUT", b"/p?q", "1.0", headers) == expected


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("upgrade")
    publish(folder, "plain", classifier(LAYERS))
    with serving(folder, reports="off") as running:
        yield running


def infer(rows: np.ndarray) -> str:
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "logits"}]})


def test_a_body_is_never_run_as_a_request(server: Serving) -> None:
    hidden = b"POST /v2/repository/models/plain/unload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    head = b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n"
    with connect(server) as opened:
        opened.sendall(head % (OFFER, len(hidden)))
        httpx.get(f"{server.address}/v2/health/live")  # the headers have been read by then
        opened.sendall(hidden)
        opened.sendall(GET[:-2] + b"Connection: close\r\n\r\n")
        received = rest(opened)
    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"400", b"200"]
    assert received.endswith(b'{"live":true}')
    assert httpx.get(f"{server.address}/v2/models/plain/ready").is_success


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_with_http2(server: Serving) -> None:
    rows = np.random.default_rng(1).random((2, 6)).astype(np.float32)
    command = ["curl", "--silent", "--show-error", "--http2", "--data", infer(rows), "--write-out", " %{http_code}"]
    url = f"{server.address}/v2/models/plain/infer"
    command = [*command, url, "--next", *command[1:], url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    decoder, text = json.JSONDecoder(), done.stdout
    for _ in range(2):
        body, end = decoder.raw_decode(text)
        np.testing.assert_allclose(
            np.reshape(body["outputs"][0]["data"], (2, 3)), forward(LAYERS, rows), atol=1e-5, err_msg=done.stderr
        )
        assert text[end : end + 4] == " 200"
        text = text[end + 4 :]


JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.charset.StandardCharsets;
public class Client {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();  // offers h2c
        for (int at = 1; at < args.length; at++) {
            byte[] body = args[at].getBytes(StandardCharsets.UTF_8);
            var length = HttpRequest.BodyPublishers.ofByteArray(body);
            var chunked = HttpRequest.BodyPublishers.fromPublisher(length);  // of unknown length
            for (var publisher : new HttpRequest.BodyPublisher[] {length, chunked}) {
                var request = HttpRequest.newBuilder(URI.create(args[0])).POST(publisher).build();
                var response = client.send(request, HttpResponse.BodyHandlers.ofString());
                System.out.println(response.statusCode() + " " + response.version() + " " + response.body());
            }
        }
    }
}
"""


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java 11 or later")
def test_the_client_of_the_jdk(server: Serving, tmp_path: Path) -> None:
    """Bodies in a segment of their own, with a length and chunked, on one connection."""
    rng = np.random.default_rng(2)
    batches = [rng.random((count, 6)).astype(np.float32) for count in (1, 3)]
    source = tmp_path / "Client.java"
    source.write_text(JAVA)
    command = [
        "java",
        "-Xshare:auto",
        "-XX:TieredStopAtLevel=1",
        str(source),
        f"{server.address}/v2/models/plain/infer",
    ]
    command += map(infer, batches)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for line, rows in zip(lines, [rows for rows in batches for _ in range(2)], strict=True):
        status, version, body = line.split(" ", 2)
        assert (status, version) == ("200", "HTTP_1_1")
        data = json.loads(body)["outputs"][0]["data"]
        np.testing.assert_allclose(np.reshape(data, (-1, 3)), forward(LAYERS, rows), atol=1e-5)
