"""Run times of ONNX models in a process of its own that imports numpy and onnxruntime only.

The models of a group are timed in alternating blocks of random order, after a warm-up, so that a busy machine disturbs
all of them alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import KronmodelError

__all__ = ["Group", "Timing", "measure"]

BLOCK_SECONDS = 0.004
ROUNDS = (9, 60)  # least and most
RESAMPLES = 400
LIMIT = 600  # seconds in all, beyond those asked for


@dataclass(frozen=True)
class Group:
    """Models to compare, and the inputs of each run.

    Attributes:
        models: paths of the models; the others are compared with the first.
        feeds: inputs of a run by name.
    """

    models: Sequence[Path]
    feeds: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Timing:
    """Measured time of a model's runs.

    Attributes:
        microseconds: median of a run, over blocks.
        ratio: median of the ratio to the first model of the group, over rounds.
        low: lower end of the ratio's 95 % bootstrap interval.
        high: upper end.
    """

    microseconds: float
    ratio: float
    low: float
    high: float


def measure(groups: Sequence[Group], seconds: float) -> list[list[Timing]]:
    """Measure models on one thread, in a new process.

    Args:
        groups: models to compare with each other.
        seconds: duration of each group's measurement.

    Raises:
        KronmodelError: the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="kronmodel-timing-") as folder:
        arrays, asked = {}, []
        for number, group in enumerate(groups):
            names = list(group.feeds)
            for place, name in enumerate(names):
                array = np.asarray(group.feeds[name])
                # Texts are Python objects, which are stored as characters.
                arrays[f"{number}.{place}"] = array.astype(str) if array.dtype == object else array
            asked.append({"models": [str(path) for path in group.models], "names": names})
        feeds = Path(folder, "feeds.npz")
        np.savez(feeds, allow_pickle=False, **arrays)
        request = json.dumps({"feeds": str(feeds), "groups": asked, "seconds": seconds})
        command = [sys.executable, "-m", "kronmodel.compress.graphs.timing"]
        limit = LIMIT + 10 * seconds * len(groups)
        try:
            done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired as error:
            raise KronmodelError(f"the measurement of the run times took more than {limit:.0f} seconds") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise KronmodelError(f"the measurement of the run times failed: {last[:300]}")
    return [[Timing(**each) for each in group] for group in json.loads(done.stdout)]


def _measure_group(sessions: Sequence[Any], feeds: Mapping[str, NDArray[Any]], seconds: float) -> list[Timing]:
    rng = np.random.default_rng(0)
    runs = []
    for session in sessions:
        session.run(None, feeds)
        started = time.perf_counter()
        count = 0
        while count < 2 or time.perf_counter() - started < BLOCK_SECONDS:
            session.run(None, feeds)
            count += 1
        runs.append(max(1, int(BLOCK_SECONDS * count / (time.perf_counter() - started))))
    least, most = ROUNDS
    rounds: list[list[float]] = []
    started = time.perf_counter()
    while len(rounds) < least or (len(rounds) < most and time.perf_counter() - started < seconds):
        times = [0.0] * len(sessions)
        for index in rng.permutation(len(sessions)):
            session, count = sessions[index], runs[index]
            begun = time.perf_counter_ns()
            for _ in range(count):
                session.run(None, feeds)
            times[index] = (time.perf_counter_ns() - begun) / count / 1000
        rounds.append(times)
    table = np.array(rounds)
    ratios = table / table[:, :1]
    drawn = np.median(ratios[rng.integers(0, len(rounds), (RESAMPLES, len(rounds)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    columns = zip(np.median(table, 0), np.median(ratios, 0), low, high, strict=True)
    return [Timing(*map(float, column)) for column in columns]


def _child() -> None:
    """Read the models and their inputs from standard input, and print the timings."""
    import onnxruntime

    asked = json.load(sys.stdin)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    results = []
    with np.load(asked["feeds"], allow_pickle=False) as arrays:
        for number, group in enumerate(asked["groups"]):
            feeds = {name: arrays[f"{number}.{place}"] for place, name in enumerate(group["names"])}
            sessions = [
                onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                for path in group["models"]
            ]
            results.append([asdict(each) for each in _measure_group(sessions, feeds, asked["seconds"])])
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    _child()
