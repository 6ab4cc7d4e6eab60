"""Shell blocks of README and docs, run line by line in one folder; trainings and measurements are shortened by options.

`make test-docs` runs them, since they take minutes. Python blocks run in tests/test_readme.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.app.conftest import Serving, environment, serving, wait_until
from tests.test_readme import PAGES, ROOT, blocks

# Blocks that other tests run, with the answers that the pages show: all of a page, or those that begin so.
ELSEWHERE = {
    ("docs/api.md", ""): "tests/end_to_end/test_pages.py",
    ("docs/operations.md", ""): "tests/end_to_end/test_pages.py",
    ("docs/quickstart.md", ""): "tests/end_to_end/test_pages.py",
    ("docs/protocol.md", ""): "tests/end_to_end/test_protocol.py",
    ("docs/serving.md", "curl"): "tests/end_to_end/test_twin.py",
    ("docs/comparison.md", "kronserve compare minilm"): "tests/app/measure/test_comparison_inputs.py",
}
# Commands that are not run, by their beginning.
NOT_RUN = {
    ".ci/run": "runs these tests",
    "make": "targets; tests/test_readme.py checks that they exist",
    "pip install": "changes the environment of the tests",
    "docker": "needs a container engine; tests/image runs the image with the same options",
    "kubectl": "needs a cluster; `make check-deploy` validates the files",
    "kronserve --models models --port 8000": "serves until Ctrl-C, as all tests of the service do on another port",
}
# Options at the end of a command that shorten it; of an option that is given twice, the last one counts.
SHORTER = {
    "kronmodel train": "--epochs 1",
    "kronmodel train --bits 2 --quantize-epochs": "--epochs 2 --quantize-epochs 1",
    "torchrun": "--epochs 1",
    "kronserve compare": "--seconds 0.4",
    "kronserve sweep": "--seconds 1 --widths 16,36",
    "kronserve selftest": "--seconds 0.4 --runs 1",
}


def runs_elsewhere(page: str, code: str) -> bool:
    return any(page == where and code.startswith(beginning) for where, beginning in ELSEWHERE)


def lines() -> list[tuple[str, str]]:
    """Commands of all shell blocks that no other test runs, as pairs of page and command."""
    found = []
    for page, code in blocks("sh"):
        if not runs_elsewhere(page, code):
            found += [(page, line) for line in code.replace("\\\n", " ").splitlines()]
    return found


TO_RUN = [(page, line) for page, line in lines() if not line.startswith(tuple(NOT_RUN))]
REQUESTS = [(page, line) for page, line in TO_RUN if "curl" in line]
# A command that several pages show runs once.
COMMANDS = list(dict.fromkeys(line.partition("#")[0].rstrip() for _, line in TO_RUN if "curl" not in line))


@pytest.fixture(scope="module")
def folder(twin_repository: Path) -> Path:
    """Folder with what the commands read: twins of MNIST and two tables, tables, labelled rows, a report, a model."""
    folder = twin_repository.parent
    rng = np.random.default_rng(0)
    houses = rng.uniform(size=(200, 4))
    rows = [",".join(f"{value:.4f}" for value in (*house, house.sum())) for house in houses]
    (folder / "houses.csv").write_text("\n".join(["rooms,area,age,distance,price", *rows]))
    (folder / "old.csv").write_text("\n".join(["rooms,area,age,distance,price", *rows[:9]]))
    (folder / "new.csv").write_text(
        "\n".join(["rooms,area,age,distance", *(row.rpartition(",")[0] for row in rows[:9])])
    )
    birds = [f"{('Torgersen', 'Dream')[i % 2]},{30 + i % 17},{('f', 'm', '')[i % 3]},{'ab'[i % 2]}" for i in range(120)]
    (folder / "penguins.csv").write_text("\n".join(["island,bill_length_mm,sex,species", *birds]))
    shell("kronmodel train --data houses.csv --target price --epochs 1", folder)
    shell("kronmodel train --data penguins.csv --target species --epochs 1", folder)
    np.save(folder / "X.npy", rng.uniform(size=(20, 784)).astype(np.float32))
    np.save(folder / "y.npy", np.arange(20) % 10)
    shutil.copy(folder / "models/mnist-dense/1/model.onnx", folder / "classifier.onnx")
    np.savez(folder / "samples.npz", input=rng.uniform(size=(200, 784)).astype(np.float32))
    shell("kronserve compare mnist-kronecker mnist-dense --seconds 0.4 --json > report.json", folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    with serving(folder / "models") as running:
        yield running


def shell(line: str, folder: Path, codes: tuple[int, ...] = (0,)) -> str:
    """Run a command line with the commands of this environment, and check its exit code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(
        shell, cwd=folder, env=environment() | {"PATH": path}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode in codes, f"{line}: exit code {done.returncode}\n{done.stderr}"
    return done.stdout


def test_tests_that_run_blocks_elsewhere_exist_and_no_reason_is_left_over() -> None:
    assert all((ROOT / test).is_file() for test in ELSEWHERE.values())
    assert all(page in PAGES for page, _ in ELSEWHERE)
    for beginning in NOT_RUN:
        assert any(line.startswith(beginning) for _, line in lines()), beginning


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(line: str, folder: Path) -> None:
    command, redirection, file = line.partition(" >")
    checks = "--check" in command  # repeats the measurement of a report; exit code 1: a figure got worse
    options = [options for beginning, options in SHORTER.items() if command.startswith(beginning) and not checks]
    if command.startswith(("kronmodel train", "torchrun")) and "houses.csv" not in command:
        options.append("--data mnist-5k")
    place = ROOT if command.startswith(".venv/") else folder  # commands for this project's developers
    printed = shell(" ".join([command, *options]) + redirection + file, place, (0, 1) if checks else (0,))
    assert printed or redirection
    assert not redirection or (folder / file.strip()).stat().st_size


@pytest.mark.parametrize("page", sorted({page for page, _ in REQUESTS}))
def test_the_requests_of_a_page_are_answered(page: str, folder: Path, server: Serving) -> None:
    job = ""
    for line in (line for where, line in REQUESTS if where == page):
        command = line.partition("  #")[0].replace("localhost:8000", server.address).replace("/ID", f"/{job}")
        answer = shell(f"{command} --fail-with-body", folder)
        if re.search(r"/api/trainings (-F|--json)", line):
            job = json.loads(answer)["id"]
            wait_until(partial(has_ended, server, job), seconds=120)


def test_the_request_of_the_comparison_page_is_answered(server: Serving) -> None:
    (body,) = [code for page, code in blocks("json") if page == "docs/comparison.md"]
    report = server.client.post("/api/compare", json=json.loads(body) | {"seconds": 1})
    assert report.is_success
    pairs = [*report.json()["pairs"], *report.json()["service_pairs"]]
    assert {pair["depth"] for pair in pairs} == {"session", "queue", "http"}


def has_ended(server: Serving, job: str) -> bool:
    """Whether a training is done; it must not fail."""
    training = server.client.get(f"/api/trainings/{job}").json()
    assert training["status"] in {"running", "done"}, training
    return bool(training["status"] == "done")
