"""Prometheus metrics of one service, in a registry of its own."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from app.model import Model

_SECONDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 10,
)  # fmt: skip
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """What happened since the start."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._predictions = Counter(
            "kron_predictions", "Predictions by model and outcome.", ["model", "version", "outcome"], registry=registry
        )
        self._failures = Counter("kron_failures", "Requests refused or failed.", ["reason"], registry=registry)
        self._queue = Histogram("kron_queue_seconds", "Waiting for a thread.", registry=registry, buckets=_SECONDS)
        self._compute = Histogram(
            "kron_compute_seconds", "Running a model.", ["model", "version"], registry=registry, buckets=_SECONDS
        )
        self._rows = Histogram("kron_batch_rows", "Rows of a request.", ["model"], registry=registry, buckets=_ROWS)
        self._comparisons = Counter("kron_comparisons", "Comparisons by outcome.", ["outcome"], registry=registry)
        self._shadow_rows = Counter("kron_shadow_rows", "Rows scored on the shadow.", registry=registry)
        self._shadow_disagreements = Counter(
            "kron_shadow_disagreements", "Rows that the shadow labels otherwise.", registry=registry
        )
        self._shadow_skipped = Counter(
            "kron_shadow_skipped", "Requests sampled but not scored.", ["reason"], registry=registry
        )
        self._shadow_drift = Gauge(
            "kron_shadow_largest_drift", "The most that one probability or value differed.", registry=registry
        )
        self._shadow_compute = Histogram(
            "kron_shadow_compute_seconds", "Running a scored request.", ["role"], registry=registry, buckets=_SECONDS
        )
        self._largest = 0.0
        self._sweeps = Counter("kron_sweeps", "Sweeps by outcome.", ["outcome"], registry=registry)
        self._info = Gauge(
            "kron_model_info",
            "1 for each served model.",
            ["model", "version", "provider", "threads"],
            registry=registry,
        )

    def serving(self, model: "Model") -> None:
        """A model is ready; its series start at 0."""
        version = model.artifact.version
        self._info.labels(model.name, version, model.engine.provider, model.engine.threads).set(1)
        self._predictions.labels(model.name, version, "ok")
        self._predictions.labels(model.name, version, "error")

    def predicted(self, model: "Model", *, rows: int, queue_us: float, compute_us: float) -> None:
        """A model answered a request."""
        self._predictions.labels(model.name, model.artifact.version, "ok").inc()
        self._queue.observe(queue_us / 1e6)
        self._compute.labels(model.name, model.artifact.version).observe(compute_us / 1e6)
        self._rows.labels(model.name).observe(rows)

    def not_predicted(self, model: "Model") -> None:
        """A model did not answer a request."""
        self._predictions.labels(model.name, model.artifact.version, "error").inc()

    def failed(self, reason: str) -> None:
        """A request was answered by an error; `reason` is one of few words."""
        self._failures.labels(reason).inc()

    def compared(self, outcome: str) -> None:
        """A comparison ended."""
        self._comparisons.labels(outcome).inc()

    def swept(self, outcome: str) -> None:
        """A sweep ended."""
        self._sweeps.labels(outcome).inc()

    def shadowed(self, *, rows: int, disagreements: int, largest: float, primary_us: float, shadow_us: float) -> None:
        """A request was scored on the shadow."""
        self._shadow_rows.inc(rows)
        self._shadow_disagreements.inc(disagreements)
        self._largest = max(self._largest, largest)
        self._shadow_drift.set(self._largest)
        self._shadow_compute.labels("primary").observe(primary_us / 1e6)
        self._shadow_compute.labels("shadow").observe(shadow_us / 1e6)

    def shadow_dropped(self) -> None:
        """A sampled request was not scored: too many were waiting."""
        self._shadow_skipped.labels("dropped").inc()

    def shadow_failed(self) -> None:
        """A sampled request was not scored: the shadow could not be run, or answers something else."""
        self._shadow_skipped.labels("failed").inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
