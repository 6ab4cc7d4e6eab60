"""The inner side of a child process: one job in on standard input, messages out on standard output.

Imports the standard library only, for the memory of such a process is what some of them measure.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

_OUT: list[int] = []


def receive(before_end: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """The job that the parent sent; from here on the process lives only as long as its parent.

    Args:
        before_end: called in a thread of its own when the parent is gone; when it returns, the process ends.
    """
    line = sys.stdin.buffer.readline()
    if not line:
        raise SystemExit("no job on standard input: the service starts this module, people do not")
    job: dict[str, Any] = json.loads(line)
    # The parent holds the other end open and never writes again: end of file means that it is gone, however it died.
    threading.Thread(target=_exit_with_parent, args=(before_end,), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(job.get("niceness", 0))
    # Libraries print where they like: only messages may reach the parent's pipe.
    _OUT.append(os.dup(1))
    os.dup2(2, 1)
    return job


def messages() -> int:
    """The file descriptor that the parent reads: one JSON object a line."""
    return _OUT[0]


def _exit_with_parent(before_end: Callable[[], object]) -> None:
    # The raw descriptor: a buffered reader's lock would be fatal if the interpreter ended first.
    os.read(0, 1)
    before_end()
    end_group(os.getpid())
    os._exit(1)


def end_group(pid: int) -> None:
    """Kill a process with those that it has started, if it leads them, as the children of the service do."""
    if hasattr(os, "killpg") and os.getpgid(pid) == pid:
        os.killpg(pid, signal.SIGKILL)


def send(**message: object) -> None:
    """Give the parent one message; the process ends where that cannot be said in JSON."""
    try:
        line = json.dumps(message, allow_nan=False)
    except ValueError:
        raise SystemExit("got a number that is not finite, which no result may hold") from None
    with os.fdopen(os.dup(messages()), "w") as out:
        out.write(line + "\n")
