"""Several workers whose folder for temporary files is on a full disk: really filled."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import Serving, environment, serving_through, wait_until
from tests.app.graphs import classifier, publish, weights
from tests.app.small_disk import fill, with_small_disk

ROW = {"inputs": [[0.5] * 6], "models": ["plain"]}


@contextmanager
def two_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Serving, Path]]:
    """Two workers of one model, and the folder of their small disk."""
    publish(folder / "models", "plain", classifier(weights([6, 3])))
    (folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    prefix = with_small_disk(folder / "tmp", 4)
    options = {"workers": 2, "reports": "off", "drain_seconds": 0}
    with serving_through(prefix, folder / "models", options) as server:
        yield server, folder / "tmp"


def statuses(server: Serving, path: str, body: object = None) -> set[int]:
    """Statuses over as many connections as it takes to reach both workers."""
    return {httpx.post(f"{server.address}{path}", json=body, timeout=60).status_code for _ in range(24)}


def test_a_full_disk_stops_loads_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with two_workers(tmp_path, monkeypatch) as (server, disk):
        workers = server.children()
        filler = fill(server.process.pid, disk)
        publish(tmp_path / "models", "other", classifier(weights([6, 3], seed=2)))
        load = "/v2/repository/models/other/load"
        assert statuses(server, "/api/predict", ROW) == {200}
        assert statuses(server, "/api/predict", {"inputs": [[0.5] * 6] * 7, "models": ["plain"]}) == {200}
        assert statuses(server, "/v2/models/none/infer", {}) == {404}  # an error that has not been counted before
        answer = httpx.post(f"{server.address}{load}", timeout=60)
        assert answer.status_code == 503
        assert "disk is full" in answer.json()["error"]
        assert str(disk) not in answer.text
        assert httpx.post(f"{server.address}/v2/repository/models/plain/unload", timeout=60).status_code == 503
        assert statuses(server, "/api/predict", ROW) == {200}
        assert statuses(server, "/v2/models/other/infer", {}) == {404}
        assert server.children() == workers
        filler.unlink()
        assert httpx.post(f"{server.address}{load}", timeout=60).status_code == 200
        assert statuses(server, "/api/predict", ROW | {"models": ["other"]}) == {200}  # in both workers


def test_a_worker_that_dies_is_replaced_once_the_disk_has_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_workers(tmp_path, monkeypatch) as (server, disk):
        filler = fill(server.process.pid, disk)
        victim, other = sorted(server.children())
        os.kill(victim, signal.SIGKILL)
        replacement = next(iter(wait_until(lambda: server.children() - {victim, other})))
        wait_until(lambda: replacement not in server.children())
        assert statuses(server, "/api/predict", ROW) == {200}
        assert httpx.get(f"{server.address}/v2/health/ready").is_success
        filler.unlink()
        wait_until(lambda: len(server.children() - {replacement}) == 2)
        assert other in server.children()


def test_a_service_that_cannot_start_for_a_full_disk_says_so(tmp_path: Path) -> None:
    publish(tmp_path / "models", "plain", classifier(weights([6, 3])))
    (tmp_path / "tmp").mkdir()
    command = [
        *with_small_disk(tmp_path / "tmp", 1),
        "sh",
        "-c",
        'head -c 1000000 /dev/zero > "$TMPDIR/fill"; exec "$@"',
    ]
    command += [
        "sh",
        sys.executable,
        "-m",
        "app",
        "--port",
        "0",
        "--models",
        str(tmp_path / "models"),
        "--workers",
        "2",
    ]
    env = environment() | {"TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"kronserve: the disk is full: {tmp_path / 'tmp'}/kronserve-")
    assert "Traceback" not in done.stderr
