"""What a comparison measures, from the inside of the measuring processes (`python -m app.probe`).

Imports numpy and onnxruntime only, for the memory of this process is a result.
"""

import base64
import gc
import itertools
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import child, stats
from app.samples import SamplesError, read_samples
from app.session import ORT_ERRORS, DeviceUnavailable, open_session, why

# A graph of one Identity node on float32 [1]: the baseline of memory has all that any session costs.
EMPTY_MODEL = base64.b64decode(
    "CAg6OwoQCgF4EgF5IghJZGVudGl0eRIFZW1wdHlaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAN"
)
ROUNDS = 40
MIN_ROUNDS = 8
MAX_RUNS_PER_BLOCK = 60
WARM_UP_RUNS = 20
WARM_UP_SECONDS = 0.2

Array = NDArray[np.float32]
INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class Refused(Exception):  # noqa: N818
    """The job cannot be done; the client can be told why."""


class Subject:
    """One model under measurement."""

    def __init__(self, name: str, path: str, *, device: str, threads: int) -> None:
        self.name = name
        try:
            self._session = open_session(path, device=device, threads=threads)
        except DeviceUnavailable as error:
            raise Refused(f"device: got 'cuda': {error}") from None
        except ORT_ERRORS as error:
            raise Refused(f"{name}: onnxruntime refuses it: {why(error)}") from None
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in INPUT_TYPES or len(inputs[0].shape) < 2:
            raise Refused(f"{name}: got {len(inputs)} inputs, expected one float tensor [batch, ...]")
        self._batch, *row_shape = inputs[0].shape
        if not all(isinstance(size, int) and size > 0 for size in row_shape):
            raise Refused(f"{name}: got input shape {inputs[0].shape}, expected rows of a fixed shape")
        self.row_shape: tuple[int, ...] = tuple(row_shape)
        self._input, self._dtype = inputs[0].name, INPUT_TYPES[inputs[0].type]
        self.provider: str = self._session.get_providers()[0]

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch size that the graph does not take."""
        if isinstance(self._batch, int) and self._batch not in (-1, batch_size):
            raise Refused(f"batch_sizes: got {batch_size}, expected {self._batch}: {self.name} has a fixed batch size")

    def feed(self, rows: Array, batch_size: int) -> dict[str, NDArray[Any]]:
        """The rows, repeated or cut to the batch size, as the session takes them."""
        return {self._input: np.resize(rows, (batch_size, *self.row_shape)).astype(self._dtype)}

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[Any]:
        """One run, all outputs."""
        try:
            outputs: list[Any] = self._session.run(None, feed)
        except ORT_ERRORS as error:
            raise Refused(f"{self.name}: onnxruntime failed: {why(error)}") from None
        return outputs

    def time(self, feed: Mapping[str, NDArray[Any]], runs: int) -> list[int]:
        """Nanoseconds of each of `runs` runs, after an uncounted one that brings the model back into the cache."""
        run, clock = self._session.run, time.perf_counter_ns
        run(None, feed)
        times = []
        for _ in range(runs):
            start = clock()
            run(None, feed)
            times.append(clock() - start)
        return times


def main() -> None:
    """Do the job: `memory` of one model, or `latency` of several."""
    job = child.receive()
    gc.disable()  # no collection in the middle of a timed run
    try:
        child.send(result=memory(job) if job["kind"] == "memory" else latency(job))
    except Refused as error:
        child.send(refused=str(error))


def memory(job: Mapping[str, Any]) -> dict[str, object]:
    """Memory, time to load and first run of one model; the process does nothing else."""
    device, threads = job["device"], job["threads"]
    model = job["models"][0]
    rng = np.random.default_rng(job["seed"])
    try:
        empty = open_session(EMPTY_MODEL, device=device, threads=threads)
    except DeviceUnavailable as error:
        raise Refused(f"device: got 'cuda': {error}") from None
    empty.run(None, {"x": np.zeros(1, np.float32)})
    baseline = resident_bytes()

    start = time.perf_counter_ns()
    subject = Subject(model["name"], model["path"], device=device, threads=threads)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    loaded = resident_bytes()

    first_run_ms = None
    for batch_size in job["batch_sizes"]:
        subject.check_batch(batch_size)
        feed = subject.feed(rng.random((batch_size, *subject.row_shape), np.float32), batch_size)
        start = time.perf_counter_ns()
        subject.run(feed)
        first_run_ms = first_run_ms or (time.perf_counter_ns() - start) / 1e6
        subject.run(feed)
    return {
        "provider": subject.provider,
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "memory": {
            "baseline_rss_bytes": baseline,
            "loaded_rss_bytes": loaded,
            "peak_rss_bytes": peak_bytes(),
        },
    }


def latency(job: Mapping[str, Any]) -> dict[str, object]:
    """Times of all models at all batch sizes, in interleaved blocks, and what they say about each pair."""
    subjects = [
        Subject(model["name"], model["path"], device=job["device"], threads=job["threads"]) for model in job["models"]
    ]
    rows, source = inputs_of(subjects, job)
    rng = np.random.default_rng(job["seed"])
    latencies: list[list[object]] = [[] for _ in subjects]
    pairs = []
    rounds = 0
    for batch_size in job["batch_sizes"]:
        feeds = [subject.feed(rows[subject.row_shape], batch_size) for subject in subjects]
        times = interleaved(subjects, feeds, batch_size, job["seconds_per_cell"], rng)
        rounds = max(rounds, len(times[0]))
        for index, of_model in enumerate(times):
            latencies[index].append(stats.summary(of_model, batch_size))
        medians = stats.bootstrap_medians(times, job["seed"])
        for a, b in itertools.combinations(range(len(subjects)), 2):
            low, high = stats.interval(medians[b] / medians[a])
            ratio = float(np.median(times[b]) / np.median(times[a]))
            pairs.append({"a": a, "b": b, "batch_size": batch_size, "ratio": ratio, "low": low, "high": high})
    return {"latencies": latencies, "pairs": pairs, "inputs": source, "rounds": rounds}


def interleaved(
    subjects: Sequence[Subject],
    feeds: Sequence[Mapping[str, NDArray[Any]]],
    batch_size: int,
    seconds_per_cell: float,
    rng: np.random.Generator,
) -> list[stats.Times]:
    """Times (rounds, runs) of each model; in each round every model has two blocks, in a random order and its reverse.

    So whatever drifts, the clock rate or the neighbours, drifts for all of them alike.
    """
    per_run = [_warm_up(subject, feed, batch_size) for subject, feed in zip(subjects, feeds, strict=True)]
    rounds = max(MIN_ROUNDS, min(ROUNDS, int(seconds_per_cell / (2 * max(per_run)))))
    block_seconds = seconds_per_cell / (2 * rounds)
    runs = [max(1, min(MAX_RUNS_PER_BLOCK, int(block_seconds / seconds))) for seconds in per_run]
    times: list[list[list[int]]] = [[] for _ in subjects]
    for index in range(rounds):
        if index % math.ceil(rounds / 4) == 0:
            child.send(progress=f"latency at batch size {batch_size}")
        for of_model in times:
            of_model.append([])
        order = rng.permutation(len(subjects)).tolist()
        for position in [*order, *reversed(order)]:
            times[position][-1] += subjects[position].time(feeds[position], runs[position])
    return [np.array(of_model, dtype=np.int64) for of_model in times]


def _warm_up(subject: Subject, feed: Mapping[str, NDArray[Any]], batch_size: int) -> float:
    """Run this shape until it is warm, check what comes out; the seconds of one run."""
    subject.check_batch(batch_size)
    for output in subject.run(feed):
        if isinstance(output, np.ndarray) and output.dtype.kind == "f" and not np.isfinite(output).all():
            raise Refused(f"{subject.name}: the outputs at batch size {batch_size} are not finite")
    times: list[int] = []
    while len(times) < 3 or (len(times) < WARM_UP_RUNS and sum(times) < WARM_UP_SECONDS * 1e9):
        times += subject.time(feed, 1)
    return float(np.median(times)) / 1e9


def inputs_of(subjects: Sequence[Subject], job: Mapping[str, Any]) -> tuple[dict[tuple[int, ...], Array], str]:
    """Rows for each row shape, the same for all models that share it; and where they come from.

    They are the samples of the first model that has some, else uniform random numbers from the job's seed.
    """
    rows: dict[tuple[int, ...], Array] = {}
    sources = []
    largest = max(job["batch_sizes"])
    for subject, model in zip(subjects, job["models"], strict=True):
        if subject.row_shape in rows or not Path(model["samples"]).exists():
            continue
        try:
            samples = read_samples(Path(model["samples"]), subject.row_shape)
        except SamplesError:
            continue  # the service has said so in its log when it loaded the model
        if len(samples):
            rows[subject.row_shape] = samples.inputs[:largest].copy()
            sources.append(f"samples of {subject.name}")
    for subject in subjects:
        if subject.row_shape not in rows:
            rng = np.random.default_rng(job["seed"])
            rows[subject.row_shape] = rng.random((largest, *subject.row_shape), np.float32)
            sources.append("seeded random numbers")
    return rows, ", ".join(dict.fromkeys(sources))


def resident_bytes() -> int | None:
    """Resident memory of this process now; None where the system does not tell."""
    return _proc_bytes("/proc/self/smaps_rollup", "Rss:") or _proc_bytes("/proc/self/status", "VmRSS:")


def peak_bytes() -> int | None:
    """The most resident memory that this process ever had."""
    peak = _proc_bytes("/proc/self/status", "VmHWM:")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _proc_bytes(path: str, key: str) -> int | None:
    try:
        with open(path) as lines:  # noqa: PTH123 - pathlib would read it whole
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
    except OSError:
        return None


if __name__ == "__main__":
    main()
