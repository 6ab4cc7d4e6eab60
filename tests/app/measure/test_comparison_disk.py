"""Comparisons whose temporary folder cannot be written to, or was left by a service that was killed."""

import json
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import serving, wait_until
from tests.app.events import events, stream
from tests.app.graphs import classifier, publish, weights

MOST = 8192  # bytes that a file of the service may have


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for name, width in (("one", 500), ("two", 700)):
        publish(folder, name, classifier(weights([6, width, 3])))
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder, on another file system than the models: they have to be copied."""
    try:
        folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    except OSError:
        pytest.skip("there is no other file system")
    monkeypatch.setenv("TMPDIR", str(folder))
    if folder.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def folders(temporary: Path) -> list[str]:
    """Those of comparisons."""
    return [path.name for path in temporary.glob("kronserve-*")]


def test_a_disk_that_does_not_take_what_a_comparison_needs_is_said_in_words(models: Path, elsewhere: Path) -> None:
    with serving(models, reports="off") as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (MOST, MOST))
        files = {"inputs": ("mine.csv", "1,2,3,4,5,6\n" * 1000)}
        body = {"models": ["one", "two"], "batch_sizes": [1], "seconds": 0.1, "depths": ["session", "http"]}
        answer = server.client.post("/api/compare", files=files, data={"request": json.dumps(body)})
        assert answer.status_code == 500
        assert answer.json() == {"error": "the rows cannot be kept for the comparison: File too large"}
        answer = server.client.post("/api/compare", json=body)
        assert answer.status_code == 500
        assert answer.json() == {"error": "one cannot be copied for the comparison: File too large"}
        assert folders(elsewhere) == []
        shutil.rmtree(elsewhere)
        answer = server.client.post("/api/compare", json=body)
        assert answer.status_code == 500
        assert answer.json() == {"error": "a folder cannot be made for the comparison: No such file or directory"}
        listed = server.client.get("/api/comparisons").json()["comparisons"]
        assert [(job["status"], job["error"]) for job in listed] == [("failed", answer.json()["error"])]


def test_what_a_killed_service_left_goes_with_the_next_comparison(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving(models, expected_code=-9) as server, stream(server.client, models=["one", "two"]) as response:
        incoming = events(response)  # held: an iterator that is dropped hangs up
        next(incoming)
        wait_until(lambda: list(temporary.glob("kronserve-*/lock")))
        server.process.kill()
        server.process.wait()
    assert len(folders(temporary)) == 1
    with serving(models) as server:
        body = {"models": ["one", "two"], "batch_sizes": [1], "seconds": 0.1}
        assert server.client.post("/api/compare", json=body).is_success
        assert folders(temporary) == []
