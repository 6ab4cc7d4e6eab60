"""Jobs that are kept, followed from other processes, cancelled, and interrupted."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.errors import Overloaded, ReportsError
from app.jobs.job import Job, JobSpec
from app.jobs.runner import JobRunner
from app.jobs.store import INTERRUPTED, JobStore
from tests.app.conftest import Serving, is_alive, serving, wait_until
from tests.app.events import events, stream
from tests.app.graphs import classifier, publish, weights
from tests.app.jobs.test_store import summary

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


def test_a_follower_in_another_process_gets_an_error_when_the_reports_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"

    async def scenario() -> list[Any]:
        store = JobStore(str(path), keep=5)
        remote = JobRunner(JobStore(str(path), keep=5))
        with store.exclusive_slot():
            store.add(summary(1))
            following = await remote.follow("comparison", summary(1).id)
            seen = [await anext(following)]
            path.write_bytes(b"\xa5" * path.stat().st_size)
            seen += [event async for event in following]
        await remote.close()
        store.close()
        return seen

    seen = asyncio.run(scenario())
    assert [event[0] for event in seen] == ["started", "error"]
    assert seen[-1][1] == b'{"error":"the reports cannot be read or kept: file is not a database"}'


def test_a_slot_whose_lock_file_cannot_be_opened_is_an_error_of_one_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        jobs = JobRunner(JobStore(str(folder / "a.sqlite3"), keep=5))
        (folder / "a.sqlite3-lock").mkdir()  # not a matter of permissions, which root does not need

        async def work(job: Job) -> Any:
            return report()

        with pytest.raises(ReportsError, match=r"^the reports cannot be read or kept: Is a directory$"):
            await start(jobs, work)
        await jobs.close()

    asyncio.run(scenario())


def report() -> Any:
    """A result that the work of a job may return."""
    return SimpleNamespace(seconds=1.0, headline="h", model_dump=lambda mode: {"n": 1})


def spec(work: Any) -> JobSpec:
    return JobSpec(
        kind="comparison", title="title", request={}, seconds=30, limit_name="KRON_COMPARE_SECONDS", work=work
    )


async def start(jobs: JobRunner, work: Any) -> Job:
    return await jobs.start(spec(work))


def test_a_silent_job_is_kept_alive_and_followers_see_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.job.KEEP_ALIVE_SECONDS", 0.01)

    async def scenario() -> list[Any]:
        jobs = JobRunner(JobStore(":memory:", keep=5))
        goes_on = asyncio.Event()

        async def work(job: Job) -> Any:
            await goes_on.wait()
            job.progress("late", 1, 2)
            return report()

        job = await start(jobs, work)
        seen: list[Any] = []
        async for event in await jobs.follow("comparison", job.id):
            seen.append(event)
            if seen.count(None) == 2:
                goes_on.set()
        assert [event async for event in await jobs.follow("comparison", job.id)][-1] == ("report", b'{"n":1}')
        await jobs.close()
        return seen

    seen = asyncio.run(scenario())
    assert seen[0][0] == "started"
    assert seen.count(None) >= 2
    assert [event for event in seen[1:] if event] == [
        ("progress", b'{"stage":"late","done":1,"total":2}'),
        ("report", b'{"n":1}'),
    ]


def test_a_follower_in_another_process_sees_published_events_then_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.runner.HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr("app.jobs.runner.POLL_SECONDS", 0.02)

    async def scenario() -> list[Any]:
        local, remote = (JobRunner(JobStore(str(tmp_path / "a.sqlite3"), keep=5)) for _ in range(2))
        goes_on = asyncio.Event()

        async def work(job: Job) -> Any:
            job.publish("plan", {"n": 0})
            job.publish("epoch", {"n": 1})
            job.progress("late", 1, 2)
            await goes_on.wait()
            job.publish("epoch", {"n": 2})  # and no heartbeat follows
            return report()

        job = await start(local, work)
        seen: list[Any] = []
        async for event in await remote.follow("comparison", job.id):
            seen.append(event)
            if event and event[0] == "progress":
                goes_on.set()
        assert [event async for event in await remote.follow("comparison", job.id)][1:] == [
            event for event in seen if event and event[0] != "progress"
        ][1:]
        await local.close()
        await remote.close()
        return seen

    seen = asyncio.run(scenario())
    assert seen[0][0] == "started"
    assert [event for event in seen[1:] if event and event[0] != "progress"] == [
        ("plan", b'{"n":0}'),
        ("epoch", b'{"n":1}'),
        ("epoch", b'{"n":2}'),
        ("report", b'{"n":1}'),
    ]


def test_a_follower_that_does_not_read_misses_progress_but_no_other_event() -> None:
    async def scenario() -> list[Any]:
        job = Job(spec(None))
        following = job.follow()
        assert await anext(following) is not None
        for number in range(1000):
            job.progress("stage", number, 1000)
            if number % 100 == 0:
                job.publish("cells", number)
        job.end(("report", b"{}"))
        return [event async for event in following]

    seen = asyncio.run(scenario())
    assert len(seen) <= 100 + 11
    assert [data for name, data in seen if name == "cells"] == [b"%d" % number for number in range(0, 1000, 100)]
    assert seen[-1] == ("report", b"{}")


def test_a_job_runs_although_the_store_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        store = JobStore(":memory:", keep=5)
        jobs = JobRunner(store)
        store.close()

        async def work(job: Job) -> Any:
            return report()

        for _ in range(2):  # the slot is free again
            job = await start(jobs, work)
            assert await job.result() == b'{"n":1}'

    asyncio.run(scenario())
    assert "the reports cannot be read or kept: Cannot operate on a closed database" in caplog.text


def test_a_service_that_shuts_down_starts_no_job() -> None:
    async def scenario() -> None:
        store = JobStore(":memory:", keep=5)
        jobs = JobRunner(store)

        async def work(job: Job) -> Any:
            await asyncio.Event().wait()

        starting = asyncio.create_task(start(jobs, work))
        await asyncio.sleep(0)  # it holds the slot, and a thread inserts the job
        await jobs.stop()
        job = await starting
        assert job.outcome == "cancelled"
        kept = await jobs.get("comparison", job.id)
        assert (kept.status, kept.error) == ("failed", "the comparison was stopped: the service is shutting down")
        with pytest.raises(Overloaded, match=r"^the service is shutting down$"):
            await start(jobs, work)
        assert (await jobs.list("comparison", limit=9, offset=0))[0] == 1
        with store.exclusive_slot():
            pass
        await jobs.close()

    asyncio.run(scenario())


def test_an_internal_error_of_the_work_is_logged_and_not_sent_to_clients(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        jobs = JobRunner(JobStore(":memory:", keep=5))

        async def work(job: Job) -> Any:
            raise ZeroDivisionError("private")

        job = await start(jobs, work)
        events = [event async for event in job.follow()]
        assert events[-1] == ("error", b'{"error":"internal error; see the service\'s log"}')
        with pytest.raises(ZeroDivisionError):
            await job.result()
        assert (await jobs.get("comparison", job.id)).status == "failed"

    asyncio.run(scenario())
    assert "ZeroDivisionError: private" in caplog.text
