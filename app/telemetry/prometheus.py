"""Prometheus metrics, summed over all worker processes. Metrics that Triton has, too, have Triton's names."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from app.system.pidfiles import state_file
from app.telemetry.counters import CounterKey, Counters

_SECONDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 10,
)  # fmt: skip
_NANOSECONDS = tuple(round(seconds * 1e9) for seconds in _SECONDS)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Layout of a model version's block. Histograms have one value per bucket, and a last one for larger values.
_SUCCESS, _ROWS_SUM, _RUNS, _REQUEST_NS, _QUEUE_NS, _COMPUTE_NS, _RUN_NS, _RUN_ROWS = range(8)
_FAILURES = {"REJECTED": 8, "CANCELED": 9, "BACKEND": 10, "OTHER": 11}
_REQUEST_BUCKETS = 12
_QUEUE_BUCKETS = _REQUEST_BUCKETS + len(_SECONDS) + 1
_RUN_BUCKETS = _QUEUE_BUCKETS + len(_SECONDS) + 1
_ROWS_BUCKETS = _RUN_BUCKETS + len(_SECONDS) + 1
_PENDING = "nv_inference_pending_request_count"
# Triton's reasons of failure, by the name of the error class; all others are OTHER.
_REASONS = {
    "Overloaded": "REJECTED",
    "TimedOut": "REJECTED",
    "TooManyRequests": "REJECTED",
    "ClientDisconnected": "CANCELED",
    "CancelledError": "CANCELED",
    "ModelError": "BACKEND",
    "OutOfMemory": "BACKEND",
}
_COUNTERS = (
    ("nv_inference_request_success", "Requests answered.", _SUCCESS, 1),
    ("nv_inference_count", "Rows answered.", _ROWS_SUM, 1),
    ("nv_inference_exec_count", "Runs of the model; one may answer several requests.", _RUNS, 1),
    ("nv_inference_request_duration_us", "Total time from parsed request to answer.", _REQUEST_NS, 1000),
    ("nv_inference_queue_duration_us", "Total time that requests waited for a thread.", _QUEUE_NS, 1000),
    ("nv_inference_compute_infer_duration_us", "Total time of the runs of requests.", _COMPUTE_NS, 1000),
)
_HISTOGRAMS = (
    ("kron_request_seconds", "Time from parsed request to answer.", _REQUEST_BUCKETS, _SECONDS, _REQUEST_NS, 1e9),
    ("kron_queue_seconds", "Time that a request waited for a thread.", _QUEUE_BUCKETS, _SECONDS, _QUEUE_NS, 1e9),
    ("kron_compute_seconds", "Time of a run.", _RUN_BUCKETS, _SECONDS, _RUN_NS, 1e9),
    ("kron_batch_rows", "Rows of a run, which may come from several requests.", _ROWS_BUCKETS, _ROWS, _RUN_ROWS, 1),
)


class Metrics:
    """Prometheus metrics since the start of the service, summed over the processes that share a folder.

    Args:
        folder: shared by all workers of the service; None if there is only one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._counters = Counters(folder)
        self._engines: WeakKeyDictionary[object, memoryview[float]] = WeakKeyDictionary()
        self._waiting: WeakKeyDictionary[object, memoryview[float]] = WeakKeyDictionary()
        self._blocks: dict[tuple[str, str], memoryview[float]] = {}
        self._served: dict[tuple[str, str], tuple[str, int]] = {}
        self._drifts: dict[str, float] = {}
        self._process = CollectorRegistry()
        PlatformCollector(registry=self._process)
        if folder is None:  # otherwise memory and CPU time would be those of only one of the workers
            ProcessCollector(registry=self._process)

    def reserve(self, name: str, version: str) -> None:
        """Reserve the counters of a model version that is being loaded.

        Raises:
            ModelError: the disk of the folder is full.
        """
        for key in (("model", name, version), (_PENDING, name, version)):
            self._counters.reserve(key)

    def add_model(self, engine: object, name: str, version: str, *, provider: str, threads: int) -> None:
        """Start to export a model version, with counters of 0 if it is new.

        Args:
            engine: identifies the loaded version in `queued` and `ran`; held by a weak reference.
            name: of the model.
            version: of the model.
            provider: the onnxruntime provider in use.
            threads: intra-op threads of one run.
        """
        self._engines[engine] = self._block(name, version)
        self._waiting[engine] = self._counters.block((_PENDING, name, version))
        self._served[name, version] = (provider, threads)

    def remove_model(self, name: str, version: str) -> None:
        """Remove a model version from `kron_model_info`; its counters stay."""
        self._served.pop((name, version), None)

    def queued(self, engine: object, requests: int) -> None:
        """Add to the number of requests that wait for a model; negative when they stop waiting."""
        block = self._waiting.get(engine)
        if block is not None:
            block[0] += requests

    def ran(self, engine: object, rows: int, run_ns: int) -> None:
        """Count a run of a model.

        Args:
            engine: the model version, as given to `add_model`.
            rows: in the run, from one or several requests.
            run_ns: nanoseconds of the run.
        """
        block = self._engines.get(engine)
        if block is not None:
            block[_RUNS] += 1
            block[_RUN_NS] += run_ns
            block[_RUN_ROWS] += rows
            block[_RUN_BUCKETS + bisect_left(_NANOSECONDS, run_ns)] += 1
            block[_ROWS_BUCKETS + bisect_left(_ROWS, rows)] += 1

    def predicted(self, name: str, version: str, *, rows: int, request_ns: int, queue_ns: int, compute_ns: int) -> None:
        """Count a request that a model version answered; times in nanoseconds."""
        block = self._blocks.get((name, version)) or self._block(name, version)
        block[_SUCCESS] += 1
        block[_ROWS_SUM] += rows
        block[_REQUEST_NS] += request_ns
        block[_QUEUE_NS] += queue_ns
        block[_COMPUTE_NS] += compute_ns
        block[_REQUEST_BUCKETS + bisect_left(_NANOSECONDS, request_ns)] += 1
        block[_QUEUE_BUCKETS + bisect_left(_NANOSECONDS, queue_ns)] += 1

    def not_predicted(self, name: str, version: str, reason: str) -> None:
        """Count a request that a model version did not answer; `reason` is the name of the error class."""
        self._block(name, version)[_FAILURES[_REASONS.get(reason, "OTHER")]] += 1

    def failed(self, reason: str) -> None:
        """Count an error response; `reason`, such as the name of the error class, must have few different values."""
        self._counters.block(("kron_failures_total", "reason", reason))[0] += 1

    def job_ended(self, kind: str, outcome: str) -> None:
        """Count a job that ended; `kind` is comparison, sweep or training."""
        self._counters.block((f"kron_{kind}s_total", "outcome", outcome))[0] += 1

    def shadowed(self, shadow: str, *, rows: int, disagreements: int, primary_ns: int, shadow_ns: int) -> None:
        """Count a request that was also scored by the shadow model.

        Args:
            shadow: name of the shadow model.
            rows: of the request.
            disagreements: rows that the two models label differently.
            primary_ns: nanoseconds of the primary model's run.
            shadow_ns: nanoseconds of the shadow model's run.
        """
        for name, value in (
            ("kron_shadow_requests_total", 1),
            ("kron_shadow_rows_total", rows),
            ("kron_shadow_disagreements_total", disagreements),
            ("kron_shadow_primary_seconds_total", primary_ns / 1e9),
            ("kron_shadow_seconds_total", shadow_ns / 1e9),
        ):
            self._counters.block((name, "shadow", shadow))[0] += value

    def shadow_drift(self, shadow: str, largest: float) -> None:
        """Set the largest difference of a probability or value between primary and shadow model, in this process."""
        self._drifts[shadow] = largest

    def shadow_skipped(self, reason: str) -> None:
        """Count a sampled request that the shadow model did not score; `reason` is `dropped` or `failed`."""
        self._counters.block(("kron_shadow_skipped_total", "reason", reason))[0] += 1

    def text(self) -> bytes:
        """Export all metrics in Prometheus' text format."""
        if (folder := self._folder) is not None:  # no request waits in a process that has ended
            self._counters.clear_ended(lambda key: key[0] == _PENDING, lambda pid: not state_file(folder, pid).exists())
        return "\n".join([*self._lines(), ""]).encode() + generate_latest(self._process)

    def _block(self, name: str, version: str) -> "memoryview[float]":
        block = self._blocks[name, version] = self._counters.block(("model", name, version))
        return block

    def _lines(self) -> Iterator[str]:
        totals = self._counters.totals()
        models = {_labels(model=key[1], version=key[2]): block for key, block in totals.items() if key[0] == "model"}
        for name, text, index, unit in _COUNTERS:
            yield from _metadata(name, text, "counter")
            for labels, block in models.items():
                yield f"{name}{{{labels}}} {_number(block[index] / unit)}"
        yield from _metadata(
            "nv_inference_request_failure", "Requests that a model did not answer, by Triton's reasons.", "counter"
        )
        for labels, block in models.items():
            for reason, index in _FAILURES.items():
                yield f'nv_inference_request_failure{{{labels},reason="{reason}"}} {_number(block[index])}'
        for name, text, first, bounds, total, divisor in _HISTOGRAMS:
            yield from _metadata(name, text, "histogram")
            for labels, block in models.items():
                yield from _histogram(
                    name, labels, bounds, block[first : first + len(bounds) + 1], block[total] / divisor
                )
        for name, text in (
            ("kron_failures_total", "Error responses, by the name of the error."),
            ("kron_comparisons_total", "Comparisons by outcome."),
            ("kron_sweeps_total", "Sweeps by outcome."),
            ("kron_trainings_total", "Trainings by outcome."),
            ("kron_shadow_requests_total", "Requests scored by the shadow model."),
            ("kron_shadow_rows_total", "Rows scored by the shadow model."),
            ("kron_shadow_disagreements_total", "Rows that the shadow model labels differently."),
            ("kron_shadow_primary_seconds_total", "Total time of the primary model's runs of scored requests."),
            ("kron_shadow_seconds_total", "Total time of the shadow model's runs of scored requests."),
            ("kron_shadow_skipped_total", "Requests sampled but not scored by the shadow model."),
        ):
            yield from _metadata(name, text, "counter")
            for key, block in totals.items():
                if key[0] == name:
                    yield f"{name}{{{_labels(**{key[1]: key[2]})}}} {_number(block[0])}"
        yield from self._gauges(totals)

    def _gauges(self, totals: Mapping[CounterKey, Sequence[float]]) -> Iterator[str]:
        yield from _metadata(_PENDING, "Requests that are waiting for a thread.", "gauge")
        for key, block in totals.items():
            if key[0] == _PENDING:
                yield f"{_PENDING}{{{_labels(model=key[1], version=key[2])}}} {_number(block[0])}"
        yield from _metadata(
            "kron_shadow_largest_drift",
            "Largest difference of a probability or value, in the worker that answers this request.",
            "gauge",
        )
        for shadow, largest in self._drifts.items():
            yield f"kron_shadow_largest_drift{{{_labels(shadow=shadow)}}} {_number(largest)}"
        yield from _metadata("kron_model_info", "1 for each model version that is served.", "gauge")
        for (name, version), (provider, threads) in self._served.items():
            labels = _labels(model=name, provider=provider, threads=str(threads), version=version)
            yield f"kron_model_info{{{labels}}} 1"


def _metadata(name: str, text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _labels(**labels: str) -> str:
    escaped: Mapping[str, str] = {
        key: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, value in labels.items()
    }
    return ",".join(f'{key}="{value}"' for key, value in escaped.items())


def _histogram(
    name: str, labels: str, bounds: Sequence[float], buckets: Sequence[float], total: float
) -> Iterator[str]:
    count = 0.0
    for bound, bucket in zip([*map(str, bounds), "+Inf"], buckets, strict=True):
        count += bucket
        yield f'{name}_bucket{{{labels},le="{bound}"}} {_number(count)}'
    yield f"{name}_sum{{{labels}}} {_number(total)}"
    yield f"{name}_count{{{labels}}} {_number(count)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
