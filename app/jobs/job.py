"""A background job: its specification, its events and the clients that follow them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from app.errors import KronError, Overloaded, TimedOut
from app.jobs.schemas import JobSummary, Kind, Progress
from app.jobs.store import StoredEvents

KEEP_ALIVE_SECONDS = 15
MAX_UNREAD_EVENTS = 100  # a follower with more unread events than this gets no further progress events

JobEvent = tuple[str, bytes]  # name and JSON
FINAL_EVENTS = frozenset({"report", "error"})
INTERNAL_ERROR = "internal error; see the service's log"


class Result(Protocol):
    """The report that the work of a job returns."""

    @property
    def seconds(self) -> float:
        """Duration of the job's work."""
        ...

    @property
    def headline(self) -> str:
        """The first sentence of the report, shown in lists."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The report as values that JSON can hold."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a job runs, how long it may take, and how lists show it.

    Args:
        kind: comparison, sweep or training.
        title: shown in lists, such as the names of the models.
        request: the request as JSON values, kept with the job.
        seconds: time limit of `work`.
        limit_name: setting that holds the time limit, named in the error message.
        work: runs the job, reports its progress to the given `Job` and returns the report.
    """

    kind: Kind
    title: str
    request: Mapping[str, Any]
    seconds: float
    limit_name: str
    work: Callable[["Job"], Awaitable[Result]]


class Job:
    """A running job: its progress and events, and how it ended.

    The work reports through `progress` and `publish`; clients read the events through `follow`. The other attributes
    are set by the runner.
    """

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.id = uuid.uuid4().hex
        self.kind = spec.kind
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.task: asyncio.Task[None]
        self.cancelled = False  # by a client; a shutdown of the service does not set it
        self.is_stored = False  # whether the store has a row of the job
        self.has_ended = False
        self.report: bytes | None = None
        self.seconds: float | None = None  # as in the report
        self.headline: str | None = None
        self.error: BaseException | None = None
        self._progress: Progress | None = None
        self._published: list[JobEvent] = []
        self._end: JobEvent | None = None
        self._followers: set[asyncio.Queue[JobEvent]] = set()

    @property
    def summary(self) -> JobSummary:
        """The job as it is shown in lists."""
        return JobSummary(
            id=self.id,
            kind=self.kind,
            status="running" if not self.has_ended else "failed" if self.report is None else "done",
            created=self.created,
            title=self.spec.title,
            request=dict(self.spec.request),
            seconds=self.seconds,
            progress=None if self.has_ended else self._progress,
            headline=self.headline,
            error=self.failure if self.has_ended and self.report is None else None,
        )

    @property
    def stored_events(self) -> StoredEvents:
        """The published events so far, numbered, as the store keeps them."""
        return [(number, *event) for number, event in enumerate(self._published)]

    @property
    def failure(self) -> str:
        """The message for clients where the job has no report."""
        if self.cancelled:
            return f"the {self.kind} was cancelled"
        if isinstance(self.error, asyncio.CancelledError):
            return f"the {self.kind} was stopped: the service is shutting down"
        return str(self.error) if isinstance(self.error, KronError) else INTERNAL_ERROR

    @property
    def outcome(self) -> str:
        """Outcome of the job as a label of metrics: `ok`, `cancelled` or the class of the error."""
        if self.cancelled or isinstance(self.error, asyncio.CancelledError):
            return "cancelled"
        return "ok" if self.error is None else type(self.error).__name__

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` parts are complete and `stage` is running now."""
        self._progress = Progress(stage=stage, done=done, total=total)
        self._send(progress_event(self._progress))

    def publish(self, name: str, data: object) -> None:
        """Send an event that is stored and replayed to clients that follow the job later."""
        self._published.append((name, orjson.dumps(data)))
        self._send(self._published[-1])

    def end(self, event: JobEvent) -> None:
        """Send the job's final event to its followers."""
        self._end = event
        self._send(event)

    async def result(self) -> bytes:
        """Wait for the end of the job and return its report as JSON.

        Raises:
            Overloaded: the job was cancelled or the service is shutting down.
            Exception: the exception that the work raised.
        """
        await asyncio.wait([self.task])
        if self.report is not None and not self.cancelled:
            return self.report
        if self.error is None or self.outcome == "cancelled":
            raise Overloaded(self.failure)
        raise self.error

    async def follow(self) -> AsyncIterator[JobEvent | None]:
        """Yield `started`, the published events, the latest progress, then each new event until the job ends.

        None is yielded after `KEEP_ALIVE_SECONDS` without an event.
        """
        queue: asyncio.Queue[JobEvent] = asyncio.Queue()
        # No await between this list and the registration of the queue: no event is lost or sent twice.
        past = [started_event(self.summary), *self._published]
        if self._end is not None:
            past.append(self._end)
        elif self._progress is not None:
            past.append(progress_event(self._progress))
        self._followers.add(queue)
        try:
            for event in past:
                yield event
            if past[-1][0] in FINAL_EVENTS:
                return
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        event = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                yield event
                if event[0] in FINAL_EVENTS:
                    return
        finally:
            self._followers.discard(queue)

    def _send(self, event: JobEvent) -> None:
        for queue in self._followers:
            if event[0] != "progress" or queue.qsize() < MAX_UNREAD_EVENTS:  # a slow reader gets a later one
                queue.put_nowait(event)


@asynccontextmanager
async def time_limit(kind: Kind, seconds: float, limit_name: str) -> AsyncIterator[None]:
    """Context manager that cancels its block after `seconds`.

    Raises:
        TimedOut: with the limit and the setting that holds it, `limit_name`.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimedOut(f"the {kind} took longer than {seconds:g} s ({limit_name})") from None


def started_event(job: JobSummary) -> JobEvent:
    """The first event: the job as lists show it."""
    return "started", job.model_dump_json().encode()


def progress_event(progress: Progress) -> JobEvent:
    """An event with the progress of a job."""
    return "progress", progress.model_dump_json().encode()


def error_event(message: str) -> JobEvent:
    """The final event of a job that failed or was cancelled."""
    return "error", orjson.dumps({"error": message})
