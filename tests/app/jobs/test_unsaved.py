"""Outcomes of jobs that end while the disk of the reports is full: SQLite's file may not grow meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import BadRequest, NotFound
from app.jobs.job import Job, JobSpec
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore

CONTENT = "x" * 100_000  # more than the free pages of the file hold


class SmallDisk:
    """A store whose file can be kept from growing, and the runner of its jobs."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "reports.sqlite3")
        self.store = JobStore(self.path, keep=5)
        self.jobs = JobRunner(self.store)

    def set_full(self, full: bool) -> None:
        with self.store._lock:
            self.store._db.execute(f"PRAGMA max_page_count={1 if full else 10_000}")

    async def run(self, *, error: Exception | None = None, title: str = "a", note: str = "") -> Job:
        """Run a training to its end, with a report or an error; the disk becomes full while it runs."""

        async def work(job: Job) -> Any:
            self.set_full(True)
            job.publish("plan", CONTENT)
            if error is not None:
                raise error
            dump = {"content": CONTENT}
            return SimpleNamespace(seconds=1.5, headline="92 %", model_dump=lambda mode: dump)

        job = await self.jobs.start(
            JobSpec(kind="training", title=title, request={"note": note}, seconds=60, limit_name="KRON_X", work=work)
        )
        await asyncio.wait([job.task])
        return job


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    monkeypatch.setattr("app.jobs.unsaved.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("app.jobs.unsaved.MAX_RETRY_SECONDS", 0.05)
    return SmallDisk(tmp_path)


def test_a_report_is_read_from_memory_until_it_can_be_written(
    disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        job = await disk.run()
        jobs, other = disk.jobs, JobStore(disk.path, keep=5)
        await asyncio.sleep(0.2)  # several attempts
        found = await jobs.get("training", job.id)
        assert (found.status, found.headline, found.seconds, found.error) == ("done", "92 %", 1.5, None)
        assert await jobs.list("training", limit=10, offset=0) == (1, [found])
        report = await jobs.report(job.id)
        assert report is not None
        assert CONTENT.encode() in report
        names = [event[0] async for event in await jobs.follow("training", job.id) if event]
        assert names == ["started", "plan", "report"]
        remote = other.get("training", job.id)
        assert remote is not None
        assert remote.status == "running"  # another process does not take the job for one that was killed
        assert caplog.text.count("the reports cannot be read or kept: the disk is full") == 1
        disk.set_full(False)
        await until(lambda: other.report(job.id))
        assert other.get("training", job.id) == found
        assert [event[0] for event in other.events(job.id, after=0)] == ["plan"]
        await until(lambda: "the reports can be written again" in caplog.text)
        await until(lambda: not Path(disk.path + "-unsaved").exists())
        await jobs.close()
        other.close()

    asyncio.run(scenario())


def test_a_failure_and_a_job_that_began_on_a_full_disk_are_kept_too(disk: SmallDisk) -> None:
    async def scenario() -> None:
        first = await disk.run(error=BadRequest("the file has no rows"), title="first")
        second = await disk.run(title="second", note=CONTENT)
        assert not second.is_stored
        total, listed = await disk.jobs.list("training", limit=10, offset=0)
        assert [(job.title, job.status, job.error) for job in listed] == [
            ("second", "done", None),
            ("first", "failed", "the file has no rows"),
        ]
        assert total == 2
        assert [job.title for job in (await disk.jobs.list("training", limit=1, offset=1))[1]] == ["first"]
        disk.set_full(False)
        await until(lambda: disk.store.report(second.id))
        assert (await disk.jobs.list("training", limit=10, offset=0)) == (2, listed)
        kept = await disk.jobs.get("training", first.id)
        assert (kept.status, kept.error) == ("failed", "the file has no rows")
        await disk.jobs.close()

    asyncio.run(scenario())


def test_an_outcome_in_memory_can_be_deleted(disk: SmallDisk) -> None:
    async def scenario() -> None:
        job = await disk.run()
        await disk.jobs.cancel("training", job.id)
        with pytest.raises(NotFound):
            await disk.jobs.get("training", job.id)
        assert await disk.jobs.list("training", limit=10, offset=0) == (0, [])
        disk.set_full(False)
        await until(lambda: disk.store.list("training", limit=10, offset=0) == (0, []))
        await disk.jobs.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("full", [False, True])
def test_a_shutdown_writes_the_outcome_or_logs_that_it_is_lost(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, full: bool
) -> None:
    monkeypatch.setattr("app.jobs.unsaved.RETRY_SECONDS", 60)

    async def scenario() -> Job:
        job = await disk.run()
        disk.set_full(full)
        await disk.jobs.close()
        return job

    job = asyncio.run(scenario())
    kept = JobStore(disk.path, keep=5)
    found = kept.get("training", job.id)
    kept.close()
    assert found is not None
    assert found.status == ("failed" if full else "done")
    assert (f"the training {job.id} is not kept: 92 %" in caplog.text) == full
