"""Measuring process of the self-test: a model beside itself with a known delay.

Imports numpy and onnxruntime only, as the measuring process of a comparison does.
"""

import gc
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from app.measure import bootstrap, timing
from app.measure.inputs.generated import random_rows
from app.measure.timed_session import Call, Feed, TimedSession


def _delayed(call: Call, delay_ns: int) -> Call:
    """A call of a session that takes `delay_ns` nanoseconds longer."""

    def run(names: Sequence[str], feed: Feed) -> list[Any]:
        result = call(names, feed)
        end = time.perf_counter_ns() + delay_ns
        while time.perf_counter_ns() < end:
            pass
        return result

    return run


class DelayedSession(TimedSession):
    """A timed session whose runs take `delay_us` microseconds longer; further arguments as for `TimedSession`."""

    def __init__(self, name: str, path: str, *, device: str, threads: int, delay_us: float) -> None:
        super().__init__(name, path, device=device, threads=threads)
        self._call = _delayed(self._call, round(1000 * delay_us))


def main() -> None:
    """Receive a job, measure, and send the result."""
    gc.disable()  # as in a comparison
    timing.run_job(lambda job: {"cells": _measure(job)})


def _measure(job: Mapping[str, Any]) -> list[dict[str, float]]:
    """The median of the model at each batch size, and the measured delay with its interval, in microseconds."""
    options = {"device": job["device"], "threads": job["threads"]}
    sizes, seed = job["batch_sizes"], job["seed"]
    original = partial(TimedSession, "original", job["path"], **options)
    times = timing.time_models(
        [original, partial(DelayedSession, "delayed", job["path"], **options, delay_us=job["delay_us"])],
        random_rows(original().interface, max(sizes)),
        sizes,
        seconds_per_cell=job["seconds_per_cell"],
        seed=seed,
    )
    cells = []
    for batch_size, (plain, delayed) in zip(sizes, times, strict=True):
        medians = bootstrap.bootstrap_medians([plain, delayed], seed)
        low, high = bootstrap.interval((medians[1] - medians[0]) / 1000)
        p50 = float(np.median(plain)) / 1000
        added = float(np.median(delayed)) / 1000 - p50
        cells.append({"batch_size": batch_size, "p50_us": p50, "added_us": added, "low_us": low, "high_us": high})
    return cells


if __name__ == "__main__":
    main()
