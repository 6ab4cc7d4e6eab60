"""Comparisons that are kept, followed from other processes, cancelled, and interrupted."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.jobs.store import INTERRUPTED
from tests.app.conftest import Serving, is_alive, serving, wait_until
from tests.app.events import events, stream
from tests.app.graphs import classifier, publish, weights

SLOW: dict[str, Any] = {"models": ["plain", "padded"], "batch_sizes": [1, 64], "seconds": 120}


def comparisons(client: httpx.Client, **query: int) -> Any:
    answer = client.get("/api/comparisons", params=query)
    assert answer.status_code == 200
    return answer.json()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for name, width in (("one", 5), ("two", 50)):
        publish(folder, name, classifier(weights([6, width, 3])))
    return folder


def test_reports_are_kept_listed_downloaded_and_deleted_across_a_restart(small: Path) -> None:
    with serving(small) as server:
        first = server.client.post(
            "/api/compare", json={"batch_sizes": [3], "models": ["one", "two"], "seconds": 0.1}
        ).json()
        second = server.client.post(
            "/api/compare", json={"batch_sizes": [1], "models": ["two", "one"], "seconds": 0.1}
        ).json()
    with serving(small) as server:
        client = server.client
        listed = comparisons(client)
        assert listed["total"] == 2
        assert [job["id"] for job in listed["comparisons"]] == [second["id"], first["id"]]
        assert comparisons(client, limit=1, offset=1)["comparisons"] == listed["comparisons"][1:]
        job = listed["comparisons"][1]
        assert (job["status"], job["title"], job["error"], job["progress"]) == ("done", "one, two", None, None)
        assert job["request"]["batch_sizes"] == [3]
        assert job["headline"] == first["pairs"][0]["sentence"]
        place = f"/api/comparisons/{first['id']}"
        assert client.get(place).json() == job | {"report": first}
        file = client.get(place, params={"download": 1})
        assert file.json() == first
        assert file.headers["content-disposition"] == (
            f'attachment; filename="kronmodel-comparison-{first["id"]}.json"'
        )
        with client.stream("GET", f"{place}/events") as response:
            assert [name for name, _ in events(response)] == ["started", "report"]
        assert client.delete(place).status_code == 204
        for gone in (client.get(place), client.delete(place), client.get(f"{place}/events")):
            assert gone.status_code == 404
            assert gone.json()["error"].startswith(f"no comparison of the id '{first['id']}'")
        assert comparisons(client)["total"] == 1


def test_a_comparison_goes_on_when_its_follower_disconnects_and_can_be_followed_again(server: Serving) -> None:
    client = server.client
    with stream(client, **SLOW) as response:
        name, started = next(incoming := events(response))
        assert (name, started["status"], started["title"]) == ("started", "running", "plain, padded")
        assert next(incoming)[0] == "progress"
    place = f"/api/comparisons/{started['id']}"
    assert wait_until(server.children)
    assert comparisons(client)["comparisons"][0]["status"] == "running"
    running = client.get(place).json()
    assert running["report"] is None
    assert running["progress"]["total"] > 0
    assert client.get(place, params={"download": 1}).status_code == 409
    with client.stream("GET", f"{place}/events") as response, client.stream("GET", f"{place}/events") as other:
        followers = [events(response), events(other)]
        for follower in followers:
            assert next(follower)[1]["id"] == started["id"]
            assert next(follower)[0] == "progress"
        assert client.delete(place).status_code == 204
        assert not server.children()
        for follower in followers:
            assert list(follower)[-1] == ("error", {"error": "the comparison was cancelled"})
    assert client.get(place).status_code == 404


def test_two_services_on_one_repository_exclude_follow_and_cancel_each_other(models: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports.sqlite3"
    with serving(models, reports=reports) as one, serving(models, reports=reports) as two:
        with stream(one.client, **SLOW) as response:
            incoming = events(response)
            started = next(incoming)[1]
            place = f"/api/comparisons/{started['id']}"
            answer = two.client.post("/api/compare", json={"models": ["plain", "padded"]})
            assert answer.status_code == 409
            assert answer.json() == {"error": "another process measures or trains on these models; try again later"}
            assert comparisons(two.client)["comparisons"][0]["status"] == "running"
            with two.client.stream("GET", f"{place}/events") as remote_response:
                remote_events = events(remote_response)
                assert next(remote_events)[0] == "started"
                assert next(remote_events)[0] == "progress"
                assert two.client.delete(place).status_code == 204
                assert list(remote_events)[-1] == ("error", {"error": "the comparison was cancelled"})
            assert list(incoming)[-1] == ("error", {"error": "the comparison was cancelled"})
        one.wait_until_childless()


@pytest.mark.parametrize("reports", ["off", "file"])
@pytest.mark.slow
def test_every_worker_knows_of_the_comparison_of_one(models: Path, tmp_path: Path, reports: str) -> None:
    place = "off" if reports == "off" else str(tmp_path / "reports.sqlite3")
    with serving(models, workers=3, reports=place) as server, stream(server.client, **SLOW) as response:
        incoming = events(response)
        started = next(incoming)[1]
        next(incoming)
        for _ in range(8):  # each a connection of its own, to whichever worker
            listed = httpx.get(f"{server.address}/api/comparisons").json()["comparisons"]
            assert [(job["id"], job["status"]) for job in listed] == [(started["id"], "running")]
            answer = httpx.post(f"{server.address}/api/compare", json=SLOW)
            assert answer.status_code == 409
        assert httpx.delete(f"{server.address}/api/comparisons/{started['id']}", timeout=60).status_code == 204
        assert list(incoming)[-1] == ("error", {"error": "the comparison was cancelled"})


def test_a_comparison_whose_service_was_killed_is_marked_failed(models: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports.sqlite3"
    with serving(models, reports=reports, expected_code=-9) as server, stream(server.client, **SLOW) as response:
        started = next(incoming := events(response))[1]
        next(incoming)
        children = wait_until(server.children)
        server.process.kill()
        wait_until(lambda: not any(is_alive(child) for child in children))
    with serving(models, reports=reports) as server:
        job = server.client.get(f"/api/comparisons/{started['id']}").json()
        assert (job["status"], job["error"], job["report"]) == ("failed", INTERRUPTED, None)
        with server.client.stream("GET", f"/api/comparisons/{started['id']}/events") as response:
            assert list(events(response))[-1] == ("error", {"error": INTERRUPTED})


def test_a_failed_comparison_is_kept_with_its_reason(tmp_path: Path) -> None:
    publish(tmp_path, "narrow", classifier(weights([5, 3])))
    publish(tmp_path, "wide", classifier(weights([6, 3])))
    with serving(tmp_path) as server:
        answer = server.client.post("/api/compare", json={"models": ["wide", "narrow"]})
        assert answer.status_code == 400
        (job,) = comparisons(server.client)["comparisons"]
        assert (job["status"], job["error"]) == ("failed", answer.json()["error"])


def test_reports_can_be_switched_off(small: Path) -> None:
    with serving(small, reports="off") as server:
        for sizes in ([1], [2]):
            body = {"models": ["one", "two"], "batch_sizes": sizes, "seconds": 0.1}
            report = server.client.post("/api/compare", json=body).json()
        listed = comparisons(server.client)
        assert [job["id"] for job in listed["comparisons"]] == [report["id"]]
    assert [path.name for path in small.iterdir() if path.is_file()] == []


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"offset": -1}, {"limit": "many"}])
def test_bad_queries_are_400(client: httpx.Client, query: dict[str, Any]) -> None:
    answer = client.get("/api/comparisons", params=query)
    assert answer.status_code == 400
    assert "got" in answer.json()["error"]


def test_damaged_reports_are_reported_and_measuring_goes_on(small: Path, tmp_path: Path) -> None:
    reports, body = tmp_path / "reports.sqlite3", {"models": ["one", "two"], "batch_sizes": [1], "seconds": 0.1}
    with serving(small, reports=reports) as server:
        client = server.client
        place = f"/api/comparisons/{client.post('/api/compare', json=body).json()['id']}"
        assert client.get(place).is_success
        reports.write_bytes(b"\xa5" * reports.stat().st_size)
        for answer in (client.get("/api/comparisons"), client.get(place), client.get(f"{place}/events")):
            assert answer.status_code == 500
            assert answer.json() == {"error": "the reports cannot be read or kept: file is not a database"}
        assert client.delete(place).status_code == 500
        assert client.post("/api/compare", json=body).json()["pairs"]
        assert 'kron_failures_total{reason="ReportsError"} 4' in client.get("/metrics").text
