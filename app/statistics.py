"""What one version of a model has done since it was loaded, as the statistics extension counts it."""

import time
from dataclasses import dataclass, field
from typing import Any

MAX_BATCH_SIZES = 1024


@dataclass(slots=True)
class Duration:
    """How often and how long in all; both only grow. The count is a sum of shares where runs are shared."""

    count: float = 0
    ns: float = 0

    def add(self, ns: float, share: float = 1) -> None:
        """One more, or a share of one."""
        self.count += share
        self.ns += ns * share

    def dump(self) -> dict[str, int]:
        """For JSON."""
        return {"count": round(self.count), "ns": round(self.ns)}


@dataclass(slots=True)
class _Batch:
    """Executions of one batch size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Statistics:
    """Cumulative counts and times; written and read by the event loop only.

    Requests that were run together each count their share of the run, by rows, so that sums over requests are sums
    over runs.
    """

    last_inference_ms: int = 0
    inferences: int = 0
    executions: float = 0
    success: Duration = field(default_factory=Duration)
    failure: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    _batches: dict[int, _Batch] = field(default_factory=dict)

    def succeeded(
        self, *, rows: int, batch_size: int, queue_ns: int, compute_ns: int, input_ns: int = 0, output_ns: int = 0
    ) -> None:
        """A request was answered.

        Args:
            rows: of the request.
            batch_size: rows of the run that it was part of.
            queue_ns: from the hand-over to the start of the run.
            compute_ns: the run.
            input_ns: reading the request.
            output_ns: writing the response.
        """
        share = rows / batch_size if batch_size else 1.0
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.inferences += rows
        self.executions += share
        self.success.add(queue_ns + compute_ns + input_ns + output_ns)
        self.queue.add(queue_ns)
        self.compute_input.add(input_ns)
        self.compute_infer.add(compute_ns)
        self.compute_output.add(output_ns)
        batch = self._batches.get(batch_size)
        if batch is None:
            if len(self._batches) >= MAX_BATCH_SIZES:
                return
            batch = self._batches[batch_size] = _Batch()
        batch.compute_input.add(input_ns, share)
        batch.compute_infer.add(compute_ns, share)
        batch.compute_output.add(output_ns, share)

    def failed(self, ns: int) -> None:
        """A request was refused or failed after `ns`."""
        self.failure.add(ns)

    def dump(self, name: str, version: str) -> dict[str, Any]:
        """As the protocol says it."""
        none = {"count": 0, "ns": 0}
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.inferences,
            "execution_count": round(self.executions),
            "inference_stats": {
                "success": self.success.dump(),
                "fail": self.failure.dump(),
                "queue": self.queue.dump(),
                "compute_input": self.compute_input.dump(),
                "compute_infer": self.compute_infer.dump(),
                "compute_output": self.compute_output.dump(),
                "cache_hit": none,
                "cache_miss": none,
            },
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": batch.compute_input.dump(),
                    "compute_infer": batch.compute_infer.dump(),
                    "compute_output": batch.compute_output.dump(),
                }
                for size, batch in sorted(self._batches.items())
            ],
            "memory_usage": [],
        }
