"""The runner of background jobs: one job at a time across all processes, followed by any number of clients."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack

import orjson

from app.errors import Conflict, KronError, NotFound, Overloaded, ReportsError
from app.jobs.job import (
    KEEP_ALIVE_SECONDS,
    Job,
    JobEvent,
    JobSpec,
    error_event,
    progress_event,
    started_event,
    time_limit,
)
from app.jobs.schemas import JobSummary, Kind, Progress
from app.jobs.store import JobStore
from app.jobs.store_calls import ReportsLog, call_store, store_errors, try_call_store
from app.jobs.unsaved import UnsavedOutcomes
from app.system.aio import run_to_completion

HEARTBEAT_SECONDS = 1.0  # between writes of the progress, which also read whether another process wants to cancel
POLL_SECONDS = 0.5  # between reads of a job that runs in another process
SLOT_SECONDS = 0.2  # patience for a slot that another process holds only to mark abandoned jobs as failed
CANCEL_ATTEMPTS = 20

log = logging.getLogger(__name__)


class JobRunner:
    """Runs one job at a time in this process, and reads and cancels the jobs of all processes.

    Args:
        store: keeps the jobs; other processes of the service share it.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._errors = ReportsLog(store.path)
        self._unsaved = UnsavedOutcomes(store)
        self._running: Job | None = None
        self._stopping = asyncio.Event()

    async def start(self, spec: JobSpec, on_end: Callable[[str], None] = lambda outcome: None) -> Job:
        """Start a job in the background.

        Args:
            spec: the job to run.
            on_end: called with the job's `outcome` once the exclusive slot is free, before followers see the end.

        Raises:
            Conflict: another job is running, in this process or in another one.
            Overloaded: the service is shutting down.
            ReportsError: the lock file of the exclusive slot cannot be used.
        """
        if self._stopping.is_set():
            raise Overloaded("the service is shutting down")
        with ExitStack() as slot:
            await self._enter_exclusive_slot(slot)
            job = Job(spec)
            try:
                added: bool | None = await run_to_completion(try_call_store(self._errors, self._store.add, job.summary))
                job.is_stored = added is not None
            except asyncio.CancelledError:  # it will never run
                await run_to_completion(try_call_store(self._errors, self._store.delete, job.id))
                raise
            job.task = asyncio.create_task(self._run(job, slot.pop_all(), on_end))
        # The task sets `self._running` in its first step; cancelled before that, it would never reach its `finally`.
        await asyncio.sleep(0)
        if self._stopping.is_set():  # since the check above
            await self.stop()
        return job

    async def cancel(self, kind: Kind, job_id: str) -> None:
        """Cancel a running job of any process of the service, or delete a job that has ended.

        Raises:
            NotFound: there is no such job.
            Conflict: the process that runs the job does not respond.
        """
        job = self._find_local(kind, job_id)
        if job is None:
            await self._cancel_remote(kind, job_id)
        elif job.has_ended:
            job.cancelled = True
            await self._unsaved.save(job)
        else:
            await self._stop_running(cancelled=True)

    async def stop(self) -> None:
        """Stop the running job, if there is one, and refuse new ones: the service is shutting down."""
        self._stopping.set()
        await self._stop_running(cancelled=False)

    async def close(self) -> None:
        """Stop the running job, write outcomes that are still in memory, and close the store."""
        await self.stop()
        await self._unsaved.close()
        self._store.close()

    async def get(self, kind: Kind, job_id: str) -> JobSummary:
        """Look up a job.

        Raises:
            NotFound: there is no such job.
        """
        job = self._find_local(kind, job_id)
        summary = job.summary if job else await call_store(self._store.get, kind, job_id)
        if summary is None:
            raise NotFound(f"no {kind} of the id {job_id[:100]!r}; it may have been deleted")
        return summary

    async def report(self, job_id: str) -> bytes | None:
        """The report of a job as JSON; None where it has none."""
        unsaved = next((job.report for job in self._unsaved.jobs if job.id == job_id), None)
        return unsaved or await call_store(self._store.report, job_id)

    async def list(self, kind: Kind, *, limit: int, offset: int) -> tuple[int, Sequence[JobSummary]]:
        """The number of jobs of a kind, and `limit` of them from `offset` on, newest first."""
        running = [] if self._running is None else [self._running]
        local = {job.id: job for job in (*running, *reversed(self._unsaved.jobs)) if job.kind == kind}
        shown = {job_id: job.summary for job_id, job in local.items() if not (job.has_ended and job.cancelled)}
        # The jobs of this process that the store could not add are newer than the others.
        only_here = [summary for job_id, summary in shown.items() if not local[job_id].is_stored]
        here = only_here[offset : offset + limit]
        total, jobs = await call_store(
            self._store.list, kind, limit=limit - len(here), offset=max(0, offset - len(only_here))
        )
        deleted = local.keys() - shown.keys()
        listed = [shown.get(job.id, job) for job in jobs if job.id not in deleted]
        return total + len(only_here) - len(deleted), here + listed

    async def follow(self, kind: Kind, job_id: str) -> AsyncIterator[JobEvent | None]:
        """Follow the events of a job of any process of the service, as `Job.follow` yields them.

        Raises:
            NotFound: there is no such job.
        """
        job = self._find_local(kind, job_id)
        if job is not None:
            return job.follow()
        return self._follow_remote(await self.get(kind, job_id))

    async def _enter_exclusive_slot(self, stack: ExitStack) -> None:
        """Acquire the exclusive slot and leave its release to `stack`.

        Raises:
            Conflict: a job holds it.
            ReportsError: its lock file cannot be used.
        """
        deadline = time.monotonic() + SLOT_SECONDS
        while True:
            try:
                with store_errors():
                    stack.enter_context(self._store.exclusive_slot())
            except Conflict:
                if self._running is not None or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.01)
            else:
                return

    async def _run(self, job: Job, slot: ExitStack, on_end: Callable[[str], None]) -> None:
        """Run the work of a job and record how it ends."""
        self._running = job
        heartbeat = asyncio.create_task(self._heartbeat(job))
        spec = job.spec
        try:
            async with time_limit(spec.kind, spec.seconds, spec.limit_name):
                result = await spec.work(job)
            job.report = orjson.dumps(result.model_dump(mode="json"))
            job.seconds, job.headline = round(result.seconds, 2), result.headline
        except asyncio.CancelledError as error:
            job.error = error
        except Exception as error:  # of any kind: a job whose task has died without an end would run forever
            if not isinstance(error, KronError):  # clients only see INTERNAL_ERROR
                log.exception("a %s failed", job.kind)
            job.error = error
        finally:
            await run_to_completion(self._end(job, heartbeat, slot, on_end))

    async def _end(
        self, job: Job, heartbeat: "asyncio.Task[None]", slot: ExitStack, on_end: Callable[[str], None]
    ) -> None:
        """Record the end of a job; then free the slot, count the job and send the final event, in this order.

        A client that sees the final event may start the next job at once, and finds this one in the metrics.
        """
        heartbeat.cancel()
        job.has_ended = True
        try:
            was_cancelled = job.cancelled
            await self._unsaved.save(job)
            if job.cancelled and not was_cancelled:  # while the end was being written
                await self._unsaved.save(job)
        finally:
            slot.close()
            self._running = None
            on_end(job.outcome)
            report = None if job.cancelled else job.report
            job.end(error_event(job.failure) if report is None else ("report", report))

    async def _heartbeat(self, job: Job) -> None:
        """Write the progress for other processes, and cancel the job when one of them asks for it."""
        written: Progress | None = None
        events_written = 0
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            progress, events = job.summary.progress, job.stored_events
            changed = None if progress == written else progress
            cancel = await try_call_store(
                self._errors, self._store.save_progress, job.id, changed, events[events_written:]
            )
            if cancel:
                job.cancelled = True
                job.task.cancel()
                return
            if cancel is not None:  # the write succeeded
                written, events_written = progress, len(events)

    async def _stop_running(self, *, cancelled: bool) -> None:
        job = self._running
        if job is not None:
            job.cancelled = job.cancelled or cancelled
            job.task.cancel()
            await asyncio.wait([job.task])

    async def _cancel_remote(self, kind: Kind, job_id: str) -> None:
        """Ask the process that runs a job to cancel it; delete the job if it has ended."""
        job: JobSummary | None = await self.get(kind, job_id)
        for _ in range(CANCEL_ATTEMPTS):
            if job is None:
                return
            if job.status != "running":  # maybe it ended only after the request to cancel it
                await call_store(self._store.delete, job_id)
                return
            await call_store(self._store.ask_to_cancel, job_id)
            await asyncio.sleep(POLL_SECONDS)
            job = await call_store(self._store.get, kind, job_id)
        raise Conflict(f"the process that runs this {kind} has not ended it yet; try again later")

    async def _follow_remote(self, job: JobSummary) -> AsyncIterator[JobEvent | None]:
        """The events of a job of another process, polled from the store."""
        yield started_event(job)
        silent_seconds, events_read = 0.0, 0
        latest: JobSummary | None = job
        try:
            while True:
                for event in await call_store(self._store.events, job.id, after=events_read):
                    silent_seconds, events_read = 0.0, events_read + 1
                    yield event
                if latest is None or latest.status != "running":
                    break
                if latest.progress is not None and (silent_seconds == 0 or latest.progress != job.progress):
                    job, silent_seconds = latest, 0.0
                    yield progress_event(latest.progress)
                await asyncio.sleep(POLL_SECONDS)
                silent_seconds += POLL_SECONDS
                if silent_seconds >= KEEP_ALIVE_SECONDS:
                    silent_seconds = POLL_SECONDS
                    yield None
                latest = await call_store(self._store.get, job.kind, job.id)
            report = await self.report(job.id)
        except ReportsError as error:
            yield error_event(str(error))
            return
        if latest is None:
            yield error_event(f"the {job.kind} was cancelled")
        elif report is None:
            yield error_event(latest.error or f"the {job.kind} was deleted")
        else:
            yield "report", report

    def _find_local(self, kind: Kind, job_id: str) -> Job | None:
        """The running job of this process with this kind and id, or an ended one that the store could not write.

        Raises:
            NotFound: it was deleted, though the store could not do that yet.
        """
        job = self._running
        if job is not None and (job.kind, job.id) == (kind, job_id):
            return job
        unsaved = self._unsaved.find(kind, job_id)
        if unsaved is not None and unsaved.cancelled:
            raise NotFound(f"the {kind} {job_id} was deleted")
        return unsaved
