"""A measuring process (`python -m app.measure.children.service`): latency through the queue and over HTTP.

It starts a service of its own on the loopback, with the compared models only, and anew for each series: what a process
is lucky or unlucky with, such as where its memory lies, should not pass for a property of a model.
"""

import gc
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.measure import bootstrap, timing
from app.measure.timed_session import Array, Refused
from app.processes import child

START_SECONDS = 60.0
ANSWER_SECONDS = 120.0
MAX_BODY_BYTES = 16 * 2**20
SERIES = 5  # three would all lie on one side by chance once in four times
MIN_SERIES = 3
STARTS_SECONDS = 10.0  # for starting services again and again


def main() -> None:
    """Do the job."""
    job = child.receive()
    gc.disable()  # no collection in the middle of a timed request
    try:
        child.send(result=_measure(job))
    except Refused as error:
        child.send(refused=str(error))


def _measure(job: Mapping[str, Any]) -> dict[str, object]:
    """`Latency` and `Pair` fields at both depths, for the batch sizes whose requests are not too long."""
    models, seed = job["models"], job["seed"]
    rows = timing.Inputs(
        [Path(model["samples"]) for model in models], own=job["own"], largest_batch=max(job["batch_sizes"]), seed=seed
    )
    service = Service(job)
    try:
        start = time.monotonic()
        first = [service.open(position) for position in range(len(models))]
        series = max(MIN_SERIES, min(SERIES, int(STARTS_SECONDS / (time.monotonic() - start))))
        sizes = [
            size
            for size in job["batch_sizes"]
            if all(len(remote.feed(rows.of(remote), 1)) * size <= MAX_BODY_BYTES for remote in first)
        ]
        if not sizes:
            return {"depths": {}, "series": None}
        service.opened.clear()  # the first series has the service that is there
        times = timing.measure(
            [partial(service.open, position) for position in range(len(models))],
            rows,
            sizes,
            seconds_per_cell=job["seconds_per_cell"],
            seed=seed,
            series=series,
            stage="service",
            alike=True,  # most of a request is the same whatever the model is; so should its surroundings be
        )
    finally:
        service.stop()
    inner = [
        [service.inner(position, size, cell[position].shape) for position in range(len(models))]
        for size, cell in zip(sizes, times, strict=True)
    ]
    return {
        "depths": {"queue": bootstrap.tables(inner, sizes, seed), "http": bootstrap.tables(times, sizes, seed)},
        "series": len(times[0][0]),
    }


class Remote:
    """One model of the service under measurement, as a client has it."""

    def __init__(self, name: str, connection: http.client.HTTPConnection) -> None:
        self.name = name
        self._connection = connection
        self._inner: dict[int, list[int]] = {}
        info = json.loads(self._answer("GET", f"/api/models/{name}", None))
        self.row_shape: tuple[int, ...] = tuple(info["inputs"][0]["shape"][1:])

    def check_batch(self, batch_size: int) -> None:
        """The service refuses what the model does not take."""

    def feed(self, rows: Array, batch_size: int) -> bytes:
        """The body of a request."""
        inputs = np.resize(rows, (batch_size, *self.row_shape)).tolist()
        return json.dumps({"inputs": inputs, "models": [self.name]}, separators=(",", ":")).encode()

    def run(self, feed: bytes) -> list[Any]:
        """One request; the service itself refuses outputs that are not finite."""
        self._answer("POST", "/api/predict", feed)
        return []

    def time(self, feed: bytes, runs: int) -> list[int]:
        """Nanoseconds of each of `runs` requests, as the client sees them."""
        clock, answers, times = time.perf_counter_ns, [], []
        self._answer("POST", "/api/predict", feed)  # not counted: it brings the model back into the cache
        for _ in range(runs):
            start = clock()
            answers.append(self._answer("POST", "/api/predict", feed))
            times.append(clock() - start)
        for answer in answers:  # read after all of them, so that this does not cool the caches in between
            (result,) = json.loads(answer)["results"]
            inner = self._inner.setdefault(len(result["outputs"]), [])
            inner.append(round(1000 * (result["queue_us"] + result["compute_us"])))
        return times

    def inner(self, batch_size: int, count: int) -> list[int]:
        """Of the last `count` timed requests, the nanoseconds that the service says it waited and computed."""
        return self._inner[batch_size][-count:]

    def _answer(self, method: str, path: str, body: bytes | None) -> bytes:
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = self._connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise Refused(
                f"{self.name}: its service answers {response.status}: {content[:300].decode(errors='replace')}"
            )
        return content


class Service:
    """The service under measurement; opening a model a second time starts it anew."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._remotes: list[list[Remote]] = [[] for _ in job["models"]]
        self.opened: set[int] = set()

    def open(self, position: int) -> Remote:
        """A model of the job, in a service that has not had it opened before."""
        if self._process is None or position in self.opened:
            self.stop()
            self._start()
            self.opened.clear()
        self.opened.add(position)
        assert self._connection is not None
        remote = Remote(self._job["models"][position]["name"], self._connection)
        self._remotes[position].append(remote)
        return remote

    def inner(self, position: int, batch_size: int, shape: Sequence[int]) -> bootstrap.Times:
        """Times (series, rounds, runs) inside of the service, as many as were taken outside of it."""
        series, rounds, runs = shape
        remotes = self._remotes[position][-series:]
        times = [remote.inner(batch_size, rounds * runs) for remote in remotes]
        return np.array(times, dtype=np.int64).reshape(series, rounds, runs)

    def stop(self) -> None:
        """End it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        port = _free_port()
        environment = self._job["environment"] | {"KRON_PORT": str(port)}
        with tempfile.TemporaryFile() as errors:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "app.cli.service_child"],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
            assert process.stdin is not None
            # Kept open: its end is how the service notices that this process is gone.
            process.stdin.write(json.dumps({"environment": environment}).encode() + b"\n")
            process.stdin.flush()
            deadline = time.monotonic() + START_SECONDS
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
            while not _is_ready(self._connection):
                if process.poll() is not None or time.monotonic() > deadline:
                    errors.seek(0)
                    lines = errors.read().decode(errors="replace").strip().splitlines()
                    raise Refused(
                        f"a service of these models did not start: {lines[-1][:300] if lines else 'no reason'}"
                    )
                time.sleep(0.02)


def _is_ready(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/v2/health/ready")
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    return response.status == http.client.OK


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
