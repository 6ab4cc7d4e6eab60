"""Measuring process: memory of one model, or latency of several (`python -m app.measure.children.session`).

Imports numpy and onnxruntime only, because the memory of this process is a result.
"""

import gc
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.inference.session import CUDA, EMPTY_MODEL, DeviceUnavailable, open_session
from app.measure import bootstrap, timing
from app.measure.inputs.arrays import InputArrays
from app.measure.timed_session import TimedSession
from app.measure.timing import Refused
from app.system.gpu import device_bytes
from app.system.process_memory import peak_bytes, resident_bytes


def main() -> None:
    """Receive a job of the kind `memory` or `latency`, measure, and send the result."""
    gc.disable()  # no collection in the middle of a timed run
    timing.run_job(lambda job: _measure_memory(job) if job["kind"] == "memory" else _measure_latency(job))


def _measure_memory(job: Mapping[str, Any]) -> dict[str, object]:
    """Measure memory, loading time and first run of one model; must be the first work of its process."""
    device, threads = job["device"], job["threads"]
    model = job["models"][0]
    inputs = InputArrays.load(Path(job["inputs"]))
    try:
        empty = open_session(EMPTY_MODEL, device=device, threads=threads)
    except DeviceUnavailable as error:
        raise Refused(f"device: got 'cuda': {error}") from None
    empty.run(None, {"x": np.zeros(1, np.float32)})
    baseline = resident_bytes()

    start = time.perf_counter_ns()
    session = TimedSession(model["name"], model["path"], device=device, threads=threads)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    loaded = resident_bytes()

    first_run_ms = None
    for batch_size in job["batch_sizes"]:
        feed = session.feed(inputs, batch_size)
        start = time.perf_counter_ns()
        session.run(feed)
        first_run_ms = first_run_ms or (time.perf_counter_ns() - start) / 1e6
        session.run(feed)
    del feed, inputs
    settled, peak = resident_bytes(), peak_bytes()
    return {
        "provider": session.provider,
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "memory": {
            "baseline_rss_bytes": baseline,
            "loaded_rss_bytes": loaded,
            "settled_rss_bytes": settled,
            "peak_rss_bytes": peak,
            "session_bytes": _increase(loaded, baseline),
            "arena_bytes": _increase(settled, loaded),
            "device_bytes": device_bytes() if session.provider == CUDA else None,
        },
    }


def _measure_latency(job: Mapping[str, Any]) -> dict[str, object]:
    """Time all models at all batch sizes; percentiles by model, and ratios of medians by pair."""
    models = job["models"]
    batch_sizes, seed = job["batch_sizes"], job["seed"]
    times = timing.time_models(
        [
            partial(TimedSession, model["name"], model["path"], device=job["device"], threads=job["threads"])
            for model in models
        ],
        InputArrays.load(Path(job["inputs"])),
        batch_sizes,
        seconds_per_cell=job["seconds_per_cell"],
        max_seconds=job["max_seconds"],
        seed=seed,
    )
    latencies, pairs = bootstrap.latencies_and_ratios(times, batch_sizes, seed)
    return {"latencies": latencies, "pairs": pairs, "series": len(times[0][0])}


def _increase(after: int | None, before: int | None) -> int | None:
    """Increase in bytes; 0 where the allocator freed more memory in between, None where either value is unknown."""
    return None if after is None or before is None else max(0, after - before)


if __name__ == "__main__":
    main()
