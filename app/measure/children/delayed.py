"""A measuring process of the self-test: a model against itself with a known delay.

Imports numpy and onnxruntime only, as the process does that measures in earnest.
"""

import gc
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from app.measure import bootstrap, timing
from app.measure.timed_session import Refused, TimedSession
from app.processes import child


class _Slow:
    """A session that works for a while longer than its model takes."""

    def __init__(self, session: Any, delay_ns: int) -> None:
        self._session = session
        self._delay_ns = delay_ns

    def run(self, outputs: None, feed: Mapping[str, Any]) -> list[Any]:
        """As the session does, and then nothing, busily."""
        result: list[Any] = self._session.run(outputs, feed)
        end = time.perf_counter_ns() + self._delay_ns
        while time.perf_counter_ns() < end:
            pass
        return result


class Delayed(TimedSession):
    """A model each of whose runs takes a known time longer."""

    def __init__(self, name: str, path: str, *, device: str, threads: int, delay_us: float) -> None:
        super().__init__(name, path, device=device, threads=threads)
        self._session = _Slow(self._session, round(1000 * delay_us))


def main() -> None:
    """Do the job."""
    job = child.receive()
    gc.disable()  # as in earnest
    try:
        child.send(result={"cells": _cells(job)})
    except Refused as error:
        child.send(refused=str(error))


def _cells(job: Mapping[str, Any]) -> list[dict[str, float]]:
    """By batch size: the median of the model, and by how much the delayed one's is above it, with its interval."""
    options = {"device": job["device"], "threads": job["threads"]}
    sizes, seed = job["batch_sizes"], job["seed"]
    rows = timing.Inputs([], largest_batch=max(sizes), seed=seed)
    times = timing.measure(
        [
            partial(TimedSession, "as it is", job["path"], **options),
            partial(Delayed, "delayed", job["path"], **options, delay_us=job["delay_us"]),
        ],
        rows,
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
