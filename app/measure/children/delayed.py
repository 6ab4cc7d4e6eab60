"""Measuring process of the self-test: a model beside itself with a known delay.

Imports numpy and onnxruntime only, as the measuring process of a comparison does.
"""

import gc
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from app.measure import bootstrap, timing
from app.measure.timing import TimedSession


class _DelayedRuns:
    """A session whose runs take a fixed time longer.

    Args:
        session: the onnxruntime session.
        delay_ns: nanoseconds to add to each run.
    """

    def __init__(self, session: Any, delay_ns: int) -> None:
        self._session = session
        self._delay_ns = delay_ns

    def run(self, outputs: None, feed: Mapping[str, Any]) -> list[Any]:
        """Run the session, then busy-wait for the delay."""
        result: list[Any] = self._session.run(outputs, feed)
        end = time.perf_counter_ns() + self._delay_ns
        while time.perf_counter_ns() < end:
            pass
        return result


class DelayedSession(TimedSession):
    """A timed session whose runs take `delay_us` microseconds longer; further arguments as for `TimedSession`."""

    def __init__(self, name: str, path: str, *, device: str, threads: int, delay_us: float) -> None:
        super().__init__(name, path, device=device, threads=threads)
        session: Any = _DelayedRuns(self._session, round(1000 * delay_us))
        self._session = session


def main() -> None:
    """Receive a job, measure, and send the result."""
    gc.disable()  # as in a comparison
    timing.run_job(lambda job: {"cells": _measure(job)})


def _measure(job: Mapping[str, Any]) -> list[dict[str, float]]:
    """The median of the model at each batch size, and the measured delay with its interval, in microseconds."""
    options = {"device": job["device"], "threads": job["threads"]}
    sizes, seed = job["batch_sizes"], job["seed"]
    times = timing.time_models(
        [
            partial(TimedSession, "original", job["path"], **options),
            partial(DelayedSession, "delayed", job["path"], **options, delay_us=job["delay_us"]),
        ],
        timing.InputRows([], largest_batch=max(sizes), seed=seed),
        sizes,
        seconds_per_cell=job["seconds_per_cell"],
        seed=seed,
    )
    cells = []
    for batch_size, (original, delayed) in zip(sizes, times, strict=True):
        medians = bootstrap.bootstrap_medians([original, delayed], seed)
        low, high = bootstrap.interval((medians[1] - medians[0]) / 1000)
        p50 = float(np.median(original)) / 1000
        added = float(np.median(delayed)) / 1000 - p50
        cells.append({"batch_size": batch_size, "p50_us": p50, "added_us": added, "low_us": low, "high_us": high})
    return cells


if __name__ == "__main__":
    main()
