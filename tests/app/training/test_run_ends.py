"""Trainings that are cancelled, killed or refused, or whose service is killed."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.jobs.store import FILE_NAME, INTERRUPTED
from tests.app.conftest import Serving, is_alive, serving, wait_until
from tests.app.events import events
from tests.app.graphs import classifier, publish, weights
from tests.app.trainings import LONG, flowers, follow, leftovers

pytestmark = pytest.mark.slow


def begin(server: Serving, until: str = "epoch", **changes: Any) -> tuple[str, Iterator[tuple[str, Any]], Any]:
    """Start a long training and follow it until an event: its URL, the further events, the open response."""
    stream = server.client.stream(
        "POST", "/api/trainings", json=LONG | changes, headers={"Accept": "text/event-stream"}
    )
    response = stream.__enter__()
    assert response.status_code == 200, response.read()
    incoming = events(response)
    name, job = next(incoming)
    assert (name, job["status"]) == ("started", "running")
    while name != until:
        name, data = next(incoming)
        assert name != "error", data
    return f"/api/trainings/{job['id']}", incoming, stream


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Path]]:
    """A server of one worker, whose children are the trainings' processes."""
    models = tmp_path_factory.mktemp("single")
    publish(models, "one", classifier(weights([6, 3])))
    with serving(models) as server:
        yield server, models


def test_a_cancelled_training_leaves_nothing(single: tuple[Serving, Path]) -> None:
    server, models = single
    place, incoming, stream = begin(server)
    (child,) = server.children()
    own, other = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (server.process.pid, child))
    assert other == min(19, own + 10)
    (private,) = leftovers(models)
    assert (models / private).stat().st_mode & 0o777 == 0o700
    wait_until(lambda: list((models / private).glob("checkpoints/*/last.pt")))
    answer = server.client.post("/api/trainings", json=LONG)
    assert (answer.status_code, answer.json()["error"]) == (
        409,
        "another comparison, sweep or training is running; try again later",
    )
    assert server.client.delete(place, timeout=60).status_code == 204
    assert not is_alive(child)
    assert leftovers(models) == []
    assert list(incoming)[-1] == ("error", {"error": "the training was cancelled"})
    assert server.client.get(place).status_code == 404
    assert [path.name for path in models.iterdir() if path.is_dir()] == ["one"]
    stream.__exit__(None, None, None)


def test_a_training_whose_process_is_killed_failed_with_the_reason(single: tuple[Serving, Path]) -> None:
    server, models = single
    place, incoming, stream = begin(server, until="plan")
    (child,) = server.children()
    os.kill(child, signal.SIGKILL)
    reason = "the training failed: it was killed (SIGKILL), by hand or by the system because memory ran out"
    assert list(incoming)[-1] == ("error", {"error": reason})
    job = server.client.get(place).json()
    assert (job["status"], job["error"], job["report"]) == ("failed", reason, None)
    assert [name for name, _ in follow(server.address, place)][:2] == [
        "started",
        "plan",
    ]  # its published events are kept
    assert leftovers(models) == []
    stream.__exit__(None, None, None)


def test_an_error_of_kronmodel_is_the_reason_without_a_path(single: tuple[Serving, Path]) -> None:
    server, models = single
    files = {"data": ("prices.csv", flowers(), "text/csv")}
    wanted = {"target": "--out=/tmp", "name": "x"}  # must not be parsed as an option
    with server.client.stream(
        "POST",
        "/api/trainings",
        files=files,
        data={"request": json.dumps(wanted)},
        headers={"Accept": "text/event-stream"},
    ) as response:
        (name, data) = list(events(response))[-1]
    assert name == "error"
    assert data["error"].startswith("the training failed: prices.csv ")
    assert "'--out=/tmp'" in data["error"]
    assert leftovers(models) == []


def test_a_training_ends_with_a_service_that_is_killed_and_is_marked_failed(tmp_path: Path) -> None:
    publish(tmp_path, "one", classifier(weights([6, 3])))
    with serving(tmp_path, expected_code=-9) as server:
        place, _, stream = begin(server)
        (child,) = server.children()
        # Events reach followers at once and the disk with the next heartbeat, up to a second later.
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
            wait_until(lambda: db.execute("SELECT 1 FROM events WHERE name = 'plan'").fetchone())
        server.process.kill()
        wait_until(lambda: not is_alive(child))
        stream.__exit__(None, None, None)
    assert leftovers(tmp_path) == []
    abandoned = tmp_path / ".training-abandoned"  # as after a power cut
    abandoned.mkdir()
    (abandoned / "lock").touch()
    with serving(tmp_path, train_memory_bytes=64 * 2**20, train_seconds=100) as server:
        job = server.client.get(place).json()
        assert (job["status"], job["error"]) == ("failed", INTERRUPTED)
        seen = follow(server.address, place)
        assert [name for name, _ in seen][:2] == ["started", "plan"]
        assert seen[-1] == ("error", {"error": INTERRUPTED})
        limits = server.client.get("/api/trainings/options").json()["limits"]
        assert (limits["memory_bytes"], limits["seconds"]) == (64 * 2**20, 100)
        place = server.client.post("/api/trainings", json=LONG).headers["location"]
        reason = "the training was killed: it took more than 67108864 bytes of memory (KRON_TRAIN_MEMORY_BYTES)"
        assert follow(server.address, place)[-1] == ("error", {"error": reason})
        server.wait_until_childless()
    assert leftovers(tmp_path) == []


def test_a_training_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    publish(tmp_path, "one", classifier(weights([6, 3])))
    with serving(tmp_path, train_seconds=0.5) as server:
        place = server.client.post("/api/trainings", json=LONG).headers["location"]
        reason = "the training took longer than 0.5 s (KRON_TRAIN_SECONDS)"
        assert follow(server.address, place)[-1] == ("error", {"error": reason})
        assert not server.children()
        assert leftovers(tmp_path) == []
