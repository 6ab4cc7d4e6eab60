"""Jobs and what came of them, in SQLite: a bounded number and bytes, readable by every process of the service."""

import contextlib
import logging
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson

from app.errors import Conflict, StartupError
from app.jobs.schemas import JobSummary, Kind, Progress
from app.settings import Settings
from app.system.files import FileLock

FILE_NAME = ".reports.sqlite3"  # in the folder of models; the dot keeps it out of every scan for models
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

Lasting = Sequence[tuple[int, str, bytes]]  # events: the number within the job, name, JSON

log = logging.getLogger(__name__)


class JobStore:
    """Jobs by id. Every method blocks for as long as a small write to a disk takes; any thread may call it.

    Args:
        path: a file, or `:memory:`.
        keep: how many ended jobs are kept; older ones go.

    Raises:
        sqlite3.Error, OSError: it cannot be had.
    """

    def __init__(self, path: str, keep: int) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._exclusive_slot = _ExclusiveSlot(None if path == MEMORY else Path(path + "-lock"))
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

    @classmethod
    def open(cls, settings: Settings, shared: Path | None = None) -> "JobStore":
        """The archive that the settings ask for; the default one falls back to memory where it cannot be written.

        Args:
            settings: where, and how many.
            shared: folder of all workers of this service; then a file in it is their memory.

        Raises:
            StartupError: the file that was asked for by name cannot be had.
        """
        memory = MEMORY if shared is None else str(shared / FILE_NAME)
        if settings.reports == OFF:  # the last job stays, for whoever reloads the page
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
        """The right to run, which one job has at a time, in whichever process; entering it may raise Conflict."""
        return self._exclusive_slot.taken()

    def add(self, job: JobSummary) -> None:
        """A job that starts."""
        values = (job.id, job.kind, job.status, job.created, job.title, _dumps(job.request))
        with self._transaction() as db:
            db.execute("INSERT INTO jobs (id, kind, status, created, title, request) VALUES (?, ?, ?, ?, ?, ?)", values)

    def progress(self, job_id: str, progress: Progress | None, events: Lasting = ()) -> bool:
        """Keep how far a running job is, and its new events; whether somebody wants it cancelled."""
        with self._transaction() as db:
            _keep(db, job_id, events)
            if progress is not None:
                values = (_dumps(progress.model_dump()), job_id)
                # It comes in a thread of its own, maybe later than the end.
                db.execute("UPDATE jobs SET progress = ? WHERE id = ? AND status = 'running'", values)
            row = db.execute("SELECT cancel FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return row is not None and bool(row[0])

    def done(self, job_id: str, report: bytes, events: Lasting = (), *, seconds: float, headline: str) -> None:
        """A job that ended well; the oldest ones go where there are too many."""
        with self._transaction() as db:
            _keep(db, job_id, events)
            db.execute(
                "UPDATE jobs SET status = 'done', progress = NULL, report = ?, seconds = ?, headline = ? WHERE id = ?",
                (report, seconds, headline, job_id),
            )
            self._prune(db)

    def failed(self, job_id: str, error: str, events: Lasting = ()) -> None:
        """A job that did not."""
        with self._transaction() as db:
            _keep(db, job_id, events)
            db.execute(
                "UPDATE jobs SET status = 'failed', progress = NULL, error = ? WHERE id = ?", (error[:2000], job_id)
            )
            self._prune(db)

    def delete(self, job_id: str) -> None:
        """Forget a job."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def ask_to_cancel(self, job_id: str) -> None:
        """Tell the process that runs a job to end it."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,))

    def get(self, kind: Kind, job_id: str) -> JobSummary | None:
        """One job, if it is there."""
        self._reap()
        with self._lock:
            row = self._db.execute(
                f"SELECT {_SUMMARY} FROM jobs WHERE kind = ? AND id = ?",
                (kind, job_id),
            ).fetchone()
        return None if row is None else _summary(row)

    def report(self, job_id: str) -> bytes | None:
        """The JSON of a finished job's report."""
        with self._lock:
            row = self._db.execute("SELECT report FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else row[0]

    def events(self, job_id: str, *, after: int) -> Sequence[tuple[str, bytes]]:
        """Name and JSON of the events that a job told to last, in their order, but for the first `after`."""
        with self._lock:
            found = self._db.execute(
                "SELECT name, data FROM events WHERE job = ? ORDER BY number LIMIT -1 OFFSET ?", (job_id, after)
            )
            return found.fetchall()

    def list(self, kind: Kind, *, limit: int, offset: int) -> tuple[int, Sequence[JobSummary]]:
        """How many there are, and a part of them, the newest first."""
        self._reap()
        with self._lock:
            (total,) = self._db.execute("SELECT COUNT(*) FROM jobs WHERE kind = ?", (kind,)).fetchone()
            rows = self._db.execute(
                f"SELECT {_SUMMARY} FROM jobs WHERE kind = ? ORDER BY number DESC LIMIT ? OFFSET ?",
                (kind, limit, offset),
            ).fetchall()
        return total, [_summary(row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _reap(self) -> None:
        """Jobs whose process was killed: they say that they run, and nobody has the turn."""
        with self._lock:
            stale = self._db.execute("SELECT 1 FROM jobs WHERE status = 'running' LIMIT 1").fetchone()
        if not stale:
            return
        try:
            with self.exclusive_slot(), self._transaction() as db:
                db.execute(
                    "UPDATE jobs SET status = 'failed', progress = NULL, error = ? WHERE status = 'running'",
                    (INTERRUPTED,),
                )
        except Conflict:
            pass  # somebody has it

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


class _ExclusiveSlot:
    """A lock that also excludes other processes, and that ends with the process that has it, however it ends."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._mine = threading.Lock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        if not self._mine.acquire(blocking=False):
            raise Conflict("another comparison, sweep or training is running; try again later")
        lock = None if self._path is None or sys.platform == "win32" else FileLock(self._path)
        try:
            if lock is not None and not lock.acquire():
                raise Conflict("another process measures or trains on these models; try again later")
            yield
        finally:
            if lock is not None:
                lock.release()
            self._mine.release()


def _summary(row: Sequence[Any]) -> JobSummary:
    job_id, kind, status, created, title, request, seconds, progress, headline, error = row
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


def _keep(db: sqlite3.Connection, job_id: str, events: Lasting) -> None:
    """Keep events of a job that is there, each once."""
    db.executemany(
        "INSERT OR IGNORE INTO events (job, number, name, data) SELECT id, ?, ?, ? FROM jobs WHERE id = ?",
        [(*event, job_id) for event in events],
    )


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()
