"""One running job: what those see who do the work, and those who watch."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from app.jobs.schemas import JobSummary, Kind, Progress
from app.jobs.store import Lasting

KEEP_ALIVE_SECONDS = 15
MAX_WAITING = 100  # events that a follower has not read yet, before progress is left out

Event = tuple[str, bytes]  # name and JSON
ENDS = frozenset({"report", "error"})
INTERNAL_ERROR = "internal error; the service's log says more"  # in the work itself


class Result(Protocol):
    """What a job ends with."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        ...

    @property
    def headline(self) -> str:
        """Its first sentence."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """As what JSON is made of."""
        ...


class Job:
    """One running job, as those see it who do the work and those who watch."""

    def __init__(self, kind: Kind, title: str, request: Mapping[str, Any]) -> None:
        self.id = uuid.uuid4().hex
        self.kind = kind
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.cancelled = False  # by a client, not by the end of the service
        self.task: asyncio.Task[Result]
        self.last: Event = error_event(INTERNAL_ERROR)  # what its followers hear when it is over
        self._title = title
        self._request = dict(request)
        self._progress: Progress | None = None
        self._lasting: list[Event] = []
        self._last: Event | None = None
        self._followers: set[asyncio.Queue[Event]] = set()

    @property
    def summary(self) -> JobSummary:
        """What lists say of it."""
        return JobSummary(
            id=self.id,
            kind=self.kind,
            status="running",
            created=self.created,
            title=self._title,
            request=self._request,
            progress=self._progress,
        )

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far it is."""
        self._progress = Progress(stage=stage, done=done, total=total)
        self._send(progress_event(self._progress))

    def publish(self, name: str, data: object) -> None:
        """Tell something that those who come later have to know too."""
        self._lasting.append((name, orjson.dumps(data)))
        self._send(self._lasting[-1])

    @property
    def lasting(self) -> Lasting:
        """All that lasts, for the archive."""
        return [(number, *event) for number, event in enumerate(self._lasting)]

    def end(self, last: Event) -> None:
        """Tell how it ended, and nothing more."""
        self._last = last
        self._send(last)

    async def follow(self) -> AsyncIterator[Event | None]:
        """All that lasts, the last progress, then what happens until the end; None where nothing did for a while."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        known = [
            started(self.summary),
            *self._lasting,
        ]  # in one step with what the queue begins with: no event is in both
        if self._last is not None:
            known.append(self._last)
        elif self._progress is not None:
            known.append(progress_event(self._progress))
        self._followers.add(queue)
        try:
            for event in known:
                yield event
            if known[-1][0] in ENDS:
                return
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        event = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                yield event
                if event[0] in ENDS:
                    return
        finally:
            self._followers.discard(queue)

    def _send(self, event: Event) -> None:
        for queue in self._followers:
            if event[0] != "progress" or queue.qsize() < MAX_WAITING:  # who reads slowly sees a later one
                queue.put_nowait(event)


def started(job: JobSummary) -> Event:
    """The first event."""
    return "started", job.model_dump_json().encode()


def progress_event(progress: Progress) -> Event:
    """How far it is."""
    return "progress", progress.model_dump_json().encode()


def error_event(message: str) -> Event:
    """The last event of a job that failed."""
    return "error", orjson.dumps({"error": message})
