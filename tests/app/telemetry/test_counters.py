"""Counters of several processes, added up, including processes that have ended."""

import subprocess
import sys
import threading
from pathlib import Path

from app.telemetry.counters import BLOCK_SIZE, MAX_BLOCKS, Counters
from tests.app.conftest import environment

CHILD = """
import sys
from pathlib import Path
from app.telemetry.counters import Counters
counters = Counters(Path(sys.argv[1]))
for _ in range(1000):
    counters.block(("model", "a", "1"))[3] += 2
counters.block(("model", sys.argv[2], "1"))[0] += 5
"""


def test_totals_include_processes_that_have_ended(tmp_path: Path) -> None:
    own = Counters(tmp_path)
    own.block(("model", "a", "1"))[3] += 1
    for name in ("b", "c"):
        subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), name], check=True, env=environment(), timeout=60)
    totals = own.totals()
    assert totals["model", "a", "1"][3] == 4001
    assert totals["model", "b", "1"] == totals["model", "c", "1"] == [5.0] + [0.0] * (BLOCK_SIZE - 1)


def test_one_process_counts_without_a_folder_by_key() -> None:
    counters = Counters()
    first, second = counters.block(("a",)), counters.block(("b", "c"))
    first[BLOCK_SIZE - 1] += 1.5
    second[0] -= 2
    assert counters.block(("a",)) is first
    totals = counters.totals()
    assert totals["a",][-2:] == [0, 1.5]
    assert totals["b", "c"][:2] == [-2, 0]


def test_keys_beyond_the_limits_are_not_counted() -> None:
    counters = Counters()
    for number in range(MAX_BLOCKS + 5):
        counters.block((f"key {number}",))[0] += 1
    assert len(counters.totals()) == MAX_BLOCKS
    counters = Counters()
    for number in range(10):
        counters.block(("x" * 200_000, str(number)))[0] += 1
    assert len(counters.totals()) == 2


def test_threads_add_keys_concurrently() -> None:
    counters = Counters()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def count(name: str) -> None:
            for number in range(300):
                counters.block((name, str(number)))[0] += 1

        threads = [threading.Thread(target=count, args=(name,)) for name in ("a", "b", "c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    totals = counters.totals()
    assert set(totals) == {(name, str(number)) for name in ("a", "b", "c") for number in range(300)}
    assert {values[0] for values in totals.values()} == {1.0}
