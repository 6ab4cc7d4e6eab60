"""Child process that runs `kronmodel` and ends with its parent (`python -m app.training.child`).

The JSON object that `kronmodel` prints is the result; with `progress` in the job its progress messages are sent to the
parent. When the parent is gone, SIGTERM makes `kronmodel` clean up, and the job's `folder` is removed.
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
    """Receive a job, run its command, and send the result."""
    signal.signal(signal.SIGTERM, _exit)  # until kronmodel installs its own handler
    parent_gone = False

    def terminate() -> None:
        nonlocal parent_gone
        parent_gone = True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(CLEAN_UP_SECONDS)

    job = child.receive(before_end=terminate)
    child.send(pid=os.getpid())
    progress = ["--progress-fd", str(child.message_fd())] if job.get("progress") else []
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # the output is parsed, not shown
        os.environ.pop(variable, None)
    sys.argv = ["kronmodel", *job["arguments"], *progress]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_module("kronmodel", run_name="__main__", alter_sys=True)
    except SystemExit as system_exit:
        if system_exit.code:
            raise
    finally:
        if parent_gone and "folder" in job:
            shutil.rmtree(job["folder"], ignore_errors=True)
    child.send(result=json.loads(printed.getvalue()))


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
