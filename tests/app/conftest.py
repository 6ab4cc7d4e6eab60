import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import settings

from tests.app.graphs import CARD, LABELS, Array, classifier, heavy, publish, weights
from tests.app.oip_models import publish_all

# The same examples in each run, and no deadline, which a busy machine would exceed.
settings.register_profile("quiet", deadline=None, database=None, derandomize=True)
settings.load_profile("quiet")

KRONECKER = weights([6, 3], seed=1)
DENSE = weights([6, 400, 400, 3], seed=2)
ROWS: Array = np.random.default_rng(3).random((40, 6)).astype(np.float32)
PADDING = 48 * 2**20
PATIENT = {"predict_seconds": 120, "compare_seconds": 250, "grace_seconds": 60}  # for busy machines


def environment(**options: object) -> dict[str, str]:
    """Environment of a child process: this one's, with `options` instead of the `KRON_...` variables that it has."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("KRON_")}
    return clean | {f"KRON_{key.upper()}": str(value) for key, value in options.items()}


class Serving:
    """A running server process and a client of it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address
        self.client = httpx.Client(base_url=address, timeout=250)

    def children(self) -> set[int]:
        return children_of(self.process.pid)

    def wait_until_childless(self) -> None:
        wait_until(lambda: not self.children())


def children_of(pid: int) -> set[int]:
    """Ids of a process's children, from /proc."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(int(child) for child in path.read_text().split())
    return found


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def repeated_predictions(server: "Serving", body: object, headers: dict[str, str] | None = None) -> Iterator[list[int]]:
    """Request the same prediction again and again, in a thread, so that during the block nearly always one is running.

    Yields the status codes of the answers, a list that grows.
    """
    codes: list[int] = []
    content, ended = json.dumps(body).encode(), threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=250, headers=headers) as client:
            while not ended.is_set():
                codes.append(client.post(f"{server.address}/api/predict", content=content).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield codes
    finally:
        ended.set()
        thread.join()


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition was not met within {seconds:g} s"
        time.sleep(0.02)
    return value


@contextmanager
def serving(models: Path, *, expected_code: int = 130, **options: object) -> Iterator[Serving]:
    """Run a server on a free port; at the end of the block, stop it by Ctrl-C and check its exit code and log."""
    with serving_through([], models, options, expected_code) as server:
        yield server


@contextmanager
def serving_through(
    command: Sequence[str], models: Path, options: Mapping[str, object], expected_code: int = 130
) -> Iterator[Serving]:
    """Run a server as `serving` does, as the arguments of a command that executes them."""
    process = subprocess.Popen(
        [*command, sys.executable, "-m", "app", "--port", "0", "--models", str(models)],
        env=environment(**(PATIENT | dict(options))),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = []
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        address = None
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"http://[^ ]+", line):
                address = found.group()
                break
        assert address, f"no address in {lines}: {process.stderr.read()}"
        server = Serving(process, address)
        with server.client:
            yield server
        if process.stderr is not None and not process.stderr.closed:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            assert "Traceback" not in errors, errors
        assert process.returncode == expected_code
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        for pipe in (process.stdout, process.stderr):  # still open if the test killed the server
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repository with a twin with cards and samples, a model without a card, one with a large file, and a slow one."""
    folder = tmp_path_factory.mktemp("models")
    dense_card = CARD | {"name": "small-dense", "role": "dense", "parameters": 163600}
    publish(folder, "small-kronecker", classifier(weights([6, 3], seed=9), card=CARD), version=9)
    path = publish(folder, "small-kronecker", classifier(KRONECKER, card=CARD), version=10)
    labels = np.arange(len(ROWS), dtype=np.int64) % len(LABELS)
    np.savez_compressed(path.with_name("samples.npz"), inputs=ROWS, labels=labels)
    publish(folder, "small-dense", classifier(DENSE, card=dense_card))
    publish(folder, "plain", classifier(KRONECKER, outputs=("logits",)))
    publish(folder, "padded", classifier(KRONECKER, padding_bytes=PADDING))
    publish(folder, "heavy", heavy(width=512, products=150))
    return folder


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Serving]:
    with serving(models) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Serving) -> httpx.Client:
    return server.client


@pytest.fixture(scope="session")
def oip_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Server of models of all datatypes and shapes."""
    folder = tmp_path_factory.mktemp("oip")
    publish_all(folder)
    with serving(folder, version_policy="latest:2", max_body_bytes=200_000) as running:
        yield running


@pytest.fixture(scope="session", params=["fast", "standard"])
def http_mode(request: pytest.FixtureRequest) -> str:
    """Value of `--http`: what asks for it runs with both HTTP servers."""
    mode: str = request.param
    return mode


@pytest.fixture(scope="session")
def oip(oip_server: Serving) -> httpx.Client:
    return oip_server.client
