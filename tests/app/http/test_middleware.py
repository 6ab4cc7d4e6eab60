"""Keys, ids, limits, headers and logs of every request, and clients that disconnect, at a real server."""

import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.keys import Role, make_key
from tests.app.conftest import ROWS, Serving, repeated_predictions, serving, wait_until
from tests.app.graphs import classifier, heavy, publish, weights
from tests.app.sockets import connect

ROW = {"inputs": [[0.5] * 6], "models": ["plain"]}
LONG = {"inputs": [[0.0] * 512] * 500, "models": ["heavy"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("middleware")
    publish(folder, "plain", classifier(weights([6, 3])))
    publish(folder, "heavy", heavy(width=512, products=150))
    return folder


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    return {role.name: make_key(role.name, role) for role in Role}


@pytest.fixture(scope="module")
def locked(
    folder: Path, keys: dict[str, tuple[str, str]], http_mode: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """A server with keys, two CORS origins, one request at a time for each client, one thread and JSON logs."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("\n".join(line for _, line in keys.values()))
    options: dict[str, Any] = {
        "cors_origins": "https://page.example, http://other.example:81",
        "client_requests": 1,
        "instances": 1,
        "http": http_mode,
    }
    with serving(folder, keys=file, log_format="json", access_log=True, **options) as running:
        yield running


def test_each_role_allows_its_own_requests_and_no_more(locked: Serving, keys: dict[str, tuple[str, str]]) -> None:
    requests: dict[str, Callable[[dict[str, str]], httpx.Response]] = {
        "read": lambda headers: locked.client.get("/api/models", headers=headers),
        "predict": lambda headers: locked.client.post("/api/predict", json=ROW, headers=headers),
        "admin": lambda headers: locked.client.post("/api/compare", json={"models": ["nobody", "x"]}, headers=headers),
    }
    expected = {"read": 200, "predict": 200, "admin": 404}
    for held in Role:
        for needed, request in requests.items():
            for headers in ({"Authorization": f"Bearer {keys[held.name][0]}"}, {"X-API-Key": keys[held.name][0]}):
                answer = request(headers)
                if held >= Role[needed]:
                    assert answer.status_code == expected[needed], (held, needed)
                else:
                    assert answer.status_code == 403
                    assert answer.json() == {"error": f"got a key for {held.name}, expected one for {needed}"}


def test_only_admins_train(locked: Serving, keys: dict[str, tuple[str, str]]) -> None:
    for role in Role:
        headers = {"X-API-Key": keys[role.name][0]}
        assert locked.client.get("/api/trainings/options", headers=headers).json()["available"] is True
        started = locked.client.post("/api/trainings", json={"data": "nothing"}, headers=headers)
        ended = locked.client.delete("/api/trainings/0", headers=headers)
        assert (started.status_code, ended.status_code) == ((400, 404) if role is Role.admin else (403, 403))


def test_without_a_key_only_paths_without_data_are_open(locked: Serving) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics", "/openapi.json", "/docs"):
        assert locked.client.get(path).status_code == 200, path
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer x"}):
        for answer in (
            locked.client.get("/api/models", headers=headers),
            locked.client.get("/no/such/path", headers=headers),
            locked.client.post("/api/predict", json=ROW, headers=headers),
        ):
            assert answer.status_code == 401
            assert answer.json()["error"].startswith("an API key is needed")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_pages_of_other_origins_need_to_be_named_for_cors(locked: Serving, client: httpx.Client) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin in ("https://page.example", "http://other.example:81"):
        answer = locked.client.options("/api/predict", headers=preflight | {"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
    answer = locked.client.options("/api/predict", headers=preflight | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    answer = client.get("/api/models", headers={"Origin": "https://page.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_too_many_requests_of_one_client_are_429(locked: Serving, keys: dict[str, tuple[str, str]]) -> None:
    own, other = {"X-API-Key": keys["admin"][0]}, {"X-API-Key": keys["predict"][0]}
    with repeated_predictions(locked, LONG, own) as codes:
        refused = wait_until(
            lambda: (answer := locked.client.get("/api/models", headers=own)).status_code == 429 and answer
        )
        assert refused.json() == {
            "error": "got 2 running requests of this client, expected at most 1 (KRON_CLIENT_REQUESTS)"
        }
        assert refused.headers["retry-after"] == "1"
        assert locked.client.get("/api/models", headers=other).status_code == 200
    assert codes[-1] == 200
    assert locked.client.get("/api/models", headers=own).status_code == 200


def test_too_many_requests_are_503_and_health_still_answers(folder: Path, http_mode: str) -> None:
    with serving(folder, max_requests=1, http=http_mode) as server:
        with repeated_predictions(server, LONG):
            refused = wait_until(lambda: (answer := server.client.get("/api/models")).status_code == 503 and answer)
            assert refused.json() == {"error": "got 2 running requests, expected at most 1 (KRON_MAX_REQUESTS)"}
            assert refused.headers["retry-after"] == "1"
            assert server.client.get("/v2/health/ready").is_success
        assert server.client.get("/api/models").is_success


def test_a_valid_request_id_is_kept_and_an_invalid_one_replaced(client: httpx.Client) -> None:
    for path in ("/v2/health/live", "/no/such/path", "/api/models"):
        assert client.get(path, headers={"X-Request-ID": "a-1_2:3"}).headers["x-request-id"] == "a-1_2:3"
    assert client.post("/api/predict", json=ROW, headers={"X-Request-ID": "p"}).headers["x-request-id"] == "p"
    made = [
        client.get("/api/models", headers={"X-Request-ID": given}).headers["x-request-id"]
        for given in ("", "a b", "x" * 129)
    ]
    made.append(client.post("/api/predict", content=b"{").headers["x-request-id"])
    assert len(set(made)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{12}-\d+", one) for one in made)


def test_data_has_its_security_headers(client: httpx.Client) -> None:
    for answer in (client.post("/api/predict", json=ROW), client.post("/api/predict", content=b"{")):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_request_whose_client_disconnects_while_it_waits_is_not_run(tmp_path: Path, http_mode: str) -> None:
    publish(tmp_path, "heavy", heavy(width=512, products=300))
    with serving(tmp_path, instances=1, http=http_mode) as server:
        port = httpx.URL(server.address).port or 0

        def value(series: str) -> float:
            lines = server.client.get("/metrics").text.splitlines()
            return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " "))

        def send(body: object) -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/api/predict", json.dumps(body))
            return connection

        # Too many rows for a small request to be added to their batch: one runs, and all the others wait.
        pending = 'nv_inference_pending_request_count{model="heavy",version="1"}'
        running = [send({"inputs": [[0.0] * 512] * 1010, "models": ["heavy"]}) for _ in range(2)]
        wait_until(lambda: value(pending) == 1)  # the long requests are read in a thread, the short ones at once
        waiting = [send({"inputs": [[0.0] * 512] * 20, "models": ["heavy"]}) for _ in range(3)]
        wait_until(lambda: value(pending) == 4)
        for connection in waiting:
            assert connection.sock is not None
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
        for connection in running:
            assert connection.getresponse().status == 200
            connection.close()
        labels = 'model="heavy",version="1"'
        canceled = f'nv_inference_request_failure{{{labels},reason="CANCELED"}}'
        wait_until(lambda: value(canceled) == 3)
        assert value(f"nv_inference_exec_count{{{labels}}}") == 2
        assert value(f"nv_inference_request_success{{{labels}}}") == 2
        assert value(pending) == 0


def test_a_client_that_disconnects_in_its_body_is_no_internal_error(folder: Path, http_mode: str) -> None:
    """At raw endpoints and at others, in JSON and in forms."""
    form = "Content-Type: multipart/form-data; boundary=x\r\n"
    requests = [("/api/predict", ""), ("/v2/repository/index", ""), ("/api/compare", ""), ("/api/compare", form)]
    options: dict[str, Any] = {"log_format": "json", "access_log": True, "drain_seconds": 0, "http": http_mode}
    with serving(folder, expected_code=0, **options) as server:
        for path, header in requests:
            with connect(server) as connection:
                connection.sendall(
                    f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: 100\r\n\r\n-".encode()
                )
                server.client.get("/v2/health/live")  # by then the first bytes have been read
        server.client.get("/v2/health/live")
        server.client.close()
        server.process.terminate()
        _, errors = server.process.communicate(timeout=30)
    lines = [json.loads(line) for line in errors.splitlines()]
    ended = sorted((line["message"], line.get("status")) for line in lines if line["message"].startswith("POST "))
    assert ended == sorted((f"POST {path}", 499) for path, _ in requests)
    assert not any("exception" in line for line in lines)


def test_a_prediction_that_takes_too_long_is_504(folder: Path) -> None:
    with serving(folder, predict_seconds=0.05) as server:
        body = {"inputs": [[0.0] * 512] * 1000, "models": ["heavy"]}
        answer = server.client.post("/api/predict", json=body)
        assert answer.status_code == 504
        assert answer.json()["error"].startswith("no answer within ")
        wait_until(lambda: server.client.post("/api/predict", json=ROW).status_code == 200)  # its limit is as short


def test_the_log_is_json_and_has_the_ids_of_requests(folder: Path) -> None:
    with serving(folder, log_format="json", access_log=True, drain_seconds=0, expected_code=0) as server:
        server.client.post("/api/predict", json=ROW, headers={"X-Request-ID": "mine"})
        server.client.get("/nothing?key=secret", headers={"X-Request-ID": "yours"})
        process = server.process
        server.client.close()
        process.terminate()
        _, errors = process.communicate(timeout=30)
        lines = [json.loads(line) for line in errors.splitlines()]
    by_id = {line.get("request_id"): line for line in lines}
    assert by_id["mine"]["message"] == "POST /api/predict"
    assert by_id["mine"]["status"] == 200
    assert by_id["mine"]["seconds"] > 0
    assert by_id["yours"]["status"] == 404
    assert "secret" not in errors
    assert set(by_id["mine"]) == {"time", "level", "logger", "message", "request_id", "status", "seconds"}


def test_no_path_can_forge_a_line_of_the_text_log(folder: Path) -> None:
    with serving(folder, access_log=True, drain_seconds=0, expected_code=0) as server:
        server.client.get("/caf%c3%a9%0aERROR:%20forged%1b[2J%0d%c2%85%e2%80%a8", headers={"X-Request-ID": "mine"})
        server.client.close()
        server.process.terminate()
        _, errors = server.process.communicate(timeout=30)
    (line,) = [line for line in errors.splitlines() if "forged" in line]
    assert line.startswith(r"INFO: GET /café\nERROR: forged\x1b[2J\r\x85\u2028 (status 404, ")
    assert line.endswith(", request mine)")


def test_without_keys_pages_of_other_sites_may_read_but_not_change(client: httpx.Client) -> None:
    row = {"inputs": [[0.0] * 6], "models": ["small-dense"]}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        for path in ("/api/predict", "/v2/repository/models/small-dense/unload", "/api/compare"):
            refused = client.post(path, json=row, headers={"Origin": origin})
            assert refused.status_code == 403
            assert refused.json() == {
                "error": f"Origin: got {origin}, expected this service's own or one of KRON_CORS_ORIGINS"
            }
        assert client.get("/api/models", headers={"Origin": origin}).is_success
    own = str(client.base_url).rstrip("/")
    assert client.post("/api/predict", json=row, headers={"Origin": own}).is_success
    assert client.post("/api/predict", json=row).is_success


def test_a_connection_that_is_no_http_disturbs_no_other(server: Serving) -> None:
    with connect(server) as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        connection.recv(1000)
    assert server.client.post("/api/predict", json={"inputs": ROWS[:1].tolist()}).is_success
