"""Loads, reloads and unloads of a running service while it answers requests."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.app.conftest import Serving, serving, wait_until
from tests.app.graphs import Array, classifier, forward, heavy, publish
from tests.app.versions import ROW, layers_of, put


def infer(client: httpx.Client, model: str = "m", row: Array = ROW) -> httpx.Response:
    values = {"name": "input", "shape": list(row.shape), "datatype": "FP32", "data": row.ravel().tolist()}
    return client.post(f"/v2/models/{model}/infer", json={"inputs": [values]})


def load(client: httpx.Client, model: str = "m") -> httpx.Response:
    return client.post(f"/v2/repository/models/{model}/load")


def is_served(server: Serving, version: int) -> bool:
    return bool(infer(server.client).json()["model_version"] == str(version))


def test_no_request_fails_while_versions_are_swapped(tmp_path: Path) -> None:
    """New versions are loaded by API and by signal, a bad one is refused; each answer is of the version it names."""
    put(tmp_path, 1)
    stop = threading.Event()
    wrong: list[str] = []
    seen: list[list[int]] = []

    with serving(tmp_path) as server:

        def send_requests(mine: list[int]) -> None:
            with httpx.Client(base_url=server.address, timeout=60) as client:
                while not stop.is_set():
                    answer = infer(client)
                    if answer.status_code != 200:
                        wrong.append(answer.text)
                        return
                    body = answer.json()
                    mine.append(int(body["model_version"]))
                    logits = np.array(body["outputs"][0]["data"])
                    if not np.allclose(logits, forward(layers_of(mine[-1]), ROW)[0], atol=1e-5):
                        wrong.append(f"version {mine[-1]} gave {logits}")

        threads = []
        for _ in range(3):
            seen.append([])
            threads.append(threading.Thread(target=send_requests, args=(seen[-1],)))
            threads[-1].start()
        try:
            for version in range(2, 6):
                put(tmp_path, version)
                if version % 3 == 0:
                    os.kill(server.process.pid, signal.SIGHUP)
                    wait_until(partial(is_served, server, version))
                else:
                    assert load(server.client).is_success
            assert load(server.client).is_success  # a reload of the same version
            publish(tmp_path, "m", b"nothing", version=99)
            assert load(server.client).status_code == 400
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert wrong == []
    for versions in seen:
        assert len(versions) > 20
        assert versions == sorted(versions)  # never an older version after a newer one
        assert versions[-1] == 5


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Serving, Path]]:
    """A server with a slow model."""
    publish(tmp_path, "m", heavy(width=512, products=800))
    with serving(tmp_path, max_body_bytes=2**24) as server:
        yield server, tmp_path


def start_slow_request(server: Serving, rows: int) -> tuple[threading.Thread, list[httpx.Response]]:
    """Start a slow request in a thread; returns once it is running."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=server.address, timeout=60) as client:
            answers.append(infer(client, row=np.ones((rows, 512), np.float32)))

    before = cpu_seconds(server)
    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: cpu_seconds(server) > before + 0.3)
    assert not answers
    return thread, answers


def cpu_seconds(server: Serving) -> float:
    """CPU time of the server process in seconds."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_running_request_keeps_its_version(slow: tuple[Serving, Path]) -> None:
    server, folder = slow
    thread, answers = start_slow_request(server, rows=1000)
    put(folder, 2)
    assert load(server.client).is_success
    assert not answers
    assert infer(server.client).json()["model_version"] == "2"
    thread.join()
    assert answers[0].json()["model_version"] == "1"
    assert set(answers[0].json()["outputs"][0]["data"]) == {1.0}


def test_a_running_request_is_answered_after_the_unload(slow: tuple[Serving, Path]) -> None:
    server, _ = slow
    thread, answers = start_slow_request(server, rows=1000)
    assert server.client.post("/v2/repository/models/m/unload").is_success
    thread.join()
    assert answers[0].is_success
    assert infer(server.client).status_code == 503
    assert server.client.get("/v2/models/m/ready").status_code == 400
    assert server.client.get("/v2/health/ready").is_success
    assert server.client.post("/api/predict", json={"inputs": [[0] * 512]}).status_code == 404
    metrics = server.client.get("/metrics").text
    assert 'kron_model_info{model="m"' not in metrics
    assert load(server.client).is_success
    assert infer(server.client, row=np.ones((1, 512), np.float32)).is_success


def test_an_unload_frees_the_memory(tmp_path: Path) -> None:
    """A model of 24 MB is loaded and unloaded several times."""
    publish(tmp_path, "m", classifier(layers_of(1), padding_bytes=24 * 2**20, outputs=("logits",)))
    put(tmp_path, 1, name="other")
    with serving(tmp_path) as server:

        def resident() -> float:
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            return int(status.partition("VmRSS:")[2].split()[0]) / 1024

        def cycle() -> tuple[float, float]:
            assert load(server.client).is_success
            assert infer(server.client).is_success
            loaded = resident()
            assert server.client.post("/v2/repository/models/m/unload").is_success
            return loaded, resident()

        _, before = cycle()
        loaded, after = [cycle() for _ in range(3)][-1]
    assert loaded - before > 20
    assert after - before < 5
