"""The inference statistics of each model version since it came into service, summed over all workers."""

import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.system.pidfiles import state_file
from app.telemetry.counters import BLOCK_SIZE, Counters

MAX_BATCH_SIZES = 1024

# Indices in the block of a version: time of the last inference, rows, runs, then count and nanoseconds of each stage.
_LAST_MS, _ROWS, _RUNS = range(3)
_STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_SUCCESS, _FAIL, _QUEUE, _INPUT, _INFER, _OUTPUT = range(3, 3 + 2 * len(_STAGES), 2)
# A slot in the blocks of batch sizes: the batch size plus 1, since 0 marks an unused slot; runs; ns of three stages.
_SLOT = 5
_SLOTS = BLOCK_SIZE // _SLOT
_BATCH_STAGES = ("compute_input", "compute_infer", "compute_output")
_SUMS = 3 + 2 * len(_STAGES)
_PACK_SUMS = struct.Struct(f"={_SUMS}d").pack_into
_PACK_BATCH = struct.Struct(f"={_SLOT}d").pack_into


class _Batch(NamedTuple):
    """The slot of one batch size, and its place in the shared memory."""

    sums: list[float]
    block: "memoryview[float]"


class Statistics:
    """Cumulative counts and times of one version, in all workers, those that died included.

    Requests that shared a run each count a part of it by their rows, so that sums over requests are sums over runs.
    Not safe for threads: only the event loop may count.

    Args:
        counters: shared with the other workers.
        name: of the model.
        version: of the model.
    """

    def __init__(self, counters: Counters, name: str, version: str) -> None:
        self._counters = counters
        self._name = name
        self._version = version
        self._block = counters.block(("version", name, version))
        # Adding in a list and writing it as a whole is faster than adding in mapped memory.
        self._sums = [0.0] * _SUMS
        self._batches: dict[int, _Batch] = {}

    def record_success(
        self, *, rows: int, batch_size: int, queue_ns: int, compute_ns: int, input_ns: int = 0, output_ns: int = 0
    ) -> None:
        """Count an answered request.

        Args:
            rows: of the request.
            batch_size: rows of the run, those of other requests included.
            queue_ns: time from the request's arrival at the scheduler to the start of the run.
            compute_ns: time of the run.
            input_ns: time to read the request.
            output_ns: time to write the response.
        """
        fraction = rows / batch_size if batch_size else 1.0
        sums = self._sums
        sums[_LAST_MS] = time.time_ns() // 1_000_000
        sums[_ROWS] += rows
        sums[_RUNS] += fraction
        sums[_SUCCESS] += 1
        sums[_SUCCESS + 1] += queue_ns + compute_ns + input_ns + output_ns
        sums[_QUEUE] += 1
        sums[_QUEUE + 1] += queue_ns
        sums[_INPUT] += 1
        sums[_INPUT + 1] += input_ns
        sums[_INFER] += 1
        sums[_INFER + 1] += compute_ns
        sums[_OUTPUT] += 1
        sums[_OUTPUT + 1] += output_ns
        _PACK_SUMS(self._block, 0, *sums)
        batch = self._batches.get(batch_size)
        if batch is None:
            if len(self._batches) >= MAX_BATCH_SIZES:
                return
            batch = self._add_batch_size(batch_size)
        batch.sums[1] += fraction
        batch.sums[2] += input_ns * fraction
        batch.sums[3] += compute_ns * fraction
        batch.sums[4] += output_ns * fraction
        _PACK_BATCH(batch.block, 0, *batch.sums)

    def record_failure(self, ns: int) -> None:
        """Count a request that was refused or failed after `ns` nanoseconds."""
        self._sums[_FAIL] += 1
        self._sums[_FAIL + 1] += ns
        _PACK_SUMS(self._block, 0, *self._sums)

    def dump(self, memory_usage: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """The sums over all workers in the JSON of the protocol's statistics extension."""
        block = [0.0] * BLOCK_SIZE
        batches: dict[int, list[float]] = {}
        for key, values in self._counters.per_process():
            if key[1:3] != (self._name, self._version):
                continue
            if key[0] == "version":
                last = max(block[_LAST_MS], values[_LAST_MS])
                block = [a + b for a, b in zip(block, values, strict=True)]
                block[_LAST_MS] = last
            else:
                for slot in range(_SLOTS):
                    size, *sums = values[slot * _SLOT : (slot + 1) * _SLOT]
                    if size:
                        before = batches.get(int(size) - 1, [0.0] * (_SLOT - 1))
                        batches[int(size) - 1] = [a + b for a, b in zip(before, sums, strict=True)]
        none = _duration(0, 0)
        return {
            "name": self._name,
            "version": self._version,
            "last_inference": int(block[_LAST_MS]),
            "inference_count": int(block[_ROWS]),
            "execution_count": round(block[_RUNS]),
            "inference_stats": {
                **{name: _duration(*block[3 + 2 * index : 5 + 2 * index]) for index, name in enumerate(_STAGES)},
                "cache_hit": none,
                "cache_miss": none,
            },
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": size,
                    **{name: _duration(runs, ns) for name, ns in zip(_BATCH_STAGES, each, strict=True)},
                }
                for size, (runs, *each) in sorted(batches.items())
            ],
            "memory_usage": list(memory_usage),
        }

    def clear(self) -> None:
        """Set all counts to 0, for a version that leaves service."""
        self._sums[:] = [0.0] * _SUMS
        _PACK_SUMS(self._block, 0, *self._sums)
        for batch in self._batches.values():
            _PACK_BATCH(batch.block, 0, *[0.0] * _SLOT)
        self._batches.clear()

    def _add_batch_size(self, size: int) -> _Batch:
        """Add a slot for a batch size."""
        number, slot = divmod(len(self._batches), _SLOTS)
        block = self._counters.block(("batches", self._name, self._version, str(number)))
        batch = self._batches[size] = _Batch([size + 1, 0, 0, 0, 0], block[slot * _SLOT : (slot + 1) * _SLOT])
        return batch


class StatisticsRegistry:
    """The statistics of all versions. Those of a version that leaves service and returns start at 0.

    Args:
        folder: shared by the workers of a service; None for a single worker.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._counters = Counters(folder, "statistics")
        self._folder = folder
        self._versions: dict[tuple[str, str], Statistics] = {}

    def of(self, name: str, version: str) -> Statistics:
        """Statistics of a model version, created at its first use.

        Raises:
            ModelError: the disk of the folder is full.
        """
        found = self._versions.get((name, version))
        if found is None:
            self._counters.reserve(("version", name, version))
            found = self._versions[name, version] = Statistics(self._counters, name, version)
        return found

    def clear(self, name: str, version: str) -> None:
        """Reset the statistics of a version in this worker and in dead workers; living workers reset their own."""
        self.of(name, version).clear()
        if (folder := self._folder) is not None:
            self._counters.clear_ended(
                lambda key: key[1:3] == (name, version), lambda pid: not state_file(folder, pid).exists()
            )


def _duration(count: float, ns: float) -> dict[str, int]:
    return {"count": round(count), "ns": round(ns)}
