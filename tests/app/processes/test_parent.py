"""Child processes that send malformed messages, are killed, cannot be started, or use too much memory."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from app.processes.parent import MAX_MESSAGE_BYTES, ChildError, MemoryLimitExceeded, run_child

RUNS = 20  # repeated, because either the limit's task or `run_child` may be the first to see the end of the process


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be run as children."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("'{}'", ""),
        (f"'[' + '1,' * {MAX_MESSAGE_BYTES} + '1]'", "it sent a message that cannot be read: "),
        ("'hello'", "it sent a message that cannot be read: "),
        ("'\\xff'", "it sent a message that cannot be read: "),
    ],
)
def test_a_line_that_is_no_message_is_a_child_error(modules: Path, line: str, message: str) -> None:
    code = f"import sys, time\nsys.stdin.readline()\nprint({line}, flush=True)\n"
    (modules / "talker.py").write_text(code + ("time.sleep(60)\n" if message else ""))  # must not be waited for
    received: list[dict[str, Any]] = []
    if message:
        with pytest.raises(ChildError, match=message):
            asyncio.run(run_child("talker", {}, received.append))
    else:
        asyncio.run(run_child("talker", {}, received.append))
    assert received == ([] if message else [{}])


def test_a_signal_in_the_middle_of_a_message_is_reported_instead_of_the_message(modules: Path) -> None:
    code = "import os, sys\nsys.stdin.readline()\nprint('{}')\nprint('[1, ', end='', flush=True)\nos.abort()\n"
    (modules / "talker.py").write_text(code)
    received: list[dict[str, Any]] = []
    with pytest.raises(ChildError, match=r"^it was killed \(SIGABRT\)$"):
        asyncio.run(run_child("talker", {}, received.append))
    assert received == [{}]


def test_a_process_that_cannot_be_started_is_a_child_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(ChildError, match="it cannot be started: No such file or directory"):
        asyncio.run(run_child("app.models.verification", {}, print))


def test_an_exit_code_without_a_message_is_reported(modules: Path) -> None:
    (modules / "failer.py").write_text("raise SystemExit(7)\n")
    with pytest.raises(ChildError, match=r"^it ended with exit code 7$"):
        asyncio.run(run_child("failer", {}, print))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_process_that_exceeds_its_memory_limit_is_reported_on_each_event_loop(
    modules: Path, new_loop: Callable[[], Any]
) -> None:
    (modules / "sleeper.py").write_text("import time\ntime.sleep(60)\n")

    async def scenario() -> None:
        for _ in range(RUNS):
            with pytest.raises(MemoryLimitExceeded, match=r"^it used more than 1000 bytes of memory$"):
                await run_child("sleeper", {}, print, max_memory_bytes=1000)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


def test_a_failure_within_the_memory_limit_is_not_reported_as_exceeding_it(modules: Path) -> None:
    (modules / "failer.py").write_text("raise SystemExit('no reason')\n")
    with pytest.raises(ChildError, match=r"^no reason$") as caught:
        asyncio.run(run_child("failer", {}, print, max_memory_bytes=2**40))
    assert not isinstance(caught.value, MemoryLimitExceeded)
