"""Cumulative statistics of a version, over requests, runs and workers."""

import os
from pathlib import Path

from app.models.statistics import MAX_BATCH_SIZES, Statistics, StatisticsRegistry
from app.system.pidfiles import state_file
from app.telemetry.counters import Counters


def test_requests_that_share_a_run_count_as_one_execution() -> None:
    statistics = Statistics(Counters(), "m", "3")
    for rows in (1, 2, 4):  # one run of 7 rows
        statistics.record_success(rows=rows, batch_size=7, queue_ns=10 * rows, compute_ns=700, input_ns=5, output_ns=3)
    statistics.record_success(rows=3, batch_size=3, queue_ns=0, compute_ns=100)
    statistics.record_success(rows=0, batch_size=0, queue_ns=0, compute_ns=9)
    statistics.record_failure(40)
    statistics.record_failure(2)
    dump = statistics.dump()
    assert (dump["name"], dump["version"]) == ("m", "3")
    assert dump["inference_count"] == 10
    assert dump["execution_count"] == 3
    stages = dump["inference_stats"]
    assert stages["fail"] == {"count": 2, "ns": 42}
    assert stages["queue"] == {"count": 5, "ns": 70}
    assert stages["compute_infer"] == {"count": 5, "ns": 3 * 700 + 109}  # the duration of the whole run counts for each
    assert stages["success"] == {"count": 5, "ns": 70 + 3 * (700 + 8) + 109}
    batches = {batch["batch_size"]: batch["compute_infer"] for batch in dump["batch_stats"]}
    assert batches == {0: {"count": 1, "ns": 9}, 3: {"count": 1, "ns": 100}, 7: {"count": 1, "ns": 700}}
    assert dump["last_inference"] > 1_700_000_000_000


def test_statistics_of_a_model_that_never_ran() -> None:
    dump = Statistics(Counters(), "m", "1").dump()
    assert (dump["last_inference"], dump["inference_count"], dump["batch_stats"]) == (0, 0, [])


def test_number_of_batch_sizes_is_bounded() -> None:
    statistics = Statistics(Counters(), "m", "3")
    for size in range(1, MAX_BATCH_SIZES + 10):
        statistics.record_success(rows=size, batch_size=size, queue_ns=0, compute_ns=1)
    dump = statistics.dump()
    assert len(dump["batch_stats"]) == MAX_BATCH_SIZES
    assert dump["execution_count"] == MAX_BATCH_SIZES + 9


def test_clear_resets_this_worker_and_dead_ones_but_not_living_ones(tmp_path: Path) -> None:
    """Worker 1 is dead and worker 2 is alive: both have files of counters, but only worker 2 has a state file."""
    for pid in (1, 2):
        Statistics(Counters(tmp_path, "statistics"), "m", "1").record_success(
            rows=10 * pid, batch_size=10, queue_ns=0, compute_ns=5
        )
        (tmp_path / f"{os.getpid()}.statistics").rename(tmp_path / f"{pid}.statistics")
    state_file(tmp_path, 2).write_text("[]")
    registry = StatisticsRegistry(tmp_path)
    registry.of("m", "1").record_success(rows=1, batch_size=1, queue_ns=0, compute_ns=5)
    registry.of("m", "2").record_success(rows=1, batch_size=1, queue_ns=0, compute_ns=5)
    assert registry.of("m", "1").dump()["inference_count"] == 31
    assert [batch["batch_size"] for batch in registry.of("m", "1").dump()["batch_stats"]] == [1, 10]
    registry.clear("m", "1")
    assert registry.of("m", "1").dump()["inference_count"] == 20
    registry.of("m", "1").record_success(rows=3, batch_size=3, queue_ns=0, compute_ns=5)
    dump = registry.of("m", "1").dump()
    assert (dump["inference_count"], [batch["batch_size"] for batch in dump["batch_stats"]]) == (23, [3, 10])
    assert registry.of("m", "2").dump()["inference_count"] == 1
