"""Freeing held objects, and trimming the heap of an idle process."""

import asyncio
import os
import sys
import time

import pytest

from app.system.heap import WORK_SECONDS, HeldObject, free_when_unreferenced, trim_heap, trim_heap_when_idle
from app.system.process_memory import resident_bytes_of


class Large:
    """Logs when it is freed."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def __del__(self) -> None:
        self._log.append("freed")


def test_held_objects_are_freed_once_nothing_else_references_them() -> None:
    log: list[str] = []
    large = Large(log)
    held = [HeldObject(large)]
    assert [each.is_only_reference for each in held] == [False]
    del large
    assert [each.is_only_reference for each in held] == [True]
    assert log == []
    asyncio.run(free_when_unreferenced(held))
    assert log == ["freed"]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory, and only Linux has /proc")
def test_the_heap_is_trimmed_when_the_process_becomes_idle_after_work() -> None:
    def resident() -> int:
        return resident_bytes_of(os.getpid()) or 0  # cheap: the exact figure takes so much CPU that it never is idle

    def work() -> list[bytes]:
        """Allocate 100 MB in pieces and keep the last one, so that freeing the others does not shrink the heap."""
        end = time.process_time() + 1.5 * WORK_SECONDS
        pieces = [bytes([index % 256]) * 1000 for index in range(100_000)]
        while time.process_time() < end:
            pass
        return pieces[-1:]

    async def main() -> None:
        trimming = asyncio.create_task(trim_heap_when_idle(0.2))
        trim_heap()
        before = resident()
        await asyncio.sleep(0.05)
        last = work()
        assert resident() > before + 80_000_000
        deadline = time.monotonic() + 30
        while resident() > before + 30_000_000 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert resident() < before + 30_000_000
        assert last
        trimming.cancel()

    asyncio.run(main())
