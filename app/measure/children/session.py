"""A measuring process (`python -m app.measure.children.session`): memory of one model, or latency of several.

Imports numpy and onnxruntime only, for the memory of this process is a result.
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
from app.measure.timed_session import Refused, TimedSession
from app.processes import child
from app.system.gpu import device_bytes
from app.system.process_memory import peak_bytes, resident_bytes


def main() -> None:
    """Do the job: `memory` of one model, or `latency` of several."""
    job = child.receive()
    gc.disable()  # no collection in the middle of a timed run
    try:
        child.send(result=_memory(job) if job["kind"] == "memory" else _latency(job))
    except Refused as error:
        child.send(refused=str(error))


def _memory(job: Mapping[str, Any]) -> dict[str, object]:
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
    subject = TimedSession(model["name"], model["path"], device=device, threads=threads)
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
    del feed
    settled, peak = resident_bytes(), peak_bytes()
    return {
        "provider": subject.provider,
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "memory": {
            "baseline_rss_bytes": baseline,
            "loaded_rss_bytes": loaded,
            "settled_rss_bytes": settled,
            "peak_rss_bytes": peak,
            "session_bytes": _difference(loaded, baseline),
            "arena_bytes": _difference(settled, loaded),
            "device_bytes": device_bytes() if subject.provider == CUDA else None,
        },
    }


def _latency(job: Mapping[str, Any]) -> dict[str, object]:
    """Percentiles of all models at all batch sizes, and how the medians of each pair relate."""
    models = job["models"]
    batch_sizes, seed = job["batch_sizes"], job["seed"]
    rows = timing.Inputs(
        [Path(model["samples"]) for model in models], own=job["own"], largest_batch=max(batch_sizes), seed=seed
    )
    times = timing.measure(
        [
            partial(TimedSession, model["name"], model["path"], device=job["device"], threads=job["threads"])
            for model in models
        ],
        rows,
        batch_sizes,
        seconds_per_cell=job["seconds_per_cell"],
        seed=seed,
    )
    latencies, pairs = bootstrap.tables(times, batch_sizes, seed)
    return {"latencies": latencies, "pairs": pairs, "inputs": rows.source, "series": len(times[0][0])}


def _difference(larger: int | None, smaller: int | None) -> int | None:
    """How much came on top; memory that the allocator gave back in between counts as none."""
    return None if larger is None or smaller is None else max(0, larger - smaller)


if __name__ == "__main__":
    main()
