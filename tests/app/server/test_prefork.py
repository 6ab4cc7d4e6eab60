"""Several worker processes behind one port, and how the service ends: really started, killed and stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.conftest import Serving, children_of, environment, is_alive, serving, wait_until
from tests.app.graphs import classifier, heavy, publish, weights

pytestmark = pytest.mark.slow  # several processes of the service for each test

ROW = {"inputs": [[0.5] * 6], "models": ["plain"]}
SLOW = json.dumps({"inputs": [[0.0] * 512] * 1000, "models": ["heavy"]}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    publish(folder, "plain", classifier(weights([6, 3])))
    publish(folder, "wider", classifier(weights([6, 50, 3])))
    publish(folder, "heavy", heavy(width=512, products=150))
    return folder


def value(server: Serving, series: str) -> float:
    lines = httpx.get(f"{server.address}/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " "))


def statistics(server: Serving) -> dict[str, Any]:
    stats: dict[str, Any] = httpx.get(f"{server.address}/v2/models/plain/stats").json()["model_stats"][0]
    return stats


def memory(server: Serving) -> int:
    (usage,) = statistics(server)["memory_usage"]
    assert (usage["type"], usage["id"]) == ("CPU", 0)
    assert usage["byte_size"] > 0
    size: int = usage["byte_size"]
    return size


def states(server: Serving) -> dict[tuple[str, str], str]:
    """State in the repository index, by name and version."""
    index = httpx.post(f"{server.address}/v2/repository/index").json()
    return {(entry["name"], entry["version"]): entry["state"] for entry in index}


@contextmanager
def ended_by(sig: signal.Signals, server: Serving, *, code: int) -> Iterator[None]:
    """Send the signal, run the block, and expect the process to end with that exit code."""
    server.process.send_signal(sig)
    yield
    _, errors = server.process.communicate(timeout=40)
    assert server.process.returncode == code, errors
    assert "Traceback" not in errors


def test_workers_share_the_port_and_their_metrics_and_one_that_dies_is_replaced(folder: Path) -> None:
    with serving(folder, workers=2) as server:
        workers = server.children()
        assert len(workers) == 2
        series = 'nv_inference_request_success{model="plain",version="1"}'
        for _ in range(20):
            assert httpx.post(f"{server.address}/api/predict", json=ROW).is_success  # a new connection each time
        for _ in range(6):
            assert value(server, series) == 20  # whichever worker answers
        for _ in range(6):
            stats = statistics(server)
            assert (stats["inference_count"], stats["execution_count"]) == (20, 20)
            assert [batch["compute_infer"]["count"] for batch in stats["batch_stats"]] == [20]
        both = memory(server)
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in server.children() and len(server.children()) == 2)
        assert value(server, series) == 20
        assert httpx.post(f"{server.address}/api/predict", json=ROW).is_success
        assert value(server, series) == 21
        assert statistics(server)["inference_count"] == 21

        def both_serve() -> bool:
            # The new worker accepts nothing before it can answer; until then the other one answers every request.
            assert httpx.get(f"{server.address}/v2/health/ready").is_success
            return memory(server) == pytest.approx(both, rel=0.4)  # each worker has measured its own

        wait_until(both_serve)
    assert not any(is_alive(worker) for worker in workers)


def test_there_is_one_comparison_at_a_time_over_all_workers(folder: Path) -> None:
    with serving(folder, workers=2) as server:
        answers: list[int] = []
        body = {"models": ["plain", "wider"], "batch_sizes": [1], "seconds": 4}

        def compare() -> None:
            answers.append(httpx.post(f"{server.address}/api/compare", json=body, timeout=250).status_code)

        threads = [threading.Thread(target=compare) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [200, 409, 409, 409, 409]
        compare()  # the lock is free again, for any worker
        assert answers[-1] == 200


def test_workers_that_die_again_and_again_end_the_service(folder: Path) -> None:
    with serving(folder, workers=2, expected_code=1) as server:
        killed: set[int] = set()

        def kill_another() -> bool:
            for worker in server.children() - killed:
                killed.add(worker)
                os.kill(worker, signal.SIGKILL)
            return server.process.poll() is not None

        wait_until(kill_another, seconds=60)
        _, errors = server.process.communicate(timeout=30)
        # A worker may have been killed in the middle of a line of its own.
        last = errors.splitlines()[-1]
        assert re.search(r"kronserve: worker \d+ died \(exit code -9\), after 5 others in 60 s$", last)


def test_workers_that_cannot_start_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    publish(tmp_path, "bad", b"not a model")
    command = [sys.executable, "-m", "app", "--port", "0", "--models", str(tmp_path), "--workers", "2"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"kronserve: no models to serve in {tmp_path}: bad: version 1: not an"
    )
    assert "Traceback" not in done.stderr


def killed(server: Serving) -> int:
    """Kill one of two workers; the process id of the other."""
    victim, other = sorted(server.children())
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.children())
    return other


@pytest.mark.parametrize("options", [{}, {"shadow": "m=other"}], ids=["alone", "shadowed"])
def test_a_worker_is_replaced_while_a_model_is_unloaded_by_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    for name in ("m", "other") if options else ("m",):
        publish(tmp_path / "models", name, classifier(weights([6, 3], seed=len(name))))
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "shared"))
    with serving(tmp_path / "models", workers=2, **options) as server:

        def answers() -> set[int]:
            """Statuses over as many connections as it takes to reach both workers."""
            return {httpx.get(f"{server.address}/v2/models/m/ready").status_code for _ in range(16)}

        def load() -> bool:
            return httpx.post(f"{server.address}/v2/repository/models/m/load", timeout=60).is_success

        assert httpx.post(f"{server.address}/v2/repository/models/m/unload", timeout=60).is_success
        other = killed(server)
        wait_until(lambda: {int(path.stem) for path in tmp_path.glob("shared/*/*.state")} - {other})
        assert answers() == {400}
        wait_until(lambda: load() and answers() == {200})  # a worker that is still starting may miss the first load
        assert len(server.children()) == 2


def test_a_worker_that_cannot_be_replaced_leaves_the_others_serving_until_it_can(tmp_path: Path) -> None:
    publish(tmp_path, "plain", classifier(weights([6, 3])))
    with serving(tmp_path, workers=2) as server:
        both = memory(server)
        (tmp_path / "plain").rename(tmp_path / ".plain")
        known = server.children()
        other = killed(server)
        replacement = next(iter(wait_until(lambda: server.children() - known)))
        wait_until(lambda: replacement not in server.children())
        assert server.children() == {other}
        assert httpx.post(f"{server.address}/api/predict", json=ROW).is_success
        (tmp_path / ".plain").rename(tmp_path / "plain")
        wait_until(lambda: len(server.children()) == 2 and memory(server) == pytest.approx(both, rel=0.4))
        assert other in server.children()


def test_workers_that_are_being_started_are_stopped_like_the_others(folder: Path) -> None:
    command = [sys.executable, "-m", "app", "--port", "0", "--models", str(folder), "--workers", "48"]
    env = environment(drain_seconds=0, grace_seconds=60)
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        while not children_of(process.pid):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=30)  # a worker without the signal would be waited for 65 s
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


def test_workers_do_not_outlive_their_parent(folder: Path) -> None:
    with serving(folder, workers=2, drain_seconds=0, expected_code=-9) as server:
        workers = server.children()
        server.process.kill()
        wait_until(lambda: not any(is_alive(worker) for worker in workers))


@pytest.mark.parametrize(("workers", "http"), [(1, "fast"), (2, "fast"), (2, "standard")])
def test_sigterm_ends_readiness_at_once_and_answers_what_was_accepted(folder: Path, workers: int, http: str) -> None:
    with serving(folder, workers=workers, http=http, drain_seconds=4, expected_code=0) as server:
        answers: list[httpx.Response] = []

        def predict() -> None:
            answers.append(httpx.post(f"{server.address}/api/predict", content=SLOW, timeout=250))

        thread = threading.Thread(target=predict)
        thread.start()
        time.sleep(0.2)
        with ended_by(signal.SIGTERM, server, code=0):
            ready = wait_until(
                lambda: (got := httpx.get(f"{server.address}/v2/health/ready")).status_code == 503 and got
            )
            assert ready.json() == {"ready": False, "error": "the service is shutting down"}
            assert httpx.post(
                f"{server.address}/api/predict", json=ROW
            ).is_success  # connections are accepted while draining
            thread.join()
            assert answers[0].status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.address}/v2/health/live")


def test_an_accepted_request_is_answered_after_connections_are_refused(folder: Path) -> None:
    with serving(folder, drain_seconds=0, instances=1, max_requests=4, expected_code=0) as server:
        answers: list[int] = []
        full = threading.Event()

        def ask() -> None:
            while True:
                code = httpx.post(f"{server.address}/api/predict", content=SLOW, timeout=250).status_code
                if full.is_set() and code != 503:  # a 503 means that the request below had the last place
                    break
            answers.append(code)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.client.get("/api/models").status_code == 503)  # all four are accepted
        full.set()
        server.client.close()
        with ended_by(signal.SIGTERM, server, code=0):
            for thread in threads:
                thread.join()
        assert answers == [200] * 4


def test_the_wait_for_accepted_requests_is_bounded(folder: Path) -> None:
    with serving(folder, drain_seconds=0, grace_seconds=0.5, instances=1, expected_code=0) as server:
        threads = []
        for _ in range(12):

            def ask() -> None:
                with suppress(httpx.TransportError):
                    httpx.post(f"{server.address}/api/predict", content=SLOW, timeout=250)

            threads.append(threading.Thread(target=ask))
            threads[-1].start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        server.process.communicate(timeout=30)
        assert server.process.returncode == 0
        for thread in threads:
            thread.join()
    assert not children_of(server.process.pid)


def test_loads_and_unloads_reach_every_worker(tmp_path: Path) -> None:
    publish(tmp_path, "m", classifier(weights([6, 3], seed=1)))
    publish(tmp_path, "other", classifier(weights([6, 3], seed=2)))
    with serving(tmp_path, workers=2) as server:

        def answers(path: str) -> set[int]:
            """Statuses over as many connections as it takes to reach both workers."""
            return {httpx.get(f"{server.address}{path}").status_code for _ in range(16)}

        repository = f"{server.address}/v2/repository/models/m"
        assert httpx.post(f"{repository}/unload", timeout=250).is_success
        assert answers("/v2/models/m/ready") == {400}  # an unload is answered when all workers have applied it
        assert all(states(server)["m", "1"] != "READY" for _ in range(8))  # whichever worker answers
        assert answers("/v2/models/other/ready") == {200}
        assert httpx.post(f"{repository}/load", timeout=250).is_success
        assert answers("/v2/models/m/ready") == {200}
        publish(tmp_path, "m", classifier(weights([6, 3], seed=3)), version=2)
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: answers("/v2/models/m/versions/2/ready") == {200}, seconds=100)
        publish(tmp_path, "m", classifier(weights([6, 3], seed=3)), version=3)
        assert httpx.post(f"{repository}/load", timeout=250).is_success
        assert answers("/v2/models/m/versions/3/ready") == {200}
        assert all(states(server)["m", "3"] == "READY" for _ in range(8))
