"""What each version of a model has done since it came into service, in all workers, in the words of the protocol."""

import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.system.pidfiles import state_file
from app.telemetry.counters import BLOCK_SIZE, Counters

MAX_BATCH_SIZES = 1024

# Where things are in a version's first block: a time, two sums, and for each stage how often and how long in all.
_LAST_MS, _ROWS, _RUNS = range(3)
_STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_SUCCESS, _FAIL, _QUEUE, _INPUT, _INFER, _OUTPUT = range(3, 3 + 2 * len(_STAGES), 2)
# In the blocks of its batch sizes: rows of a run plus 1, since 0 marks what is unused; runs; ns of three stages.
_SLOT = 5
_SLOTS = BLOCK_SIZE // _SLOT
_BATCH_STAGES = ("compute_input", "compute_infer", "compute_output")
_SUMS = 3 + 2 * len(_STAGES)
_PACK_SUMS = struct.Struct(f"={_SUMS}d").pack_into
_PACK_BATCH = struct.Struct(f"={_SLOT}d").pack_into


class _Batch(NamedTuple):
    """Runs of one batch size."""

    sums: list[float]
    block: "memoryview[float]"


class Statistics:
    """Cumulative counts and times of one version, whichever of the workers is asked, or dies.

    Requests that were run together each count their share of the run, by rows, so that sums over requests are sums
    over runs. Counting belongs to the event loop.

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
        # Lists add up faster than mapped memory, which they are written to as a whole.
        self._sums = [0.0] * _SUMS
        self._batches: dict[int, _Batch] = {}

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
        sums = self._sums
        sums[_LAST_MS] = time.time_ns() // 1_000_000
        sums[_ROWS] += rows
        sums[_RUNS] += share
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
        batch.sums[1] += share
        batch.sums[2] += input_ns * share
        batch.sums[3] += compute_ns * share
        batch.sums[4] += output_ns * share
        _PACK_BATCH(batch.block, 0, *batch.sums)

    def failed(self, ns: int) -> None:
        """A request was refused or failed after `ns`."""
        self._sums[_FAIL] += 1
        self._sums[_FAIL + 1] += ns
        _PACK_SUMS(self._block, 0, *self._sums)

    def dump(self, memory_usage: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """Of all workers, as the protocol says it."""
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
        """The version leaves service."""
        self._sums[:] = [0.0] * _SUMS
        _PACK_SUMS(self._block, 0, *self._sums)
        for batch in self._batches.values():
            _PACK_BATCH(batch.block, 0, *[0.0] * _SLOT)
        self._batches.clear()

    def _add_batch_size(self, size: int) -> _Batch:
        """A place to count runs of that size."""
        number, slot = divmod(len(self._batches), _SLOTS)
        block = self._counters.block(("batches", self._name, self._version, str(number)))
        batch = self._batches[size] = _Batch([size + 1, 0, 0, 0, 0], block[slot * _SLOT : (slot + 1) * _SLOT])
        return batch


class StatisticsBook:
    """The statistics of every version that there is or was: one that comes back begins anew.

    Args:
        folder: of all workers of this service; None where there is one only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._counters = Counters(folder, "statistics")
        self._folder = folder
        self._versions: dict[tuple[str, str], Statistics] = {}

    def of(self, name: str, version: str) -> Statistics:
        """Those of one version."""
        found = self._versions.get((name, version))
        if found is None:
            found = self._versions[name, version] = Statistics(self._counters, name, version)
        return found

    def clear(self, name: str, version: str) -> None:
        """A version leaves service: in this worker, and as each of the others does the same, in all of them."""
        self.of(name, version).clear()
        if (folder := self._folder) is not None:
            self._counters.clear_ended(
                lambda key: key[1:3] == (name, version), lambda pid: not state_file(folder, pid).exists()
            )


def _duration(count: float, ns: float) -> dict[str, int]:
    return {"count": round(count), "ns": round(ns)}
