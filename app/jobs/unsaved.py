"""Outcomes of ended jobs that the store could not write, because the disk is full for example, kept in memory."""

import asyncio
import logging
from collections.abc import Sequence

from app.errors import ReportsError
from app.jobs.job import Job
from app.jobs.schemas import Kind
from app.jobs.store import MAX_BYTES, JobStore
from app.jobs.store_calls import ReportsLog, call_store

MAX_JOBS = 20  # outcomes in memory; the oldest are dropped
RETRY_SECONDS = 1.0  # until the first repetition of a write, then twice as long each time
MAX_RETRY_SECONDS = 10.0

log = logging.getLogger(__name__)


class UnsavedOutcomes:
    """Writes the outcomes of jobs; what cannot be written stays in memory, readable, and is written again and again.

    Args:
        store: keeps the jobs.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._errors = ReportsLog(store.path)
        self._jobs: dict[str, Job] = {}
        self._writing = asyncio.Lock()
        self._retrying: asyncio.Task[None] | None = None

    @property
    def jobs(self) -> Sequence[Job]:
        """The ended jobs in memory, oldest first; also cancelled ones that the store could not delete."""
        return list(self._jobs.values())

    def find(self, kind: Kind, job_id: str) -> Job | None:
        """Look up an ended job in memory."""
        job = self._jobs.get(job_id)
        return job if job is not None and job.kind == kind else None

    async def save(self, job: Job) -> None:
        """Write how a job has ended, or delete it if it was cancelled; keep it in memory if that fails."""
        if await self._write(job):
            return
        self._jobs[job.id] = job
        self._store.unsaved.hold()
        while len(self._jobs) > MAX_JOBS or sum(len(job.report or b"") for job in self.jobs) > MAX_BYTES:
            self._drop(self.jobs[0])
        if self._retrying is None:
            self._retrying = asyncio.create_task(self._retry())

    async def close(self) -> None:
        """Try to write the outcomes for the last time."""
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.wait([self._retrying])
        for job in self.jobs:
            if not await self._write(job):
                self._drop(job)
        self._store.unsaved.release()

    async def _retry(self) -> None:
        delay = RETRY_SECONDS
        while self._jobs:
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_RETRY_SECONDS)
            for job in self.jobs:
                if not await self._write(job):
                    break
        self._store.unsaved.release()
        self._retrying = None

    async def _write(self, job: Job) -> bool:
        async with self._writing:
            try:
                await call_store(self._write_blocking, job)
            except ReportsError as error:
                self._errors.failed(error)
                return False
            self._errors.succeeded()
            if self._jobs.pop(job.id, None) is not None and not job.cancelled:
                log.info("the %s %s is kept now", job.kind, job.id)
            return True

    def _write_blocking(self, job: Job) -> None:
        if job.cancelled:
            self._store.delete(job.id)
            return
        if not job.is_stored:
            self._store.add(job.summary)
            job.is_stored = True
        if job.report is None:
            self._store.save_failure(job.id, job.failure, job.stored_events)
        else:
            seconds, headline = job.seconds or 0.0, job.headline or ""
            self._store.save_report(job.id, job.report, job.stored_events, seconds=seconds, headline=headline)

    def _drop(self, job: Job) -> None:
        """Give up an outcome."""
        self._jobs.pop(job.id, None)
        if not job.cancelled:
            log.error("the %s %s is not kept: %s", job.kind, job.id, job.headline or job.failure)
