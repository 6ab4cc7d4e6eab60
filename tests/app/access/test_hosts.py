"""Host names that a service without API keys answers to: protection against DNS rebinding."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.access.hosts import MAX_KNOWN_HOSTS, AllowedHosts
from app.errors import BadRequest, Forbidden
from app.settings import Settings
from tests.app.conftest import Serving, serving
from tests.app.graphs import classifier, publish, weights

ALLOWED = [
    "localhost",
    "LOCALHOST:8000",
    "kron.localhost:1",
    "localhost.",
    "127.0.0.1:8000",
    "10.1.2.3",
    "[::1]:8000",
    "[::1]",
]
REFUSED = [
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evillocalhost",
    "",
    "[evil]:1",
    "kron",
]


@pytest.mark.parametrize("host", ALLOWED)
def test_localhost_and_addresses_are_allowed(host: str) -> None:
    hosts = AllowedHosts(Settings())
    assert host.encode() not in hosts.accepted
    hosts.check(host.encode())
    assert host.encode() in hosts.accepted


@pytest.mark.parametrize("host", REFUSED)
def test_other_names_are_refused(host: str) -> None:
    hosts = AllowedHosts(Settings())
    for _ in range(2):
        with pytest.raises(Forbidden, match=r"^Host: got '.*', expected localhost or an address: "):
            hosts.check(host.encode())
    assert host.encode() not in hosts.accepted


@pytest.mark.parametrize("settings", [Settings(), Settings(insecure_no_keys=True)], ids=["local", "open"])
@pytest.mark.parametrize(
    "host",
    ["[::1].evil.example", "[::1]evil", "localhost:80@evil.example", "localhost:80:80", "localhost:x", "localhost/a",
     "localhost, evil.example", "local host", "localhost?", "localhost#", "[::1", "localhost\x80", "a" * 301],
)  # fmt: skip
def test_what_is_no_host_at_all_is_refused(settings: Settings, host: str) -> None:
    hosts = AllowedHosts(settings)
    with pytest.raises(BadRequest, match=r"^Host: got '.*', expected a name or an address, with or without a port$"):
        hosts.check(host.encode("latin-1"))
    assert host.encode("latin-1") not in hosts.accepted


def test_names_in_the_settings_are_allowed() -> None:
    named = {"allowed_hosts": "kron, models.example", "cors_origins": "https://page.example:81,http://[::2]:3"}
    hosts = AllowedHosts(Settings.read({}, named | {"host": "Box"}))
    for name in (b"kron:8000", b"Models.Example", b"page.example", b"box:1"):
        hosts.check(name)
    with pytest.raises(Forbidden):
        hosts.check(b"example")


def test_requests_without_the_header_are_allowed() -> None:
    AllowedHosts(Settings()).check(None)


@pytest.mark.parametrize(
    "settings", [Settings(keys=Path("keys")), Settings(insecure_no_keys=True)], ids=["keys", "open"]
)
def test_with_keys_or_open_to_all_any_name_will_do(settings: Settings) -> None:
    AllowedHosts(settings).check(b"evil.example")


def test_the_number_of_remembered_headers_is_bounded() -> None:
    hosts = AllowedHosts(Settings())
    for number in range(2 * MAX_KNOWN_HOSTS):
        hosts.check(b"127.0.0.1:%d" % number)
    assert sum(b"127.0.0.1:%d" % number in hosts.accepted for number in range(2 * MAX_KNOWN_HOSTS)) < MAX_KNOWN_HOSTS


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("hosts")
    publish(folder, "plain", classifier(weights([6, 3])))
    with serving(folder, allowed_hosts="kron.example") as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models"),
        ("POST", "/api/predict"),
        ("POST", "/v2/models/plain/infer"),
        ("POST", "/v2/repository/models/plain/unload"),
    ],
)
def test_a_page_whose_host_name_resolves_to_the_service_is_refused(served: Serving, method: str, path: str) -> None:
    """With or without `Origin`: to the browser, page and service have the same origin."""
    row = {"inputs": [[0.5] * 6], "models": ["plain"]}
    for headers in ({}, {"Origin": "http://evil.example:8000"}):
        answer = served.client.request(method, path, json=row, headers={"Host": "evil.example:8000", **headers})
        assert answer.status_code == 403
        assert answer.json()["error"].startswith("Host: got 'evil.example:8000', expected localhost or an address: ")
    assert served.client.get("/api/models", headers={"Host": "kron.example:8000"}).is_success
    assert served.client.post("/api/predict", json=row).is_success


def test_health_is_served_to_any_host_name_and_everything_else_is_not(served: Serving) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert served.client.get(path, headers={"Host": "probe.example"}).is_success
    for path in ("/metrics", "/", "/docs", "/openapi.json", "/static/js/main.js", "/v2", "/no/such/path"):
        assert served.client.get(path, headers={"Host": "probe.example"}).status_code == 403
        assert served.client.get(path, headers={"Host": "kron.example"}).status_code != 403
