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

MAX_FILE_BYTES = 8192  # of each file that the service writes


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for name, width in (("one", 500), ("two", 700)):
        publish(folder, name, classifier(weights([6, width, 3])))
    return folder


@pytest.fixture
def other_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder, on another file system than the models, so that they are copied."""
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
    """Names of the temporary folders of comparisons."""
    return [path.name for path in temporary.glob("kronserve-*")]


def test_a_full_disk_is_an_error_message_of_one_line(models: Path, other_disk: Path) -> None:
    with serving(models, reports="off") as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
        files = {"inputs": ("mine.csv", "1,2,3,4,5,6\n" * 1000)}
        body = {"models": ["one", "two"], "batch_sizes": [1], "seconds": 0.1, "depths": ["session", "http"]}
        answer = server.client.post("/api/compare", files=files, data={"request": json.dumps(body)})
        assert answer.status_code == 500
        assert answer.json() == {"error": "the rows cannot be kept for the comparison: File too large"}
        answer = server.client.post("/api/compare", json=body)
        assert answer.status_code == 500
        assert answer.json() == {"error": "one cannot be copied for the comparison: File too large"}
        assert folders(other_disk) == []
        shutil.rmtree(other_disk)
        answer = server.client.post("/api/compare", json=body)
        assert answer.status_code == 500
        assert answer.json() == {"error": "a folder cannot be made for the comparison: No such file or directory"}
        listed = server.client.get("/api/comparisons").json()["comparisons"]
        assert [(job["status"], job["error"]) for job in listed] == [("failed", answer.json()["error"])]


def test_the_folder_of_a_killed_service_is_removed_by_the_next_comparison(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving(models, expected_code=-9) as server, stream(server.client, models=["one", "two"]) as response:
        incoming = events(response)  # kept in a variable: a dropped iterator disconnects
        next(incoming)
        wait_until(lambda: list(temporary.glob("kronserve-*/lock")))
        server.process.kill()
        server.process.wait()
    assert len(folders(temporary)) == 1
    with serving(models) as server:
        body = {"models": ["one", "two"], "batch_sizes": [1], "seconds": 0.1}
        assert server.client.post("/api/compare", json=body).is_success
        assert folders(temporary) == []
