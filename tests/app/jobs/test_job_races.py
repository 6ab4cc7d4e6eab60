"""Jobs whose start, beat, end and followers come at the worst moment."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import Conflict
from app.jobs.job import Event, Job, JobSpec, error_event
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore

TOO_LONG = "the comparison took longer than 0.01 s (KRON_COMPARE_SECONDS)"


class Held(JobStore):
    """An archive of which one method begins only when it is let."""

    def __init__(self, path: str, method: str) -> None:
        super().__init__(path, keep=5)
        self.begun, self.let, self.ended = threading.Event(), threading.Event(), threading.Event()
        kept = getattr(self, method)

        def held(*args: Any, **kwargs: Any) -> Any:
            self.begun.set()
            self.let.wait(60)
            try:
                return kept(*args, **kwargs)
            finally:
                self.ended.set()

        setattr(self, method, held)


def report() -> Any:
    """Something that a job may end with."""
    return SimpleNamespace(seconds=1.0, headline="h", model_dump=lambda mode: {"n": 1})


def spec(work: Any, seconds: float = 30) -> JobSpec:
    return JobSpec(
        kind="comparison", title="title", request={}, seconds=seconds, limit_name="KRON_COMPARE_SECONDS", work=work
    )


async def start(jobs: JobRunner, work: Any, *, seconds: float = 30) -> Job:
    return await jobs.start(spec(work, seconds))


async def happened(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 60)


async def rest(following: AsyncIterator[Event | None]) -> list[Event | None]:
    return [event async for event in following]


@pytest.mark.parametrize("read", [1, 2, 3])
def test_a_follower_that_pauses_anywhere_sees_each_event_once(read: int) -> None:
    async def scenario() -> list[Event | None]:
        job = Job(spec(None))
        job.publish("cells", 0)
        job.publish("cells", 1)
        following = job.follow()
        told = [await anext(following) for _ in range(read)]
        job.publish("cells", 2)
        job.end(("report", b"{}"))
        return told + await rest(following)

    told = asyncio.run(scenario())
    assert told[1:] == [("cells", b"0"), ("cells", b"1"), ("cells", b"2"), ("report", b"{}")]


def test_a_late_beat_takes_nothing_from_a_job_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.runner.HEARTBEAT_SECONDS", 0.01)

    async def scenario() -> None:
        archive = Held(str(tmp_path / "a.sqlite3"), "progress")
        jobs = JobRunner(archive)

        async def work(job: Job) -> Any:
            for number in range(3):
                job.publish("cells", number)
            job.progress("stage", 1, 2)
            await happened(archive.begun)
            return report()

        job = await start(jobs, work)
        await job.result()
        assert archive.events(job.id, after=0) == [("cells", b"%d" % number) for number in range(3)]
        archive.let.set()
        await happened(archive.ended)
        kept = await jobs.get("comparison", job.id)
        assert (kept.status, kept.progress) == ("done", None)
        assert len(archive.events(job.id, after=0)) == 3
        await jobs.close()

    asyncio.run(scenario())


def test_what_a_beat_could_not_keep_the_next_one_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.jobs.runner.HEARTBEAT_SECONDS", 0.01)
    large = "x" * 100_000

    def let_it_have(archive: JobStore, pages: int) -> None:
        with archive._lock:
            archive._db.execute(f"PRAGMA max_page_count={pages}")

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        archive = JobStore(str(tmp_path / "a.sqlite3"), keep=5)
        jobs = JobRunner(archive)

        async def work(job: Job) -> Any:
            let_it_have(archive, 1)  # as where the disk is full: no more than it has
            job.publish("cells", large)
            await until(lambda: "the reports cannot be read or kept: database or disk is full" in caplog.text)
            assert not archive.events(job.id, after=0)
            let_it_have(archive, 10_000)
            await until(lambda: archive.events(job.id, after=0))
            return report()

        job = await start(jobs, work)
        await job.result()
        assert archive.events(job.id, after=0) == [("cells", f'"{large}"'.encode())]
        await jobs.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("ended", ["well", "badly", "late"])
@pytest.mark.parametrize("asked", [True, False])
def test_who_ends_a_job_that_is_being_written_down_waits_for_that(tmp_path: Path, ended: str, *, asked: bool) -> None:
    """A cancellation deletes it, the end of the service does not change how it ended."""

    async def scenario() -> None:
        archive = Held(str(tmp_path / "a.sqlite3"), "done" if ended == "well" else "failed")
        jobs = JobRunner(archive)

        async def work(job: Job) -> Any:
            if ended == "badly":
                raise Conflict("no reason")
            if ended == "late":
                await asyncio.Event().wait()
            return report()

        job = await start(jobs, work, seconds=0.01)
        following = job.follow()
        await anext(following)
        await happened(archive.begun)
        ending = [asyncio.create_task(jobs.cancel("comparison", job.id) if asked else jobs.stop()) for _ in range(2)]
        await asyncio.wait(ending, timeout=0.1)
        archive.let.set()
        await asyncio.gather(*ending)
        last = (await rest(following))[-1]
        total, kept = await jobs.list("comparison", limit=9, offset=0)
        if asked:
            assert total == 0
            assert last == error_event("the comparison was cancelled")
        else:
            expected = {"well": ("done", None), "badly": ("failed", "no reason"), "late": ("failed", TOO_LONG)}[ended]
            assert [(job.status, job.error) for job in kept] == [expected]
            assert last == (("report", b'{"n":1}') if ended == "well" else error_event(str(expected[1])))
        with archive.exclusive_slot():
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
        archive = Held(str(tmp_path / "a.sqlite3"), "add")
        jobs = JobRunner(archive)

        async def work(job: Job) -> Any:
            raise AssertionError("it was cancelled before")

        starting = asyncio.create_task(start(jobs, work))
        await happened(archive.begun)
        for _ in range(2):
            starting.cancel()
            await asyncio.wait([starting], timeout=0.1)
        with pytest.raises(Conflict), archive.exclusive_slot():
            pass  # a thread still writes
        archive.let.set()
        await asyncio.wait([starting])
        assert starting.cancelled()
        with archive.exclusive_slot():  # so that the list finds nothing to mend
            assert (await jobs.list("comparison", limit=9, offset=0))[0] == 0
        await jobs.close()

    asyncio.run(scenario())


def test_a_start_waits_for_who_has_the_turn_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those have it who look for jobs whose process was killed."""

    async def scenario() -> None:
        path = str(tmp_path / "a.sqlite3")
        here, elsewhere = JobStore(path, keep=5), JobStore(path, keep=5)
        jobs = JobRunner(here)

        async def work(job: Job) -> Any:
            return report()

        for archive in (here, elsewhere):
            monkeypatch.setattr("app.jobs.runner.SLOT_SECONDS", 60)
            with archive.exclusive_slot():
                starting = asyncio.create_task(start(jobs, work))
                await asyncio.wait([starting], timeout=0.1)
            job = await starting
            assert await job.result() == b'{"n":1}'
            monkeypatch.setattr("app.jobs.runner.SLOT_SECONDS", 0.05)
            with archive.exclusive_slot(), pytest.raises(Conflict):
                await start(jobs, work)
        await jobs.close()
        elsewhere.close()

    asyncio.run(scenario())


def test_a_job_elsewhere_that_ends_before_it_hears_of_its_cancellation_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.runner.POLL_SECONDS", 0.01)
    monkeypatch.setattr("app.jobs.runner.HEARTBEAT_SECONDS", 60)

    async def scenario() -> None:
        path = str(tmp_path / "a.sqlite3")
        archive = Held(path, "ask_to_cancel")
        here, elsewhere = JobRunner(JobStore(path, keep=5)), JobRunner(archive)
        goes_on = asyncio.Event()

        async def work(job: Job) -> Any:
            await goes_on.wait()
            return report()

        job = await start(here, work)
        cancelling = asyncio.create_task(elsewhere.cancel("comparison", job.id))
        await happened(archive.begun)
        goes_on.set()
        await job.result()
        archive.let.set()
        await cancelling
        assert (await here.list("comparison", limit=9, offset=0))[0] == 0
        for jobs in (here, elsewhere):
            await jobs.close()

    asyncio.run(scenario())
