"""Statistics of raw times: percentiles, bootstrap intervals of medians and their ratios, and verdicts.

Imports numpy only.
"""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]  # (series, rounds, runs), nanoseconds
Verdict = Literal["faster", "slower", "not distinguishable"]

PRACTICAL_MARGIN = 0.05  # a smaller difference of medians is no reason to choose a model
CONFIDENCE = 0.95
RESAMPLES = 1000
MIN_RUNS_FOR_P99 = 1000
STABLE_WITHIN = 1.10
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # Student's t by number of series


def summary(times: Times, batch_size: int) -> dict[str, object]:
    """Percentiles and throughput of one model at one batch size, as fields of `Latency`."""
    p50, p90, p95, p99 = (round(float(value) / 1000, 2) for value in np.percentile(times, [50, 90, 95, 99]))
    return {
        "batch_size": batch_size,
        "n": times.size,
        "p50_us": p50,
        "p90_us": p90,
        "p95_us": p95,
        "p99_us": p99 if times.size >= MIN_RUNS_FOR_P99 else None,
        "samples_per_s": round(batch_size * times.size / (float(times.sum()) / 1e9), 1),
        "unstable": is_unstable(times),
    }


def latencies_and_ratios(
    times: Sequence[Sequence[Times]], batch_sizes: Sequence[int], seed: int
) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Summarise the times of models and compare each pair of models.

    Args:
        times: by batch size and model.
        batch_sizes: the batch sizes, in the same order.
        seed: seed of the resampling.

    Returns:
        Fields of `Latency` by model and batch size; and for each batch size and pair `a`, `b` (positions of models) the
        ratio of medians b / a with the wider of the bootstrap and the Student interval.
    """
    models = range(len(times[0]))
    latencies: list[list[dict[str, Any]]] = [[] for _ in models]
    pairs = []
    for batch_size, cell in zip(batch_sizes, times, strict=True):
        medians = bootstrap_medians(cell, seed)
        for index in models:
            low, high = (round(value / 1000, 2) for value in interval(medians[index]))
            latencies[index].append(summary(cell[index], batch_size) | {"p50_low_us": low, "p50_high_us": high})
        for a, b in itertools.combinations(models, 2):
            low, high = enclosing_interval(interval(medians[b] / medians[a]), series_interval(cell[a], cell[b]))
            ratio = float(np.median(cell[b]) / np.median(cell[a]))
            pairs.append({"a": a, "b": b, "batch_size": batch_size, "ratio": ratio, "low": low, "high": high})
    return latencies, pairs


def is_unstable(times: Times) -> bool:
    """Whether the medians of the first, second and last third of the series differ by more than 10 %."""
    medians = [float(np.median(part)) for part in np.array_split(times, 3) if part.size]
    return max(medians) > STABLE_WITHIN * min(medians)


def bootstrap_medians(all_times: Sequence[Times], seed: int) -> list[NDArray[np.float64]]:
    """Medians (RESAMPLES,) of each model's times under the same resampling: series, and rounds within them.

    Single runs are not resampled, because they are not independent: consecutive runs share the state of the machine,
    and the runs of a series share the placement of the session's memory.
    """
    series, rounds = all_times[0].shape[:2]
    rng = np.random.default_rng(seed)
    drawn_series = rng.integers(0, series, (RESAMPLES, series, 1))
    drawn_rounds = rng.integers(0, rounds, (RESAMPLES, series, rounds))
    return [
        np.array([np.median(times[i, j]) for i, j in zip(drawn_series, drawn_rounds, strict=True)])
        for times in all_times
    ]


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The central interval that holds `CONFIDENCE` of resampled values."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def series_interval(a: Times, b: Times) -> tuple[float, float]:
    """Student's 95 % interval of the ratio of medians b / a, from one ratio for each series.

    The bootstrap of few series is too narrow, because it assumes that they show all the variation between series.
    """
    medians = [np.median(times.reshape(len(times), -1), axis=1) for times in (a, b)]
    logs = np.log(medians[1]) - np.log(medians[0])
    half = T_95.get(len(logs), T_95[max(T_95)]) * float(logs.std(ddof=1)) / len(logs) ** 0.5
    centre = float(logs.mean())
    return float(np.exp(centre - half)), float(np.exp(centre + half))


def enclosing_interval(*intervals: tuple[float, float]) -> tuple[float, float]:
    """The smallest interval that contains all the given ones."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def verdict(low: float, high: float) -> Verdict:
    """Whether `a` is faster, from the interval of median(b) / median(a) and `PRACTICAL_MARGIN`."""
    if low > 1 + PRACTICAL_MARGIN:
        return "faster"
    if high < 1 / (1 + PRACTICAL_MARGIN):
        return "slower"
    return "not distinguishable"
