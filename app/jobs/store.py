"""The SQLite store of jobs and reports, bounded in number and bytes and shared by every process of the service."""

import contextlib
import logging
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import orjson

from app.errors import Conflict, StartupError
from app.jobs.locks import ExclusiveSlot, UnsavedLock
from app.jobs.schemas import JobSummary, Kind, Progress
from app.settings import Settings

FILE_NAME = ".reports.sqlite3"  # in the model repository; scans for models ignore names that start with a dot
MEMORY = ":memory:"
OFF = "off"
MAX_BYTES = 64 * 2**20  # of all reports and events together
SCHEMA_VERSION = 1
BUSY_SECONDS = 5

_JOBS = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    created TEXT NOT NULL,
    title TEXT NOT NULL,
    request TEXT NOT NULL,
    seconds REAL,
    progress TEXT,
    headline TEXT,
    error TEXT,
    report BLOB,
    cancel INTEGER NOT NULL DEFAULT 0
)
"""
_EVENTS = """
CREATE TABLE IF NOT EXISTS events (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (job, number)
)
"""
_SUMMARY = "id, kind, status, created, title, request, seconds, progress, headline, error"
INTERRUPTED = "the service ended before the job did"

StoredEvents = Sequence[tuple[int, str, bytes]]  # number within the job, name, JSON

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


class JobStore:
    """Jobs with their events and reports. Methods block for the time of a small disk write; any thread may call them.

    Args:
        path: SQLite file, or `:memory:`.
        keep: number of ended jobs to keep; older ones are deleted.

    Raises:
        sqlite3.Error, OSError: the file cannot be opened or has another version of the tables.
    """

    def __init__(self, path: str, keep: int) -> None:
        self._keep = keep
        self.path = path
        self.unsaved = UnsavedLock(None if path == MEMORY else Path(path + "-unsaved"))
        self._lock = threading.Lock()
        self._exclusive_slot = ExclusiveSlot(None if path == MEMORY else Path(path + "-lock"))
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise sqlite3.DatabaseError(f"got version {version} of the tables, expected {SCHEMA_VERSION}")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.execute(_JOBS)
            self._db.execute(_EVENTS)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except sqlite3.Error:
            self._db.close()
            raise
        weakref.finalize(self, self._db.close)  # also where the service ends before it has started

    @classmethod
    def open(cls, settings: Settings, shared: Path | None = None) -> "JobStore":
        """Open the store that the settings name; the default file falls back to memory where it cannot be written.

        Args:
            settings: `reports` and `max_reports`.
            shared: folder that all workers of this service share, used in place of memory.

        Raises:
            StartupError: `reports` names a file that cannot be opened.
        """
        memory = MEMORY if shared is None else str(shared / FILE_NAME)
        if settings.reports == OFF:  # the last job stays, so that its page can be reloaded
            return cls(memory, keep=1)
        if settings.reports == MEMORY:
            return cls(memory, settings.max_reports)
        path = settings.reports or str(settings.models / FILE_NAME)
        try:
            return cls(path, settings.max_reports)
        except (sqlite3.Error, OSError) as error:
            if settings.reports is not None:
                raise StartupError(f"--reports (KRON_REPORTS): {path} cannot be used: {error}") from None
            if settings.models.is_dir():
                log.warning("reports are kept in memory only: %s cannot be used: %s", path, error)
            return cls(memory, settings.max_reports)

    def exclusive_slot(self) -> AbstractContextManager[None]:
        """Context manager that holds the exclusive slot; raises Conflict while a job of any process holds it."""
        return self._exclusive_slot.acquire()

    def add(self, job: JobSummary) -> bool:
        """Insert a job, with the status `running`; returns True."""
        values = (job.id, job.kind, job.status, job.created, job.title, _dumps(job.request))
        with self._transaction() as db:
            db.execute("INSERT INTO jobs (id, kind, status, created, title, request) VALUES (?, ?, ?, ?, ?, ?)", values)
        return True

    def save_progress(self, job_id: str, progress: Progress | None, events: StoredEvents = ()) -> bool:
        """Store the progress and new events of a running job; returns whether its cancellation was requested."""
        with self._transaction() as db:
            _insert_events(db, job_id, events)
            if progress is not None:
                values = (_dumps(progress.model_dump()), job_id)
                # The heartbeat writes in a thread of its own, maybe after the job has ended.
                db.execute("UPDATE jobs SET progress = ? WHERE id = ? AND status = 'running'", values)
            row = db.execute("SELECT cancel FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return row is not None and bool(row[0])

    def save_report(
        self, job_id: str, report: bytes, events: StoredEvents = (), *, seconds: float, headline: str
    ) -> None:
        """Store the report of a job and delete the oldest jobs beyond the limits."""
        with self._transaction() as db:
            _insert_events(db, job_id, events)
            db.execute(
                "UPDATE jobs SET status = 'done', progress = NULL, report = ?, seconds = ?, headline = ? WHERE id = ?",
                (report, seconds, headline, job_id),
            )
            self._prune(db)

    def save_failure(self, job_id: str, error: str, events: StoredEvents = ()) -> None:
        """Store the error message of a failed job and delete the oldest jobs beyond the limits."""
        with self._transaction() as db:
            _insert_events(db, job_id, events)
            db.execute(
                "UPDATE jobs SET status = 'failed', progress = NULL, error = ? WHERE id = ?", (error[:2000], job_id)
            )
            self._prune(db)

    def delete(self, job_id: str) -> None:
        """Delete a job with its events and report."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def ask_to_cancel(self, job_id: str) -> None:
        """Set the flag that makes the process that runs a job cancel it."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,))

    def get(self, kind: Kind, job_id: str) -> JobSummary | None:
        """Look up a job; None where there is none."""
        abandoned = self._fail_abandoned_jobs()
        with self._lock:
            row = self._db.execute(
                f"SELECT {_SUMMARY} FROM jobs WHERE kind = ? AND id = ?",
                (kind, job_id),
            ).fetchone()
        return None if row is None else _summary(row, abandoned=abandoned)

    def report(self, job_id: str) -> bytes | None:
        """The report of a job as JSON; None where it has none."""
        with self._lock:
            row = self._db.execute("SELECT report FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else row[0]

    def events(self, job_id: str, *, after: int) -> Sequence[tuple[str, bytes]]:
        """Names and JSON of the stored events of a job in order, skipping the first `after`."""
        with self._lock:
            found = self._db.execute(
                "SELECT name, data FROM events WHERE job = ? ORDER BY number LIMIT -1 OFFSET ?", (job_id, after)
            )
            return found.fetchall()

    def list(self, kind: Kind, *, limit: int, offset: int) -> tuple[int, Sequence[JobSummary]]:
        """The number of jobs of a kind, and `limit` of them from `offset` on, newest first."""
        abandoned = self._fail_abandoned_jobs()
        with self._lock:
            (total,) = self._db.execute("SELECT COUNT(*) FROM jobs WHERE kind = ?", (kind,)).fetchone()
            rows = self._db.execute(
                f"SELECT {_SUMMARY} FROM jobs WHERE kind = ? ORDER BY number DESC LIMIT ? OFFSET ?",
                (kind, limit, offset),
            ).fetchall()
        return total, [_summary(row, abandoned=abandoned) for row in rows]

    def close(self) -> None:
        """Close the SQLite file."""
        with self._lock:
            self._db.close()

    def _fail_abandoned_jobs(self) -> bool:
        """Mark jobs as failed whose process was killed: their status is running although the exclusive slot is free.

        Returns:
            Whether there are such jobs that could not be marked, because the disk is full.
        """
        with self._lock:
            stale = self._db.execute("SELECT 1 FROM jobs WHERE status = 'running' LIMIT 1").fetchone()
        if not stale:
            return False
        try:
            with self.exclusive_slot(), self.unsaved.absent(), self._transaction() as db:
                db.execute(
                    "UPDATE jobs SET status = 'failed', progress = NULL, error = ? WHERE status = 'running'",
                    (INTERRUPTED,),
                )
        except Conflict:
            return False  # a job is running, or its process has its outcome in memory
        except sqlite3.OperationalError as error:
            if not is_disk_full(error):
                raise
            return True
        return False

    def _prune(self, db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM jobs WHERE status != 'running' AND number NOT IN "
            "(SELECT number FROM jobs WHERE status != 'running' ORDER BY number DESC LIMIT ?)",
            (self._keep,),
        )
        sizes = db.execute(
            "SELECT number, COALESCE(LENGTH(report), 0) + "
            "COALESCE((SELECT SUM(LENGTH(data)) FROM events WHERE job = id), 0) "
            "FROM jobs WHERE status != 'running' ORDER BY number DESC"
        )
        total = 0
        for number, size in sizes.fetchall():
            total += size
            if total > MAX_BYTES:
                db.execute("DELETE FROM jobs WHERE number = ?", (number,))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _summary(row: Sequence[Any], *, abandoned: bool) -> JobSummary:
    """Read a row; `abandoned` jobs have failed although their status is still `running`."""
    job_id, kind, status, created, title, request, seconds, progress, headline, error = row
    if abandoned and status == "running":
        status, progress, error = "failed", None, INTERRUPTED
    return JobSummary(
        id=job_id,
        kind=kind,
        status=status,
        created=created,
        title=title,
        request=orjson.loads(request),
        seconds=seconds,
        progress=None if progress is None else Progress.model_validate_json(progress),
        headline=headline,
        error=error,
    )


def _insert_events(db: sqlite3.Connection, job_id: str, events: StoredEvents) -> None:
    """Insert events that are not stored yet; none where the job was deleted."""
    db.executemany(
        "INSERT OR IGNORE INTO events (job, number, name, data) SELECT id, ?, ?, ? FROM jobs WHERE id = ?",
        [(*event, job_id) for event in events],
    )


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


def is_disk_full(error: sqlite3.Error) -> bool:
    """Whether SQLite failed because the disk is full."""
    return getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
