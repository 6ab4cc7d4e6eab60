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
from app.measure.children.remote_model import RemoteModel, model_info
from app.measure.inputs.arrays import InputArrays
from app.measure.timing import Refused

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
    inputs = InputArrays.load(Path(job["inputs"]))
    service = ServiceUnderTest(job)
    try:
        start = time.monotonic()
        remotes = [service.open(position) for position in range(len(models))]
        series = max(MIN_SERIES, min(SERIES, int(ALL_STARTS_SECONDS / (time.monotonic() - start))))
        sizes = [
            size
            for size in job["batch_sizes"]
            if all(len(remote.feed(inputs, 1).body) * size <= MAX_BODY_BYTES for remote in remotes)
        ]
        notes = _notes(remotes, job["batch_sizes"], sizes)
        if not sizes:
            return {"layers": {}, "series": None, "notes": notes}
        service.opened.clear()  # the first series uses the service that has just been started
        times = timing.time_models(
            [partial(service.open, position) for position in range(len(models))],
            inputs,
            sizes,
            seconds_per_cell=job["seconds_per_cell"],
            max_seconds=job["max_seconds"],
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
        "notes": notes,
    }


def _notes(remotes: Sequence[RemoteModel], requested: Sequence[int], sizes: Sequence[int]) -> list[str]:
    """Remarks about how the service was measured, and at which batch sizes it was not."""
    notes = []
    if not remotes[0].takes_rows:
        notes.append("Queue and HTTP: measured by binary tensors to /v2; /api/predict takes rows of numbers only.")
    if large := [str(size) for size in requested if size not in sizes]:
        notes.append(
            f"Queue and HTTP: not measured at batch size {', '.join(large)}, whose requests are longer than "
            f"{MAX_BODY_BYTES // 2**20} MiB."
        )
    return notes


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
        remote = RemoteModel(self._job["models"][position]["name"], self._connection, takes_rows=self._take_rows())
        self._remotes[position].append(remote)
        return remote

    def _take_rows(self) -> bool:
        """Whether `/api/predict` takes rows of numbers for all models, which get requests of the same kind."""
        assert self._connection is not None
        found = [model_info(model["name"], self._connection) for model in self._job["models"]]
        columns = [((each["card"] or {}).get("input") or {}).get("columns") for each in found]
        return not any(columns) and all(each.get("unusable") is None for each in found)

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
