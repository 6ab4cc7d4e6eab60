"""Measuring process: latency of the queue and of HTTP (`python -m app.measure.children.service`).

It starts a service of the compared models on the loopback, anew for each series, so that properties of one process,
such as the placement of its memory, are not taken for properties of a model.
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
from app.measure.timing import Array, Refused

START_SECONDS = 60.0  # until the service is ready
RESPONSE_SECONDS = 120.0
MAX_BODY_BYTES = 16 * 2**20
SERIES = 5  # the ratios of three series would all lie on one side by chance in one of four comparisons
MIN_SERIES = 3
ALL_STARTS_SECONDS = 10.0  # spent at most on starting the service again and again


def main() -> None:
    """Receive a job, measure, and send the result."""
    gc.disable()  # no collection in the middle of a timed request
    timing.run_job(_measure)


def _measure(job: Mapping[str, Any]) -> dict[str, object]:
    """Time requests at the batch sizes whose bodies are at most `MAX_BODY_BYTES` long.

    Returns:
        Fields of `Latency` and `Pair` by layer (`queue` and `http`), and the number of series.
    """
    models, seed = job["models"], job["seed"]
    rows = timing.InputRows(
        [Path(model["samples"]) for model in models],
        uploaded=job["uploaded"],
        largest_batch=max(job["batch_sizes"]),
        seed=seed,
    )
    service = ServiceUnderTest(job)
    try:
        start = time.monotonic()
        remotes = [service.open(position) for position in range(len(models))]
        series = max(MIN_SERIES, min(SERIES, int(ALL_STARTS_SECONDS / (time.monotonic() - start))))
        sizes = [
            size
            for size in job["batch_sizes"]
            if all(len(remote.feed(rows.rows_for(remote), 1)) * size <= MAX_BODY_BYTES for remote in remotes)
        ]
        if not sizes:
            return {"layers": {}, "series": None}
        service.opened.clear()  # the first series uses the service that has just been started
        times = timing.time_models(
            [partial(service.open, position) for position in range(len(models))],
            rows,
            sizes,
            seconds_per_cell=job["seconds_per_cell"],
            seed=seed,
            series=series,
            stage="service",
            equal_runs=True,  # most of a request does not depend on the model, so neither should its conditions
        )
    finally:
        service.stop()
    queue_times = [
        [service.queue_times(position, size, cell[position].shape) for position in range(len(models))]
        for size, cell in zip(sizes, times, strict=True)
    ]
    return {
        "layers": {
            "queue": bootstrap.latencies_and_ratios(queue_times, sizes, seed),
            "http": bootstrap.latencies_and_ratios(times, sizes, seed),
        },
        "series": len(times[0][0]),
    }


class RemoteModel:
    """A model of the service under test, as its clients see it.

    Args:
        name: name of the model.
        connection: connection to the service, shared with other models.
    """

    def __init__(self, name: str, connection: http.client.HTTPConnection) -> None:
        self.name = name
        self._connection = connection
        self._queue_ns: dict[int, list[int]] = {}  # by batch size, one for each timed request
        info = json.loads(self._request("GET", f"/api/models/{name}", None))
        self.row_shape: tuple[int, ...] = tuple(info["inputs"][0]["shape"][1:])

    def check_batch(self, batch_size: int) -> None:
        """Do nothing: the service itself refuses a batch size that the model does not take."""

    def feed(self, rows: Array, batch_size: int) -> bytes:
        """Encode the body of a prediction request: `rows` repeated or cut to the batch size."""
        inputs = np.resize(rows, (batch_size, *self.row_shape)).tolist()
        return json.dumps({"inputs": inputs, "models": [self.name]}, separators=(",", ":")).encode()

    def run(self, feed: bytes) -> list[Any]:
        """Send one request; no outputs are returned, because the service itself refuses those that are not finite."""
        self._request("POST", "/api/predict", feed)
        return []

    def time(self, feed: bytes, runs: int) -> list[int]:
        """Send `runs` requests and return the nanoseconds of each, from sending it to the end of its response."""
        clock, responses, times = time.perf_counter_ns, [], []
        self._request("POST", "/api/predict", feed)  # not counted: brings the model back into the CPU's cache
        for _ in range(runs):
            start = clock()
            responses.append(self._request("POST", "/api/predict", feed))
            times.append(clock() - start)
        for response in responses:  # parsed afterwards, which would otherwise evict the cache between requests
            (result,) = json.loads(response)["results"]
            queue_ns = self._queue_ns.setdefault(len(result["outputs"]), [])
            queue_ns.append(round(1000 * (result["queue_us"] + result["compute_us"])))
        return times

    def queue_times(self, batch_size: int, count: int) -> list[int]:
        """Queue time plus compute time in nanoseconds, as the service reported for the last `count` timed requests."""
        return self._queue_ns[batch_size][-count:]

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        """Send a request and read the response.

        Raises:
            Refused: the service responds with an error.
        """
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = self._connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise Refused(
                f"{self.name}: its service answers {response.status}: {content[:300].decode(errors='replace')}"
            )
        return content


class ServiceUnderTest:
    """A service in a child process, restarted when a model is opened for the second time.

    Args:
        job: the job of the measuring process, with the models and the service's environment.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._remotes: list[list[RemoteModel]] = [[] for _ in job["models"]]
        self.opened: set[int] = set()

    def open(self, position: int) -> RemoteModel:
        """Open a model of the job, in a process in which it was not opened before."""
        if self._process is None or position in self.opened:
            self.stop()
            self._start()
            self.opened.clear()
        self.opened.add(position)
        assert self._connection is not None
        remote = RemoteModel(self._job["models"][position]["name"], self._connection)
        self._remotes[position].append(remote)
        return remote

    def queue_times(self, position: int, batch_size: int, shape: Sequence[int]) -> bootstrap.Times:
        """Times (series, rounds, runs) of the layer `queue`, for the requests that were timed at the layer `http`."""
        series, rounds, runs = shape
        remotes = self._remotes[position][-series:]
        times = [remote.queue_times(batch_size, rounds * runs) for remote in remotes]
        return np.array(times, dtype=np.int64).reshape(series, rounds, runs)

    def stop(self) -> None:
        """Kill the service's process if it is running."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        """Start the service and wait until it is ready.

        Raises:
            Refused: it does not start within `START_SECONDS`.
        """
        port = _free_port()
        environment = self._job["environment"] | {"KRON_PORT": str(port)}
        with tempfile.TemporaryFile() as errors:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "app.cli.service_child"],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
            assert process.stdin is not None
            # The pipe stays open: at its end the service notices that this process is gone.
            process.stdin.write(json.dumps({"environment": environment}).encode() + b"\n")
            process.stdin.flush()
            deadline = time.monotonic() + START_SECONDS
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RESPONSE_SECONDS)
            while not _is_ready(self._connection):
                if process.poll() is not None or time.monotonic() > deadline:
                    errors.seek(0)
                    lines = errors.read().decode(errors="replace").strip().splitlines()
                    raise Refused(
                        f"a service of these models did not start: {lines[-1][:300] if lines else 'it gave no reason'}"
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
