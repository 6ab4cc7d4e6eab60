"""Sweeps: requests, reports and crossovers, in the background and at the command line."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from app.cli.main import main
from app.measure.bootstrap import verdict
from app.measure.sweep import crossovers
from app.measure.sweep_schemas import Cell
from tests.app.cli.test_main import run
from tests.app.conftest import Serving, wait_until
from tests.app.events import events

QUICK: dict[str, Any] = {"widths": [484, 36], "ranks": [3, 1], "batch_sizes": [2], "layers": 1, "seconds": 0.4}
LONG: dict[str, Any] = {"widths": [64, 1024], "ranks": [1], "seconds": 60}


def cell(width: int, ratio: float, rank: int = 1) -> Cell:
    low, high = 0.97 * ratio, 1.03 * ratio
    return Cell(
        width=width, rank=rank, batch_size=4, threads=2, dense_p50_us=ratio, kronecker_p50_us=1, ratio=ratio, low=low,
        high=high, verdict=verdict(low, high), n=10, unstable=False, macs_ratio=1,
    )  # fmt: skip


def test_the_crossover_is_the_width_from_which_on_kronecker_is_faster() -> None:
    (found,) = crossovers([cell(1600, 4.0), cell(100, 0.5), cell(400, 2.0), cell(900, 3.0)])
    assert found.width == 400
    assert found.estimate == pytest.approx(np.sqrt(100 * 400), abs=0.1)  # half-way on logarithmic scales
    assert found.sentence == (
        "Rank 1, batch size 4, 2 threads: Kronecker is faster from width 400 on (break-even estimated at 200)."
    )


def test_a_single_faster_width_below_is_not_the_crossover() -> None:
    (found,) = crossovers([cell(100, 2.0), cell(400, 0.8), cell(900, 1.6)])
    assert found.width == 900
    assert found.estimate is not None
    assert 400 < found.estimate < 900


def test_cells_without_a_crossover() -> None:
    always, never, hardly = crossovers(
        [
            cell(100, 2.0, 1),
            cell(400, 3.0, 1),
            cell(100, 0.2, 2),
            cell(400, 0.9, 2),
            cell(100, 0.5, 3),
            cell(400, 1.01, 3),
        ]
    )
    assert (always.width, always.estimate) == (100, None)
    assert "Kronecker is faster at every width measured, from 100 to 400." in always.sentence
    assert (never.width, never.estimate) == (None, None)
    assert "Kronecker is not faster at 400, the largest width measured." in never.sentence
    assert hardly.width is None  # within the margin
    assert hardly.estimate is not None


def check_report(report: dict[str, Any]) -> None:
    assert report["settings"]["widths"] == [36, 484]
    assert [(c["width"], c["rank"], c["batch_size"], c["threads"]) for c in report["cells"]] == [
        (36, 1, 2, 1), (36, 3, 2, 1), (484, 1, 2, 1), (484, 3, 2, 1),
    ]  # fmt: skip
    for found in report["cells"]:
        assert found["ratio"] == pytest.approx(found["dense_p50_us"] / found["kronecker_p50_us"], rel=0.02)
        assert found["low"] <= found["ratio"] <= found["high"]
        assert found["verdict"] == verdict(found["low"], found["high"])
        assert found["macs_ratio"] == pytest.approx(found["width"] ** 0.5 / (2 * found["rank"]), abs=1e-3)
    assert report["cells"][0]["dense_p50_us"] == report["cells"][1]["dense_p50_us"]  # measured once for both ranks
    assert [(c["rank"], c["batch_size"], c["threads"]) for c in report["crossovers"]] == [(1, 2, 1), (3, 2, 1)]


def test_a_sweep_runs_in_the_background_and_is_kept(client: httpx.Client) -> None:
    answer = client.post("/api/sweeps", json=QUICK)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["kind"], job["status"], job["title"]) == ("sweep", "running", "Widths 36, 484")
    place = answer.headers["location"]
    assert place == f"/api/sweeps/{job['id']}"
    with client.stream("GET", f"{place}/events") as response:
        seen = list(events(response))
    assert seen[0][0] == "started"
    (report,) = [data for name, data in seen if name == "report"]
    assert seen[-1] == ("report", report)
    check_report(report)
    assert [c for name, data in seen if name == "cells" for c in data["cells"]] == report["cells"]
    progress = [data for name, data in seen if name == "progress"]
    assert [step["done"] for step in progress] == sorted(step["done"] for step in progress)
    kept = client.get(place).json()
    assert kept["report"] == report
    assert kept["headline"] == report["crossovers"][0]["sentence"]
    assert client.get("/api/sweeps").json()["sweeps"][0]["id"] == job["id"]
    assert job["id"] not in client.get("/api/comparisons").text  # lists hold one kind of job
    assert client.get(f"/api/comparisons/{job['id']}").status_code == 404
    assert 'kron_sweeps_total{outcome="ok"}' in client.get("/metrics").text


def test_sweeps_and_comparisons_exclude_each_other_and_a_sweep_is_cancelled(server: Serving) -> None:
    client = server.client
    headers = {"Accept": "text/event-stream"}
    with client.stream("POST", "/api/sweeps", json=LONG, headers=headers) as response:
        incoming = events(response)
        started = next(incoming)[1]
        for path, body in (("/api/compare", {}), ("/api/sweeps", QUICK)):
            answer = client.post(path, json=body)
            assert answer.status_code == 409
            assert "another comparison, sweep or training is running" in answer.json()["error"]
        assert wait_until(server.children)
        name = ""
        while name != "cells":
            name, data = next(incoming)
        with client.stream("GET", f"/api/sweeps/{started['id']}/events") as late:
            replayed = events(late)
            assert next(replayed)[0] == "started"
            assert next(replayed) == ("cells", data)
        assert client.delete(f"/api/sweeps/{started['id']}").status_code == 204
        assert not server.children()
        assert list(incoming)[-1] == ("error", {"error": "the sweep was cancelled"})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"widths": [1000]}, "widths[0]: got 1000, expected a square number such as 961 or 1024"),
        ({"widths": [64, 15]}, "widths[1]: got 15, expected greater than or equal to 16"),
        ({"widths": [8100], "layers": 2}, "widths[0]: got 8100, expected at most 5776 for 2 layers"),
        ({"widths": [64, 64]}, "widths: got [64, 64], expected different ones"),
        ({"widths": [16], "ranks": [17]}, "ranks: got 17, expected at most 16, the smallest width"),
        ({"ranks": []}, "ranks: got [], expected"),
        ({"batch_sizes": [2000]}, "batch_sizes: got 2000, expected at most 1024"),
        ({"threads": [200]}, "threads: got 200, expected at most"),
        ({"seconds": 721}, "seconds: got 721, expected at most 720, of KRON_SWEEP_SECONDS"),
        ({"device": "tpu"}, "device: got 'tpu', expected 'cpu' or 'cuda'"),
        ({"width": [64]}, "body: got the unknown key 'width', expected batch_sizes, device, layers"),
    ],
)
def test_a_bad_sweep_is_400(client: httpx.Client, body: Any, message: str) -> None:
    answer = client.post("/api/sweeps", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--widths", "484,36", "--ranks", "3,1", "--batch-sizes", "2", "--layers", "1", "--seconds", "0.4"]
    done = run("sweep", *arguments, "--json")
    assert done.returncode == 0
    check_report(json.loads(done.stdout))
    assert "width 484: series 1 of 8, batch size 2" in done.stderr
    assert main(["sweep", *arguments]) == 0
    out = capsys.readouterr().out
    for text in ("Kronecker", "predicted", "484", "Rank 3, batch size 2, 1 thread: Kronecker "):
        assert text in out
    for bad, message in (
        (["--widths", "a"], "--widths: got 'a', expected numbers such as 1,32"),
        (["--layers", "9"], "--layers: got 9, expected less than or equal to 4"),
        (["--threads", "999"], "--threads: got 999, expected less than or equal to 256"),
    ):
        assert main(["sweep", *bad]) == 2
        assert message in capsys.readouterr().err


def test_a_sweep_that_takes_too_long_is_exit_code_1() -> None:
    done = run("sweep", "--sweep-seconds", "0.5", "--seconds", "0.4", "--widths", "1024")
    assert done.returncode == 1
    expected = "kronserve: the sweep took longer than 0.5 s (KRON_SWEEP_SECONDS)"
    assert done.stderr.splitlines()[-1] == expected
