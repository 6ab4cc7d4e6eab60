"""Files of the page and of the API documentation."""

import http.client

import httpx
import pytest

from tests.app.conftest import Serving


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
    connection.request("GET", path)  # httpx would normalise the path
    answer = connection.getresponse()
    assert answer.status == 404
    assert b'{"error":' in answer.read()
    connection.close()


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
