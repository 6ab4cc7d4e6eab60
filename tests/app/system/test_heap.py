import asyncio
import sys
import time
from pathlib import Path

import pytest

from app.system.heap import WORK_SECONDS, Held, trim_heap, trim_heap_when_idle


class Large:
    """Says when it is freed."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def __del__(self) -> None:
        self._log.append("freed")


def test_what_is_held_is_freed_by_its_last_holder() -> None:
    log: list[str] = []
    large = Large(log)
    held = [Held(large)]
    assert [each.alone for each in held] == [False]
    del large
    assert [each.alone for each in held] == [True]
    assert log == []
    trim_heap(held)
    assert log == ["freed"]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory, and only Linux tells")
def test_a_pause_after_work_gives_its_memory_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def work() -> list[bytes]:
        """100 MB in pieces that the heap keeps: below the last of them, what is freed is not its end."""
        end = time.process_time() + 1.5 * WORK_SECONDS
        pieces = [bytes([index % 256]) * 1000 for index in range(100_000)]
        while time.process_time() < end:
            pass
        return pieces[-1:]

    async def main() -> None:
        giving = asyncio.create_task(trim_heap_when_idle(0.2))
        trim_heap([])
        before = resident()
        await asyncio.sleep(0.05)
        last = work()
        assert resident() > before + 80_000_000
        deadline = time.monotonic() + 30
        while resident() > before + 30_000_000 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert resident() < before + 30_000_000
        assert last
        giving.cancel()

    asyncio.run(main())
