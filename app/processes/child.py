"""Child side of a child process: receive one job on standard input, send messages on standard output.

Imports the standard library only: some children measure the memory of their own process.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

_MESSAGE_FD: list[int] = []


def receive(before_end: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Read the job that the parent sent, and from then on end this process as soon as the parent has ended.

    Args:
        before_end: called, in a thread, when the parent has ended and before this process does.

    Returns:
        The job. Its `niceness`, if there is one, is already applied.
    """
    line = sys.stdin.buffer.readline()
    if not line:
        raise SystemExit("got no job on standard input: only the service starts this module, by itself it does nothing")
    job: dict[str, Any] = json.loads(line)
    # The parent keeps the other end open and never writes again: end of file means that the parent has ended.
    threading.Thread(target=_exit_with_parent, args=(before_end,), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(job.get("niceness", 0))
    # Libraries may print to standard output; only messages may reach the parent's pipe.
    _MESSAGE_FD.append(os.dup(1))
    os.dup2(2, 1)
    return job


def message_fd() -> int:
    """File descriptor that the parent reads messages from, one JSON object per line."""
    return _MESSAGE_FD[0]


def _exit_with_parent(before_end: Callable[[], object]) -> None:
    # Reads the raw descriptor: the lock of a buffered reader would be fatal if the interpreter ended first.
    os.read(0, 1)
    before_end()
    kill_process_group(os.getpid())
    os._exit(1)


def kill_process_group(pid: int) -> None:
    """Kill a process, and its whole process group if it leads one, as the service's child processes do."""
    if hasattr(os, "killpg") and os.getpgid(pid) == pid:
        os.killpg(pid, signal.SIGKILL)


def send(**message: object) -> None:
    """Send one message to the parent; ends this process if a number in it is not finite, which JSON cannot express."""
    try:
        line = json.dumps(message, allow_nan=False)
    except ValueError:
        raise SystemExit("got a number that is not finite, expected finite results") from None
    with os.fdopen(os.dup(message_fd()), "w") as out:
        out.write(line + "\n")
