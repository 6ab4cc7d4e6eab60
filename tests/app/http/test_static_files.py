"""Files of the page and of the API documentation."""

import http.client

import httpx
import pytest

from tests.app.conftest import Serving
from tests.dependencies.pins import ROOT


@pytest.mark.parametrize(
    "path",
    [
        "/static/../pyproject.toml",
        "/static/%2e%2e/pyproject.toml",
        "/static/..%2f..%2fetc/passwd",
        "/static//etc/passwd",
        "/static/js/../index.html",
        "/static/js",
        "/static/",
        "/static/js/main.js/",
        "/static/js%5Cmain.js",
        "/static/js/main.js%00",
    ],
)
def test_static_files_stay_in_their_folder(server: Serving, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(server.address).port or 0, timeout=30)
    connection.request("GET", path)  # httpx would normalise the path
    answer = connection.getresponse()
    assert answer.status == 404
    assert b'{"error":' in answer.read()
    connection.close()


def test_a_file_of_the_page_is_sent_again_only_when_it_has_changed(client: httpx.Client) -> None:
    answer = client.get("/static/js/main.js")
    assert answer.status_code == 200
    assert answer.content == (ROOT / "static" / "js" / "main.js").read_bytes()
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}"):
        again = client.get("/static/js/main.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, "no-cache")
    other = client.get("/static/js/ui/dom.js")
    assert other.headers["etag"] != tag
    assert client.get("/static/js/ui/dom.js", headers={"If-None-Match": tag}).status_code == 200


def test_the_documentations_files_come_from_their_package_and_are_cached(client: httpx.Client) -> None:
    answer = client.get("/static/vendor/swagger-ui-bundle.js")
    assert answer.status_code == 200
    assert "javascript" in answer.headers["content-type"]
    assert len(answer.content) > 1_000_000
    assert answer.headers["cache-control"] == "public, max-age=604800"
    assert answer.headers["etag"]
    answer = client.get("/static/vendor/other.js")
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("no such file: got 'other.js'")
