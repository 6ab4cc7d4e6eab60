"""Processes of comparisons: one comparison at a time beside predictions, and nothing left however it ends."""

import asyncio
import errno
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from app.measure.comparison import compare
from app.measure.comparison_schemas import CompareRequest
from app.models.scan import read_folder
from app.settings import Settings
from tests.app.conftest import ROWS, Serving, children_of, is_alive, serving, wait_until
from tests.app.events import events, stream
from tests.app.graphs import classifier, publish, weights
from tests.app.sockets import GET, connect


def test_one_at_a_time_while_predictions_go_on(server: Serving) -> None:
    client = server.client
    with stream(client, models=["plain", "padded"], batch_sizes=[1, 64], seconds=90) as response:
        incoming = events(response)
        name, started = next(incoming)
        assert name == "started"
        answer = client.post("/api/compare", json={})
        assert answer.status_code == 409
        assert answer.json() == {"error": "another comparison, sweep or training is running; try again later"}
        assert int(answer.headers["Retry-After"]) > 0
        for _ in range(20):
            assert client.post("/api/predict", json={"inputs": ROWS[:1].tolist()}).is_success
        job = client.get(f"/api/comparisons/{started['id']}").json()
        assert job["status"] == "running"  # so the predictions were answered while it ran
        assert client.delete(f"/api/comparisons/{started['id']}").status_code == 204
        assert not server.children()


@pytest.mark.parametrize("ahead", [b"", GET], ids=["alone", "with a request sent ahead"])
def test_a_client_that_disconnects_cancels_its_comparison(server: Serving, ahead: bytes) -> None:
    body = b'{"models": ["plain", "padded"], "seconds": 90}'
    with connect(server) as connection:
        head = b"POST /api/compare HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body + ahead)
        assert wait_until(server.children)
    server.wait_until_childless()
    wait_until(lambda: '"status":"running"' not in server.client.get("/api/comparisons").text)
    assert server.client.post("/api/predict", json={"inputs": ROWS[:1].tolist()}).is_success


def test_the_service_under_test_ends_with_the_comparison(server: Serving) -> None:
    body = {"models": ["plain", "small-dense"], "batch_sizes": [1], "seconds": 20, "depths": ["http"]}
    with stream(server.client, **body) as response:
        incoming = events(response)
        started = next(incoming)[1]
        while not next(incoming)[1]["stage"].startswith("service"):
            pass
        measuring = server.children()
        services = {service for process in measuring for service in children_of(process)}
        assert len(services) == 1
        assert server.client.delete(f"/api/comparisons/{started['id']}").status_code == 204
    wait_until(lambda: not any(is_alive(process) for process in measuring | services))


def test_a_comparison_that_takes_too_long_is_killed(models: Path) -> None:
    with serving(models, compare_seconds=0.2) as server:
        for accept in ("application/json", "text/event-stream"):
            with server.client.stream(
                "POST", "/api/compare", json={"models": ["plain", "padded"]}, headers={"Accept": accept}
            ) as response:
                text = response.read().decode()
            assert response.status_code == (504 if accept == "application/json" else 200)
            assert '"the comparison took longer than 0.2 s (KRON_COMPARE_SECONDS)"' in text
            assert not server.children()
        metrics = server.client.get("/metrics").text
        assert 'kron_comparisons_total{outcome="TimedOut"} 2' in metrics


def test_ctrl_c_stops_a_comparison_with_an_error_event(models: Path) -> None:
    with serving(models) as server:
        with stream(server.client, models=["plain", "padded"], seconds=90) as response:
            incoming = events(response)
            next(incoming)
            children = wait_until(server.children)
            server.process.send_signal(2)
            last = list(incoming)[-1]
        assert last == ("error", {"error": "the comparison was stopped: the service is shutting down"})
        server.process.wait(timeout=30)
        assert not any(is_alive(child) for child in children)


def test_children_die_with_a_server_that_is_killed(models: Path) -> None:
    with (
        serving(models, expected_code=-9) as server,
        stream(server.client, models=["plain", "padded"], seconds=90) as response,
    ):
        incoming = events(response)  # kept in a variable: a dropped iterator disconnects, which ends the comparison
        next(incoming)
        children = wait_until(server.children)
        server.process.kill()
        wait_until(lambda: not any(is_alive(child) for child in children))


def test_nothing_is_left_of_a_comparison_that_is_cancelled_while_it_copies_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copying, from another file system, takes long and runs in a thread that cannot be cancelled."""
    folder, temporary = tmp_path / "models", tmp_path / "temporary"
    temporary.mkdir()
    for number, name in enumerate(("one", "two", "three")):
        publish(folder, name, classifier(weights([4, 5 + number, 3])))
    copying, goes_on, copied, copy = threading.Event(), threading.Event(), [], shutil.copyfile

    def refuse(source: Path, target: Path) -> NoReturn:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def copy_slowly(source: Path, target: Path) -> None:
        copying.set()
        goes_on.wait(60)
        copied.append(copy(source, target))

    async def scenario() -> None:
        settings = Settings(models=folder)
        artifacts = [versions[0] for versions in (await read_folder(settings)).versions.values()]
        request = CompareRequest(batch_sizes=[1], seconds=0.1, depths=["session", "http"])
        task = asyncio.create_task(compare(artifacts, request, settings, lambda stage, done, total: None))
        await asyncio.to_thread(copying.wait, 60)
        for _ in range(2):  # a second cancellation must wait for the copy, too
            task.cancel()
            await asyncio.wait([task], timeout=0.2)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(copied) == 1

    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfile", copy_slowly)
    asyncio.run(scenario())  # returns after its threads have ended
    assert list(temporary.iterdir()) == []
