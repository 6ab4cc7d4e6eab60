"""`python -m kronmodel ...` as a child (`python -m app.training.child`): it ends with whoever started it.

What it prints is its result, one JSON object; with `progress` in the job it tells how far it is. Once the parent is
gone it cleans up after itself, as it does when it is told to end, and removes the job's `folder`.
"""

import contextlib
import io
import json
import os
import runpy
import shutil
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from app.processes import child

CLEAN_UP_SECONDS = 10.0


def main() -> None:
    """Run the command of the job."""
    signal.signal(signal.SIGTERM, _leave)  # kronmodel has its own, once it is imported
    parent_gone = False

    def end() -> None:
        nonlocal parent_gone
        parent_gone = True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(CLEAN_UP_SECONDS)

    job = child.receive(before_end=end)
    child.send(pid=os.getpid())
    progress = ["--progress-fd", str(child.message_fd())] if job.get("progress") else []
    for forcing in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # nobody sees it: plain text
        os.environ.pop(forcing, None)
    sys.argv = ["kronmodel", *job["arguments"], *progress]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_module("kronmodel", run_name="__main__", alter_sys=True)
    except SystemExit as end_of_it:
        if end_of_it.code:
            raise
    finally:
        if parent_gone and "folder" in job:
            shutil.rmtree(job["folder"], ignore_errors=True)
    child.send(result=json.loads(printed.getvalue()))


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
