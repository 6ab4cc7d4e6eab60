"""The page and the API documentation, at a real server."""

import httpx


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


def test_the_documentation_loads_nothing_from_other_hosts(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert "https://" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/static/vendor/{name}" in answer.text
        assert client.get(f"/static/vendor/{name}").status_code == 200
