"""HEAD wherever GET is: the same status and headers without a body, at a real service."""

from collections.abc import Iterator

import pytest

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import KRONECKER, Serving, serving
from tests.app.graphs import classifier, publish
from tests.app.sockets import connect, rest

VARYING = {"date", "x-request-id"}
UNDOCUMENTED = [
    "/", "/docs", "/openapi.json", "/static/js/main.js", "/static/vendor/swagger-ui.css", "/no/such/path",
    "/api/predict", "/v2/logging", "/v1/models/plain:predict", "/v2/models/plain/infer",
]  # fmt: skip
GROWING = ("/metrics", "stats")  # their answers change from one request to the next
PATHS = [path for path, methods in create_app(Settings()).openapi()["paths"].items() if "get" in methods]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, http_mode: str) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("head")
    publish(folder, "plain", classifier(KRONECKER))
    with serving(folder, http=http_mode) as running:
        yield running


@pytest.mark.parametrize("template", PATHS + UNDOCUMENTED)
def test_head_is_get_without_the_body(server: Serving, template: str) -> None:
    path = template.replace("{name}", "plain").replace("{version}", "1").replace("{job_id}", "nothing")
    headers = {"Accept-Encoding": "identity"}
    get, head = (server.client.request(method, path, headers=headers) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (get.status_code, b"")
    varying = VARYING | ({"content-length"} if path.endswith(GROWING) else set())
    assert int(head.headers["content-length"]) > 0
    shown = [{name: answer.headers[name] for name in answer.headers if name not in varying} for answer in (get, head)]
    assert shown[0] == shown[1]


def test_a_connection_goes_on_after_head(server: Serving) -> None:
    request = b"%b /api/models HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    with connect(server) as opened:
        opened.sendall(request % (b"HEAD", b"") + request % (b"GET", b"Connection: close\r\n"))
        received = rest(opened)
    head, _, after = received.partition(b"\r\n\r\n")
    assert after.startswith(b"HTTP/1.1 200 OK\r\n")
    (length,) = (int(line.split(b": ")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    assert len(after.partition(b"\r\n\r\n")[2]) == length > 100


def test_head_of_a_stream_of_events_ends(server: Serving) -> None:
    started = server.client.post("/api/sweeps", json={"widths": [16], "batch_sizes": [1], "seconds": 30})
    assert started.status_code == 202, started.text
    path = started.headers["Location"]
    try:
        with connect(server) as opened:
            opened.settimeout(20)
            opened.sendall(f"HEAD {path}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            received = rest(opened)
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\ncontent-type: text/event-stream" in received
        assert received.endswith(b"\r\n\r\n")
        assert received.count(b"\r\n\r\n") == 1
    except TimeoutError:
        pytest.fail("the response does not end")
    finally:
        server.client.delete(path)


def test_the_description_of_the_api_has_no_head() -> None:
    document = create_app(Settings()).openapi()
    assert not any("head" in methods for methods in document["paths"].values())
