"""Races between the start, the heartbeat, the end and the followers of a job."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import Conflict
from app.jobs.job import Job, JobEvent, JobSpec, error_event
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore

TOO_LONG = "the comparison took longer than 0.01 s (KRON_COMPARE_SECONDS)"


class BlockingStore(JobStore):
    """A store one method of which blocks until the test releases it."""

    def __init__(self, path: str, method: str) -> None:
        super().__init__(path, keep=5)
        self.entered, self.release, self.returned = threading.Event(), threading.Event(), threading.Event()
        original = getattr(self, method)

        def blocking(*args: Any, **kwargs: Any) -> Any:
            self.entered.set()
            self.release.wait(60)
            try:
                return original(*args, **kwargs)
            finally:
                self.returned.set()

        setattr(self, method, blocking)


def report() -> Any:
    """A result that the work of a job may return."""
    return SimpleNamespace(seconds=1.0, headline="h", model_dump=lambda mode: {"n": 1})


def spec(work: Any, seconds: float = 30) -> JobSpec:
    return JobSpec(
        kind="comparison", title="title", request={}, seconds=seconds, limit_name="KRON_COMPARE_SECONDS", work=work
    )


async def start(jobs: JobRunner, work: Any, *, seconds: float = 30) -> Job:
    return await jobs.start(spec(work, seconds))


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 60)


async def collect(following: AsyncIterator[JobEvent | None]) -> list[JobEvent | None]:
    return [event async for event in following]


@pytest.mark.parametrize("read", [1, 2, 3])
def test_a_follower_that_pauses_anywhere_sees_each_event_once(read: int) -> None:
    async def scenario() -> list[JobEvent | None]:
        job = Job(spec(None))
        job.publish("cells", 0)
        job.publish("cells", 1)
        following = job.follow()
        seen = [await anext(following) for _ in range(read)]
        job.publish("cells", 2)
        job.end(("report", b"{}"))
        return seen + await collect(following)

    seen = asyncio.run(scenario())
    assert seen[1:] == [("cells", b"0"), ("cells", b"1"), ("cells", b"2"), ("report", b"{}")]


def test_a_late_heartbeat_does_not_change_a_job_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.runner.HEARTBEAT_SECONDS", 0.01)

    async def scenario() -> None:
        store = BlockingStore(str(tmp_path / "a.sqlite3"), "save_progress")
        jobs = JobRunner(store)

        async def work(job: Job) -> Any:
            for number in range(3):
                job.publish("cells", number)
            job.progress("stage", 1, 2)
            await wait_for(store.entered)
            return report()

        job = await start(jobs, work)
        await job.result()
        assert store.events(job.id, after=0) == [("cells", b"%d" % number) for number in range(3)]
        store.release.set()
        await wait_for(store.returned)
        kept = await jobs.get("comparison", job.id)
        assert (kept.status, kept.progress) == ("done", None)
        assert len(store.events(job.id, after=0)) == 3
        await jobs.close()

    asyncio.run(scenario())


def test_events_that_a_heartbeat_could_not_write_are_written_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.jobs.runner.HEARTBEAT_SECONDS", 0.01)
    large = "x" * 100_000

    def limit_pages(store: JobStore, pages: int) -> None:
        with store._lock:
            store._db.execute(f"PRAGMA max_page_count={pages}")

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        store = JobStore(str(tmp_path / "a.sqlite3"), keep=5)
        jobs = JobRunner(store)

        async def work(job: Job) -> Any:
            limit_pages(store, 1)  # as on a full disk: the file cannot grow
            job.publish("cells", large)
            await until(lambda: "the reports cannot be read or kept: the disk is full" in caplog.text)
            assert not store.events(job.id, after=0)
            limit_pages(store, 10_000)
            await until(lambda: store.events(job.id, after=0))
            return report()

        job = await start(jobs, work)
        await job.result()
        assert store.events(job.id, after=0) == [("cells", f'"{large}"'.encode())]
        await jobs.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("ended", ["well", "badly", "late"])
@pytest.mark.parametrize("cancelled", [True, False])
def test_ending_a_job_waits_until_its_end_is_written(tmp_path: Path, ended: str, *, cancelled: bool) -> None:
    """A cancellation deletes the job; a shutdown of the service does not change how it ended."""

    async def scenario() -> None:
        store = BlockingStore(str(tmp_path / "a.sqlite3"), "save_report" if ended == "well" else "save_failure")
        jobs = JobRunner(store)

        async def work(job: Job) -> Any:
            if ended == "badly":
                raise Conflict("no reason")
            if ended == "late":
                await asyncio.Event().wait()
            return report()

        job = await start(jobs, work, seconds=0.01)
        following = job.follow()
        await anext(following)
        await wait_for(store.entered)
        ending = [
            asyncio.create_task(jobs.cancel("comparison", job.id) if cancelled else jobs.stop()) for _ in range(2)
        ]
        await asyncio.wait(ending, timeout=0.1)
        store.release.set()
        await asyncio.gather(*ending)
        last = (await collect(following))[-1]
        total, kept = await jobs.list("comparison", limit=9, offset=0)
        if cancelled:
            assert total == 0
            assert last == error_event("the comparison was cancelled")
        else:
            expected = {"well": ("done", None), "badly": ("failed", "no reason"), "late": ("failed", TOO_LONG)}[ended]
            assert [(job.status, job.error) for job in kept] == [expected]
            assert last == (("report", b'{"n":1}') if ended == "well" else error_event(str(expected[1])))
        with store.exclusive_slot():
            pass
        await jobs.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("ended", ["ok", "Conflict", "ZeroDivisionError", "TimedOut", "cancelled"])
def test_the_slot_is_free_and_the_job_is_counted_before_a_follower_sees_the_end(ended: str) -> None:
    async def scenario() -> None:
        store = JobStore(":memory:", keep=5)
        jobs = JobRunner(store)
        outcomes: list[str] = []

        async def work(job: Job) -> Any:
            if ended == "Conflict":
                raise Conflict("no reason")
            if ended == "ZeroDivisionError":
                raise ZeroDivisionError
            if ended in {"TimedOut", "cancelled"}:
                await asyncio.Event().wait()
            return report()

        job = await jobs.start(spec(work, seconds=0.01 if ended == "TimedOut" else 30), outcomes.append)
        if ended == "cancelled":
            job.cancelled = True  # as `cancel` and the heartbeat do, without waiting for the end
            job.task.cancel()
        async for event in job.follow():
            if event is not None and event[0] in {"report", "error"}:
                assert outcomes == [ended]
                with store.exclusive_slot():
                    pass
        await jobs.close()

    asyncio.run(scenario())


def test_a_start_that_is_cancelled_half_way_leaves_no_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = BlockingStore(str(tmp_path / "a.sqlite3"), "add")
        jobs = JobRunner(store)

        async def work(job: Job) -> Any:
            raise AssertionError("the start was cancelled")

        starting = asyncio.create_task(start(jobs, work))
        await wait_for(store.entered)
        for _ in range(2):
            starting.cancel()
            await asyncio.wait([starting], timeout=0.1)
        with pytest.raises(Conflict), store.exclusive_slot():
            pass  # held, because a thread is still writing
        store.release.set()
        await asyncio.wait([starting])
        assert starting.cancelled()
        with store.exclusive_slot():  # held, so that the list does not mark abandoned jobs as failed
            assert (await jobs.list("comparison", limit=9, offset=0))[0] == 0
        await jobs.close()

    asyncio.run(scenario())


def test_a_job_that_is_stopped_before_its_first_step_is_recorded_as_stopped() -> None:
    async def scenario() -> None:
        store = JobStore(":memory:", keep=5)
        jobs = JobRunner(store)

        async def work(job: Job) -> Any:
            await asyncio.Event().wait()

        starting = asyncio.create_task(start(jobs, work))
        await asyncio.sleep(0)  # it holds the slot, and a thread inserts the job
        while not starting.done():  # at every step of the event loop
            await jobs.stop()
            await asyncio.sleep(0)
        kept = await jobs.get("comparison", (await starting).id)
        assert (kept.status, kept.error) == ("failed", "the comparison was stopped: the service is shutting down")
        with store.exclusive_slot():
            pass
        await jobs.close()

    asyncio.run(scenario())


def test_a_start_waits_for_a_slot_that_is_held_briefly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes hold it briefly to mark abandoned jobs as failed."""

    async def scenario() -> None:
        path = str(tmp_path / "a.sqlite3")
        local, remote = JobStore(path, keep=5), JobStore(path, keep=5)
        jobs = JobRunner(local)

        async def work(job: Job) -> Any:
            return report()

        for store in (local, remote):
            monkeypatch.setattr("app.jobs.runner.SLOT_SECONDS", 60)
            with store.exclusive_slot():
                starting = asyncio.create_task(start(jobs, work))
                await asyncio.wait([starting], timeout=0.1)
            job = await starting
            assert await job.result() == b'{"n":1}'
            monkeypatch.setattr("app.jobs.runner.SLOT_SECONDS", 0.05)
            with store.exclusive_slot(), pytest.raises(Conflict):
                await start(jobs, work)
        await jobs.close()
        remote.close()

    asyncio.run(scenario())


def test_a_remote_job_that_ends_before_it_is_cancelled_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.runner.POLL_SECONDS", 0.01)
    monkeypatch.setattr("app.jobs.runner.HEARTBEAT_SECONDS", 60)

    async def scenario() -> None:
        path = str(tmp_path / "a.sqlite3")
        store = BlockingStore(path, "ask_to_cancel")
        local, remote = JobRunner(JobStore(path, keep=5)), JobRunner(store)
        goes_on = asyncio.Event()

        async def work(job: Job) -> Any:
            await goes_on.wait()
            return report()

        job = await start(local, work)
        cancelling = asyncio.create_task(remote.cancel("comparison", job.id))
        await wait_for(store.entered)
        goes_on.set()
        await job.result()
        store.release.set()
        await cancelling
        assert (await local.list("comparison", limit=9, offset=0))[0] == 0
        for jobs in (local, remote):
            await jobs.close()

    asyncio.run(scenario())
