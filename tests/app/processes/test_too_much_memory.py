"""Processes that take more memory than they may."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from app.processes.parent import ChildError, MemoryLimitExceeded, run_child

RUNS = 20  # whether the guard or its process is seen to end first differs from one to the next


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_process_that_outgrows_its_memory_is_said_to_have_done_so_on_every_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_loop: Callable[[], Any]
) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def scenario() -> None:
        for _ in range(RUNS):
            with pytest.raises(MemoryLimitExceeded, match=r"^it used more than 1000 bytes of memory$"):
                await run_child("sleeper", {}, print, max_memory_bytes=1000)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


def test_a_process_that_keeps_within_its_memory_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failer.py").write_text("raise SystemExit('no reason')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ChildError, match=r"^no reason$") as caught:
        asyncio.run(run_child("failer", {}, print, max_memory_bytes=2**40))
    assert not isinstance(caught.value, MemoryLimitExceeded)
