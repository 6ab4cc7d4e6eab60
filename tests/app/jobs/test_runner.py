"""Jobs of one process: their events, their followers, their ends."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import Overloaded, ReportsError
from app.jobs.job import Job, JobSpec
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore
from tests.app.jobs.test_store import summary


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
