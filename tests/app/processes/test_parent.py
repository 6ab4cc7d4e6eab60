"""Processes that do not keep to what was agreed."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from app.processes.parent import MAX_MESSAGE_BYTES, ChildError, run_child


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("'{}'", ""),
        (f"'[' + '1,' * {MAX_MESSAGE_BYTES} + '1]'", "it sent a message that cannot be read: "),
        ("'hello'", "it sent a message that cannot be read: "),
        ("'\\xff'", "it sent a message that cannot be read: "),
    ],
)
def test_what_is_no_message_is_an_error_of_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str
) -> None:
    code = f"import sys, time\nsys.stdin.readline()\nprint({said}, flush=True)\n"
    (tmp_path / "talker.py").write_text(code + ("time.sleep(60)\n" if message else ""))  # nobody waits for its end
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    heard: list[dict[str, Any]] = []
    if message:
        with pytest.raises(ChildError, match=message):
            asyncio.run(run_child("talker", {}, heard.append))
    else:
        asyncio.run(run_child("talker", {}, heard.append))
    assert heard == ([] if message else [{}])


def test_a_process_that_is_killed_in_the_midst_of_a_message_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, sys\nsys.stdin.readline()\nprint('{}')\nprint('[1, ', end='', flush=True)\nos.abort()\n"
    (tmp_path / "talker.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    heard: list[dict[str, Any]] = []
    with pytest.raises(ChildError, match="SIGABRT"):
        asyncio.run(run_child("talker", {}, heard.append))
    assert heard == [{}]


def test_a_process_that_cannot_be_started_is_an_error_of_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(ChildError, match="it cannot be started: No such file or directory"):
        asyncio.run(run_child("app.models.verification", {}, print))
