"""The store of jobs: limits, order, events, and files that cannot be used."""

import sqlite3
from pathlib import Path

import pytest

from app.errors import Conflict, StartupError
from app.jobs.schemas import JobSummary, Progress
from app.jobs.store import JobStore
from app.settings import Settings


def summary(number: int) -> JobSummary:
    title = f"number {number}"
    return JobSummary(id=f"{number:032x}", kind="comparison", status="running", created="now", title=title, request={})


def test_the_store_is_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(":memory:", keep=3)
    for number in range(6):
        store.add(summary(number))
        store.save_report(summary(number).id, b"x" * 10, seconds=1.0, headline="h")
    total, jobs = store.list("comparison", limit=10, offset=0)
    assert total == 3
    assert [job.title for job in jobs] == ["number 5", "number 4", "number 3"]
    monkeypatch.setattr("app.jobs.store.MAX_BYTES", 25)
    store.add(summary(6))
    store.save_report(summary(6).id, b"x" * 10, seconds=1.0, headline="h")
    assert [job.title for job in store.list("comparison", limit=10, offset=0)[1]] == ["number 6", "number 5"]


def test_progress_and_cancellation_are_shared_between_processes(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sqlite3")
    store = JobStore(path, keep=5)
    with store.exclusive_slot():
        store.add(summary(1))
        assert store.save_progress(summary(1).id, Progress(stage="s", done=1, total=4)) is False
        other = JobStore(path, keep=5)
        found = other.get("comparison", summary(1).id)
        assert found is not None
        assert found.progress == Progress(stage="s", done=1, total=4)
        assert other.get("sweep", summary(1).id) is None
        with pytest.raises(Conflict), other.exclusive_slot():
            pass
        other.ask_to_cancel(summary(1).id)
        assert store.save_progress(summary(1).id, None) is True


def test_events_are_deleted_with_their_job_and_count_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(":memory:", keep=3)
    for number in (1, 2):
        store.add(summary(number))
        store.save_progress(summary(number).id, None, [(0, "plan", b"{}"), (1, "epoch", b"[1]")])
        store.save_progress(summary(number).id, None, [(1, "epoch", b"[1]")])  # stored once
        store.save_failure(summary(number).id, "reason", [(2, "epoch", b"[2]")])
        assert store.events(summary(number).id, after=1) == [("epoch", b"[1]"), ("epoch", b"[2]")]
    store.delete(summary(2).id)
    assert store.events(summary(2).id, after=0) == []
    store.save_progress(summary(2).id, None, [(0, "plan", b"{}")])  # of a deleted job
    assert store.events(summary(2).id, after=0) == []
    monkeypatch.setattr("app.jobs.store.MAX_BYTES", 15)
    store.add(summary(3))
    store.save_report(summary(3).id, b"x" * 10, seconds=1.0, headline="h")
    assert (
        store.list("comparison", limit=9, offset=0)[0] == 1
    )  # with the 8 bytes of events of the first job the limit is exceeded
    assert store.events(summary(1).id, after=0) == []


def test_a_file_that_cannot_be_opened_is_an_error_of_one_line_or_replaced_by_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text").write_text("not a database, and longer than the header of one would be" * 10)
    newer = tmp_path / "newer"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for path in (tmp_path / "text", tmp_path / "none" / "x", newer, tmp_path):
        with pytest.raises(StartupError, match=r"^--reports \(KRON_REPORTS\): .* cannot be used: "):
            JobStore.open(Settings(models=tmp_path, reports=str(path)))
    (tmp_path / ".reports.sqlite3").write_text("not a database either, but nobody asked for this file" * 10)
    store = JobStore.open(Settings(models=tmp_path))
    store.add(summary(1))
    assert "reports are kept in memory only" in caplog.text
