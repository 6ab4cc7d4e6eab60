"""Jobs: one at a time, followed by any number of clients, kept when they end."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import orjson

from app.errors import Conflict, KronError, NotFound, Overloaded, ReportsError, TimedOut
from app.jobs.async_store import as_error_messages, asked, kept
from app.jobs.job import INTERNAL_ERROR, KEEP_ALIVE_SECONDS, Event, Job, Result, error_event, progress_event, started
from app.jobs.schemas import JobSummary, Kind, Progress
from app.jobs.store import JobStore
from app.system.aio import run_to_completion

HEARTBEAT_SECONDS = 1.0  # between looks at what other processes see and want
POLL_SECONDS = 0.5  # between looks at what another process does
SLOT_SECONDS = 0.2  # for those who have the turn for a moment only: they look for jobs whose process was killed

log = logging.getLogger(__name__)

Work = Callable[[Job], Awaitable[Result]]


class JobRunner:
    """The one job that may run here, and all that are kept."""

    def __init__(self, archive: JobStore) -> None:
        self._archive = archive
        self._running: Job | None = None
        self._ending = asyncio.Event()

    async def start(
        self, kind: Kind, title: str, request: Mapping[str, Any], work: Work, *, seconds: float, too_long: str
    ) -> Job:
        """Start a job.

        Args:
            kind: what it is.
            title: what people call it.
            request: what was asked for, as JSON.
            work: does it, and tells the job how far it is.
            seconds: the longest time it may take.
            too_long: what to say when it took longer.

        Raises:
            Conflict: another one runs, here or in another process.
            Overloaded: the service ends.
        """
        if self._ending.is_set():
            raise Overloaded("the service is shutting down")
        with ExitStack() as starting:
            starting.enter_context(await self._exclusive_slot())
            job = Job(kind, title, request)
            try:
                await run_to_completion(kept(self._archive.add, job.summary))
            except asyncio.CancelledError:
                await run_to_completion(kept(self._archive.delete, job.id))  # nobody runs it
                raise
            exclusive_slot = starting.pop_all()
        self._running = job
        job.task = asyncio.create_task(self._run(job, work, seconds, too_long))
        job.task.add_done_callback(lambda _: exclusive_slot.close())
        job.task.add_done_callback(lambda _: self._over(job))  # whoever hears of it may start the next one
        job.task.add_done_callback(_log_internal_error)
        await asyncio.sleep(0)  # a task that is cancelled before its first step would not tell anybody
        if self._ending.is_set():  # meanwhile
            await self.stop()
        return job

    async def cancel(self, kind: Kind, job_id: str) -> None:
        """End a running job, wherever it runs, or delete a kept one.

        Raises:
            NotFound: there is no such job.
            Conflict: the process that runs it does not answer.
        """
        if self._here(kind, job_id) is None:
            await self._cancel_elsewhere(kind, job_id)
            return
        await self._stop(cancelled=True)

    async def stop(self) -> None:
        """End the running job, if there is one, and start none any more: the service ends."""
        self._ending.set()
        await self._stop(cancelled=False)

    async def close(self) -> None:
        """End what runs and close the archive."""
        await self.stop()
        self._archive.close()

    async def get(self, kind: Kind, job_id: str) -> JobSummary:
        """One job.

        Raises:
            NotFound: there is no such job.
        """
        job = self._here(kind, job_id)
        summary = job.summary if job else await asked(self._archive.get, kind, job_id)
        if summary is None:
            raise NotFound(f"no {kind} of the id {job_id[:100]!r}; it may have been deleted")
        return summary

    async def report(self, job_id: str) -> bytes | None:
        """The JSON of a finished job's report."""
        return await asked(self._archive.report, job_id)

    async def list(self, kind: Kind, *, limit: int, offset: int) -> tuple[int, Sequence[JobSummary]]:
        """How many there are, and a part of them, the newest first."""
        total, jobs = await asked(self._archive.list, kind, limit=limit, offset=offset)
        return total, [here.summary if (here := self._here(kind, job.id)) else job for job in jobs]

    async def follow(self, kind: Kind, job_id: str) -> AsyncIterator[Event | None]:
        """The events of a running or ended job, the first one `started`, the last one `report` or `error`.

        Raises:
            NotFound: there is no such job.
        """
        job = self._here(kind, job_id)
        if job is not None:
            return job.follow()
        return self._follow_elsewhere(await self.get(kind, job_id))

    async def _exclusive_slot(self) -> AbstractContextManager[object]:
        """The right to run.

        Raises:
            Conflict: a job has it.
            ReportsError: nobody can tell.
        """
        exclusive_slot = ExitStack()
        deadline = time.monotonic() + SLOT_SECONDS
        while True:
            try:
                with as_error_messages():
                    exclusive_slot.enter_context(self._archive.exclusive_slot())
            except Conflict:
                if self._running is not None or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.01)
            else:
                return exclusive_slot

    async def _run(self, job: Job, work: Work, seconds: float, too_long: str) -> Result:
        beat = asyncio.create_task(self._heartbeat(job))
        job.task.add_done_callback(lambda _: beat.cancel())
        reason, report = INTERNAL_ERROR, None
        try:
            async with asyncio.timeout(seconds):
                result = await work(job)
            report = orjson.dumps(result.model_dump(mode="json"))
            await run_to_completion(
                kept(
                    self._archive.done,
                    job.id,
                    report,
                    job.lasting,
                    seconds=round(result.seconds, 2),
                    headline=result.headline,
                )
            )
            return result
        except TimeoutError:
            reason = too_long
            raise TimedOut(too_long) from None
        except KronError as error:
            reason = str(error)
            raise
        except asyncio.CancelledError:
            reason = f"the {job.kind} was stopped: the service is shutting down"
            raise
        finally:
            await run_to_completion(self._end(job, reason, report))

    async def _end(self, job: Job, reason: str, report: bytes | None) -> None:
        """Keep why a job failed, if it did, or forget one that was cancelled."""
        job.last = error_event(reason) if report is None else ("report", report)
        if report is None and not job.cancelled:
            await kept(self._archive.failed, job.id, reason, job.lasting)
        if job.cancelled:  # maybe only while it was written down
            job.last = error_event(f"the {job.kind} was cancelled")
            await kept(self._archive.delete, job.id)

    def _over(self, job: Job) -> None:
        self._running = None
        job.end(job.last)

    async def _heartbeat(self, job: Job) -> None:
        """Let other processes see how far the job is, and end it when one of them wants that."""
        told: Progress | None = None
        past = 0  # of what lasts
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            progress, lasting = job.summary.progress, job.lasting
            news = None if progress == told else progress
            wanted = await kept(self._archive.progress, job.id, news, lasting[past:])
            if wanted:
                job.cancelled = True
                job.task.cancel()
                return
            if wanted is not None:  # it could be kept
                told, past = progress, len(lasting)

    async def _stop(self, *, cancelled: bool) -> None:
        job = self._running
        if job is not None:
            job.cancelled = job.cancelled or cancelled
            job.task.cancel()
            await asyncio.wait([job.task])

    async def _cancel_elsewhere(self, kind: Kind, job_id: str) -> None:
        job: JobSummary | None = await self.get(kind, job_id)
        for _ in range(20):
            if job is None:
                return
            if job.status != "running":  # maybe only since it was asked to end
                await asked(self._archive.delete, job_id)
                return
            await asked(self._archive.ask_to_cancel, job_id)
            await asyncio.sleep(POLL_SECONDS)
            job = await asked(self._archive.get, kind, job_id)
        raise Conflict(f"the process that runs this {kind} has not ended it yet; try again later")

    async def _follow_elsewhere(self, job: JobSummary) -> AsyncIterator[Event | None]:
        """As `Job.follow`, by what the process that runs it tells the archive."""
        yield started(job)
        silent, told = 0.0, 0
        found: JobSummary | None = job
        try:
            while True:
                for event in await asked(self._archive.events, job.id, after=told):
                    silent, told = 0.0, told + 1
                    yield event
                if found is None or found.status != "running":
                    break
                if found.progress is not None and (silent == 0 or found.progress != job.progress):
                    job, silent = found, 0.0
                    yield progress_event(found.progress)
                await asyncio.sleep(POLL_SECONDS)
                silent += POLL_SECONDS
                if silent >= KEEP_ALIVE_SECONDS:
                    silent = POLL_SECONDS
                    yield None
                found = await asked(self._archive.get, job.kind, job.id)
            report = await self.report(job.id)
        except ReportsError as error:
            yield error_event(str(error))
            return
        if found is None:
            yield error_event(f"the {job.kind} was cancelled")
        elif report is None:
            yield error_event(found.error or "it was deleted")
        else:
            yield "report", report

    def _here(self, kind: Kind, job_id: str) -> Job | None:
        """The running job of this process, if it is that one."""
        job = self._running
        return job if job is not None and (job.kind, job.id) == (kind, job_id) else None


def outcome(task: "asyncio.Task[Result]") -> str:
    """One word for how a job ended."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return "ok" if error is None else type(error).__name__


def _log_internal_error(task: "asyncio.Task[Result]") -> None:
    """Whoever follows a job is not told what was wrong with the code."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, KronError):
        log.error("a job failed", exc_info=error)


def result(task: "asyncio.Task[Result]") -> Result:
    """What a finished job gave.

    Raises:
        KronError: it failed, or was stopped.
    """
    if task.cancelled():
        raise Overloaded("the measurement was stopped")
    return task.result()
