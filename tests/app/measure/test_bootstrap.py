"""Percentiles, bootstrap intervals and verdicts of simulated times."""

import numpy as np
import pytest

from app.measure import bootstrap


def times_of(rng: np.random.Generator, median: float, *, runs: int = 10, drift: float = 0.0) -> bootstrap.Times:
    """Lognormal times (8, 5, runs) around a median in microseconds, with a random offset for each series."""
    offset = 1 + 0.02 * rng.standard_normal((8, 1, 1))
    trend = 1 + drift * np.arange(8).reshape(8, 1, 1) / 8
    times = 1000 * median * offset * trend * np.exp(0.05 * rng.standard_normal((8, 5, runs)))
    return np.asarray(times.astype(np.int64))


def test_summary() -> None:
    times = np.arange(1, 1001, dtype=np.int64).reshape(4, 5, 50) * 1000
    summary = bootstrap.summary(times, batch_size=32)
    assert (summary["n"], summary["batch_size"]) == (1000, 32)
    assert [summary[f"p{p}_us"] for p in (50, 90, 95, 99)] == pytest.approx([500.5, 900.1, 950.05, 990.01])
    assert summary["samples_per_s"] == pytest.approx(32 * 1000 / (500.5 * 1000 / 1e6), abs=0.1)
    assert bootstrap.summary(times[:, :, :49], batch_size=1)["p99_us"] is None  # 980 runs are too few for a p99


def test_instability_is_a_drift_of_more_than_a_tenth() -> None:
    rng = np.random.default_rng(0)
    assert not bootstrap.is_unstable(times_of(rng, 100))
    assert bootstrap.is_unstable(times_of(rng, 100, drift=0.4))


def test_the_interval_covers_the_true_ratio_and_the_verdict_follows() -> None:
    rng = np.random.default_rng(1)
    a, b = bootstrap.bootstrap_medians([times_of(rng, 100), times_of(rng, 130)], seed=0)
    low, high = bootstrap.interval(b / a)
    assert low < 1.3 < high
    assert high / low < 1.15
    assert bootstrap.verdict(low, high) == "faster"
    assert bootstrap.verdict(1 / high, 1 / low) == "slower"


def test_the_same_distribution_twice_is_not_distinguishable() -> None:
    rng = np.random.default_rng(2)
    verdicts = []
    for seed in range(20):
        a, b = bootstrap.bootstrap_medians([times_of(rng, 100), times_of(rng, 100)], seed)
        verdicts.append(bootstrap.verdict(*bootstrap.interval(b / a)))
    assert set(verdicts) == {"not distinguishable"}


def test_bootstrap_is_seeded() -> None:
    times = times_of(np.random.default_rng(3), 100)
    first, second = (bootstrap.bootstrap_medians([times], seed=7)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.06, 1.2, "faster"),
        (1.02, 1.04, "not distinguishable"),  # a difference below the practical margin
        (1.04, 1.3, "not distinguishable"),
        (0.5, 2.0, "not distinguishable"),
        (0.97, 0.99, "not distinguishable"),
        (0.8, 0.9, "slower"),
    ],
)
def test_verdict_has_a_practical_margin(low: float, high: float, verdict: str) -> None:
    assert bootstrap.verdict(low, high) == verdict


def test_the_enclosing_interval_of_few_series_covers_the_true_ratio() -> None:
    """Simulated coverage, with a random offset for each series and a true ratio of 1."""
    rng = np.random.default_rng(5)
    held = {"bootstrap": 0, "both": 0}
    rounds = 80
    for seed in range(rounds):
        a, b = (
            np.asarray(
                (1e5 * np.exp(0.3 * rng.standard_normal((4, 1, 1)) + 0.05 * rng.standard_normal((4, 3, 5)))), np.int64
            )
            for _ in range(2)
        )
        medians = bootstrap.bootstrap_medians([a, b], seed)
        resampled = bootstrap.interval(medians[1] / medians[0])
        both = bootstrap.enclosing_interval(resampled, bootstrap.series_interval(a, b))
        held["bootstrap"] += resampled[0] <= 1 <= resampled[1]
        held["both"] += both[0] <= 1 <= both[1]
    assert held["both"] >= 0.9 * rounds
    assert held["bootstrap"] < held["both"]


def test_tables_are_by_model_and_by_pair() -> None:
    rng = np.random.default_rng(6)
    cells = [[times_of(rng, median) for median in medians] for medians in ((100, 200, 50), (1000, 1000, 3000))]
    latencies, pairs = bootstrap.latencies_and_ratios(cells, [1, 16], seed=0)
    assert [[latency["batch_size"] for latency in model] for model in latencies] == [[1, 16]] * 3
    assert latencies[1][0]["p50_us"] == pytest.approx(200, rel=0.05)
    assert latencies[1][0]["p50_low_us"] < latencies[1][0]["p50_us"] < latencies[1][0]["p50_high_us"]
    assert [(pair["a"], pair["b"], pair["batch_size"]) for pair in pairs] == [
        (0, 1, 1), (0, 2, 1), (1, 2, 1), (0, 1, 16), (0, 2, 16), (1, 2, 16),
    ]  # fmt: skip
    for pair, true in zip(pairs, (2, 0.5, 0.25, 1, 3, 3), strict=True):
        assert pair["low"] < true < pair["high"]
        assert pair["ratio"] == pytest.approx(true, rel=0.05)
